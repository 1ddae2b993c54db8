//! An index of what the ledger's state cannot answer, built from its blocks: which accounts, offers and leases exist,
//! and which blocks mention a job.
//!
//! Lives in memory and is read again at each start, newest blocks first and skipping those that hold nothing. Values
//! are never kept here, only where to look for them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
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
    /// Whoever pays from a lease may say any job's id: what other leases say of it is another job.
    jobs: BTreeMap<(JobId, LeaseId), Vec<u64>>,
    /// Newest at the back.
    order: VecDeque<(JobId, LeaseId)>,
    /// Leases that drain or have drained, by their last height; the state says whether they are closed.
    draining: BTreeSet<(u64, LeaseId)>,
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

    /// The blocks that speak of a job of this lease, ascending.
    pub(crate) fn job(&self, id: JobId, lease: LeaseId) -> Vec<u64> {
        self.0.lock().jobs.get(&(id, lease)).cloned().unwrap_or_default()
    }

    /// The leases that have a job of this id, and the blocks that speak of it: who was first comes first.
    pub(crate) fn leases_of(&self, id: JobId) -> Vec<(LeaseId, Vec<u64>)> {
        let (first, last) = ((id, LeaseId([0; 20])), (id, LeaseId([u8::MAX; 20])));
        let known = self.0.lock();
        let jobs = known.jobs.range(first..=last);
        let mut found: Vec<_> = jobs.map(|((_, lease), heights)| (*lease, heights.clone())).collect();
        drop(known);
        found.sort_by_key(|(lease, heights)| (heights.first().copied(), *lease));
        found
    }

    /// Leases whose window ended below this height and that are not known to be closed.
    pub(crate) fn drained(&self, height: u64, max: usize) -> Vec<LeaseId> {
        let known = self.0.lock();
        let over = known.draining.range(..(height, LeaseId([0; 20])));
        over.take(max).map(|(_, lease)| *lease).collect()
    }

    pub(crate) fn closed(&self, lease: LeaseId) {
        self.0.lock().draining.retain(|(_, draining)| *draining != lease);
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
                Event::LeaseDraining { lease, until_height } => {
                    known.draining.insert((*until_height, *lease));
                }
                Event::JobOpened { .. }
                | Event::JobMetered { .. }
                | Event::JobReceived { .. }
                | Event::JobPaid { .. }
                | Event::JobClaimed { .. }
                | Event::JobRefuted { .. }
                | Event::JobReleased { .. }
                | Event::MismatchReported { .. } => {
                    if let Some((lease, job)) = event.lease_job() {
                        known.note_job((job, lease), block.height, live);
                    }
                }
                Event::KeyRotated { .. }
                | Event::CreditsTransferred { .. }
                | Event::OfferDropped { .. }
                | Event::LeaseToppedUp { .. }
                | Event::PayerDelegated { .. }
                | Event::LeaseClosed { .. }
                | Event::LimitSet { .. }
                | Event::DebtCovered { .. }
                | Event::ChangeProposed { .. }
                | Event::ChangeVoted { .. }
                | Event::PeersChanged { .. }
                | Event::ParamsChanged {}
                | Event::PeerPaid { .. }
                | Event::RulesChanged { .. } => {}
            }
        }
    }
}

impl Known {
    fn note_job(&mut self, job: (JobId, LeaseId), height: u64, live: bool) {
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
            Err(failure) => tracing::warn!(%failure, "reading the ledger's history failed; list requests stay refused"),
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

    fn job(number: u8) -> (JobId, LeaseId) {
        (JobId::new(number.into(), [number; 10]), LeaseId([number; 20]))
    }

    #[test]
    fn a_foreign_lease_that_says_a_jobs_id_has_a_job_of_its_own() {
        let index = Index::default();
        let ((id, lease), foreign) = (job(1), LeaseId([0; 20]));
        index.0.lock().note_job((id, lease), 4, true);
        for height in 5..5 + 2 * BLOCKS_PER_JOB_MAX as u64 {
            index.0.lock().note_job((id, foreign), height, true);
        }
        index.0.lock().note_job((id, lease), 90, true);
        assert_eq!(index.job(id, lease), [4, 90]);
        let leases: Vec<LeaseId> = index.leases_of(id).into_iter().map(|(lease, _)| lease).collect();
        assert_eq!(leases, [lease, foreign]);
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
    fn a_lease_is_over_after_its_last_height_until_it_is_known_to_be_closed() {
        let index = Index::default();
        let leases = [LeaseId([1; 20]), LeaseId([2; 20])];
        index.0.lock().draining.extend([(7, leases[1]), (9, leases[0])]);
        assert_eq!(index.drained(7, 10), []);
        assert_eq!(index.drained(8, 10), [leases[1]]);
        assert_eq!(index.drained(10, 10), [leases[1], leases[0]]);
        index.closed(leases[1]);
        assert_eq!(index.drained(10, 10), [leases[0]]);
    }

    #[test]
    fn the_newest_jobs_stay() {
        let mut known = Known::default();
        known.note_job(job(2), 2, true);
        known.note_job(job(1), 1, false);
        assert_eq!(known.order, [job(1), job(2)]);
    }
}
