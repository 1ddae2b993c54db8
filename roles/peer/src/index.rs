//! What the ledger's state cannot be asked for, gathered from its blocks: who has an account, who made an offer, which
//! leases there are, which blocks speak of a job.
//!
//! Lives in memory and is read again at each start, newest blocks first and skipping those that hold nothing. Values are
//! never kept here, only where to look for them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use futures::StreamExt as _;
use parking_lot::Mutex;
use piecework_chain::{Chain, ChainFailure, FinalBlock};
use piecework_ledger::Event;
use piecework_model::{AccountId, JobId, LeaseId, PublicKey};
use tokio_util::sync::CancellationToken;

/// Jobs whose blocks are remembered, some 100 bytes each; the newest stay.
const JOBS_MAX: usize = 500_000;
/// Blocks that can speak of one job: opened, metered, received and paid, each in its own, and a claim's.
const BLOCKS_PER_JOB_MAX: usize = 8;

#[derive(Default)]
pub(crate) struct Index(Mutex<Known>);

#[derive(Default)]
struct Known {
    accounts: BTreeSet<AccountId>,
    /// Whoever ever made one; the state says whether it stands.
    offers: BTreeSet<AccountId>,
    /// By the block that opened each, with its developer.
    leases: BTreeMap<(u64, LeaseId), AccountId>,
    jobs: HashMap<JobId, Vec<u64>>,
    /// Newest at the back.
    order: VecDeque<JobId>,
    is_complete: bool,
}

impl Index {
    /// Whether all history has been read.
    pub(crate) fn is_complete(&self) -> bool {
        self.0.lock().is_complete
    }

    /// Accounts, or those that made an offer, in the order of their ids.
    pub(crate) fn ids(&self, offers: bool, from: AccountId, max: usize) -> Vec<AccountId> {
        let known = self.0.lock();
        let set = if offers { &known.offers } else { &known.accounts };
        set.range(from..).take(max).copied().collect()
    }

    /// Leases from a place down, newest first.
    pub(crate) fn leases(
        &self,
        from: Option<(u64, LeaseId)>,
        developer: Option<AccountId>,
        max: usize,
    ) -> Vec<(u64, LeaseId)> {
        let known = self.0.lock();
        let end = from.map_or(Bound::Unbounded, Bound::Included);
        let down = known.leases.range((Bound::Unbounded, end)).rev();
        let wanted = down.filter(|(_, of)| developer.is_none_or(|developer| developer == **of));
        wanted.take(max).map(|(place, _)| *place).collect()
    }

    /// The blocks that speak of a job, ascending.
    pub(crate) fn job(&self, id: JobId) -> Vec<u64> {
        self.0.lock().jobs.get(&id).cloned().unwrap_or_default()
    }

    fn read(&self, block: &FinalBlock, live: bool) {
        let mut known = self.0.lock();
        for event in block
            .outcomes
            .iter()
            .filter_map(|outcome| outcome.result.as_ref().ok())
            .flatten()
        {
            match event {
                Event::AccountRegistered { account } => drop(known.accounts.insert(*account)),
                Event::OfferPut { provider } => drop(known.offers.insert(*provider)),
                Event::LeaseOpened { lease, developer, .. } => {
                    known.leases.insert((block.height, *lease), *developer);
                }
                other => {
                    if let Some(job) = other.job() {
                        known.note_job(job, block.height, live);
                    }
                }
            }
        }
    }
}

impl Known {
    fn note_job(&mut self, job: JobId, height: u64, live: bool) {
        match self.jobs.get_mut(&job) {
            Some(heights) => {
                if let Err(place) = heights.binary_search(&height)
                    && heights.len() < BLOCKS_PER_JOB_MAX
                {
                    heights.insert(place, height);
                }
            }
            None if live => {
                self.jobs.insert(job, vec![height]);
                self.order.push_back(job);
                if self.order.len() > JOBS_MAX
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.jobs.remove(&oldest);
                }
            }
            None if self.order.len() < JOBS_MAX => {
                self.jobs.insert(job, vec![height]);
                self.order.push_front(job);
            }
            None => {}
        }
    }
}

/// Reads the history, then what comes, until `shutdown`.
pub(crate) async fn run(
    index: Arc<Index>,
    chain: Arc<dyn Chain>,
    granted: Vec<PublicKey>,
    shutdown: CancellationToken,
) {
    index.0.lock().accounts.extend(granted.iter().map(AccountId::of));
    let head = chain.status().height;
    let live = async {
        let mut blocks = chain.blocks_from(head + 1);
        while let Some(block) = blocks.next().await {
            index.read(&block, true);
        }
    };
    let history = async {
        match read_history(&index, &*chain, head).await {
            Ok(()) => index.0.lock().is_complete = true,
            Err(failure) => tracing::warn!(%failure, "the ledger's history could not be read; lists stay refused"),
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = futures::future::join(live, history) => {}
    }
}

async fn read_history(index: &Index, chain: &dyn Chain, from: u64) -> Result<(), ChainFailure> {
    let mut height = from;
    while height > 0 {
        let Some(block) = chain.block(height).await? else {
            return Ok(());
        };
        index.read(&block, false);
        height = block.previous_busy;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u8) -> JobId {
        JobId::new(number.into(), [number; 10])
    }

    #[test]
    fn a_jobs_blocks_ascend_whichever_way_they_are_read() {
        let mut known = Known::default();
        known.note_job(job(1), 9, true);
        known.note_job(job(1), 4, false);
        known.note_job(job(1), 9, false);
        assert_eq!(known.jobs[&job(1)], [4, 9]);
    }

    #[test]
    fn the_newest_jobs_stay() {
        let mut known = Known::default();
        known.note_job(job(2), 2, true);
        known.note_job(job(1), 1, false);
        assert_eq!(known.order, [job(1), job(2)]);
    }
}
