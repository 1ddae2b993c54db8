//! The outbox: receipts wait for company, get the provider's seal, and go to the ledger in one transaction a lane.
//!
//! ```text
//! journal (durable) -> outbox -> seal of tickets, seal of receipts -> Settle -> final -> (follow marks them paid)
//! ```
//!
//! What is here is also in the journal: after a crash it is taken up again, and what was settled already is skipped by
//! the ledger. No retry limit: a settlement that does not get through is tried until it does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dashmap::DashMap;
use piecework_ledger::{Action, Metered, Settle, SettledJob};
use piecework_model::{AccountId, Digest, LeaseId, Receipt, Seal};
use piecework_queue::{ProviderLink, Unsealed};

use crate::{
    Answer, Controller,
    failure::{rejected, store},
    money::{leases, withheld},
};

/// A receipt that waits for its settlement, with the ack's time.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub receipt: Receipt,
    pub mark: [u8; 32],
    pub price_max_ucr: u64,
    pub received_at_ms: u64,
}

pub type LaneKey = (LeaseId, AccountId);

#[derive(Default)]
pub(crate) struct Outbox(DashMap<LaneKey, Vec<Outgoing>>);

/// Jobs of one transaction: well below the ledger's own limit, large enough that its signature costs nothing a job.
const SETTLE_JOBS_MAX: usize = 500;
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(2);

impl Outbox {
    pub(crate) fn push(&self, outgoing: Outgoing) {
        self.0
            .entry((outgoing.receipt.lease, outgoing.receipt.provider))
            .or_default()
            .push(outgoing);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|lane| lane.len()).sum()
    }

    /// Lanes whose provider is away wait for it: only it can seal its receipts.
    fn take(&self, is_here: impl Fn(AccountId) -> bool) -> Vec<(LaneKey, Vec<Outgoing>)> {
        let mut batches = Vec::new();
        for mut lane in self.0.iter_mut().filter(|lane| is_here(lane.key().1)) {
            let count = lane.len().min(SETTLE_JOBS_MAX);
            if count > 0 {
                batches.push((*lane.key(), lane.drain(..count).collect()));
            }
        }
        batches
    }
}

/// Puts what an earlier run left unsettled into the outbox; their lanes' leases must be known by then.
pub(crate) async fn take_up(controller: &Arc<Controller>) -> Answer<()> {
    let unsettled = controller.store.unsettled().await.map_err(store)?;
    if !unsettled.is_empty() {
        tracing::info!(
            jobs = unsettled.len(),
            "receipts of an earlier run wait for their settlement"
        );
    }
    for job in unsettled {
        leases::load_once(controller, job.developer).await?;
        if let Some(owed) = withheld::take_up(controller, &job).await? {
            controller.outbox.push(owed);
        }
    }
    Ok(())
}

/// Settles what waits, again and again; a last time at shutdown.
pub(crate) async fn run(controller: Arc<Controller>) {
    loop {
        tokio::select! {
            () = controller.shutdown.cancelled() => {
                settle_all(&controller).await;
                return;
            }
            () = tokio::time::sleep(controller.tuning.settle_every) => {}
        }
        if !settle_all(&controller).await {
            tokio::time::sleep(RETRY_AFTER_FAILURE).await;
        }
    }
}

/// Whether all that waited got through. What comes in meanwhile waits for the next turn, unless it is a batch of full size: a
/// settlement costs the ledger a block, however few jobs are in it.
async fn settle_all(controller: &Controller) -> bool {
    loop {
        let batches = controller.outbox.take(|provider| controller.link(provider).is_ok());
        let is_more = batches.iter().any(|(_, batch)| batch.len() == SETTLE_JOBS_MAX);
        let settle = batches
            .into_iter()
            .map(|(lane, batch)| settle_batch(controller, lane, batch));
        let done = futures::future::join_all(settle).await;
        let through = done.into_iter().all(|through| through);
        if !through || !is_more {
            return through;
        }
    }
}

async fn settle_batch(controller: &Controller, lane: LaneKey, mut batch: Vec<Outgoing>) -> bool {
    batch.sort_unstable_by_key(|outgoing| outgoing.receipt.sequence);
    batch.dedup_by_key(|outgoing| outgoing.receipt.sequence);
    match try_settle(controller, lane, &batch).await {
        Ok(()) => true,
        Err(refusal) => {
            tracing::error!(lease = %lane.0, provider = %lane.1, jobs = batch.len(), %refusal, "a settlement did not get through");
            controller.telemetry.settlements_failed.inc();
            match refusal.code.as_str() {
                "settle.budget" => feed(controller, lane.0, &batch).await,
                "lease.closed" => {
                    return give_up(controller, batch, "its lease closed before it was settled").await;
                }
                "settle.not_payer" => {
                    return give_up(controller, batch, "this controller pays from its lease no more").await;
                }
                _ => {}
            }
            controller.outbox.0.entry(lane).or_default().extend(batch);
            false
        }
    }
}

/// This controller cannot pay these any more: their lease closed before their provider came back to seal them, or its
/// developer took this controller's key away. In its window a provider claims what it has a seal for.
async fn give_up(controller: &Controller, batch: Vec<Outgoing>, reason: &str) -> bool {
    for outgoing in batch {
        let job = outgoing.receipt.job;
        if let Err(refusal) = withheld::lost(controller, job, reason).await {
            tracing::error!(%job, %refusal, "a job that will not be paid is not noted as such");
            controller.outbox.push(outgoing);
            return false;
        }
    }
    true
}

/// The lease had not enough left for these: claims have drawn on it as well.
async fn feed(controller: &Controller, lease: LeaseId, batch: &[Outgoing]) {
    let prices = batch.iter().map(|outgoing| outgoing.receipt.price_ucr);
    let missing = prices.fold(0, u64::saturating_add).max(1);
    if let Err(refusal) = leases::feed(controller, lease, missing).await {
        tracing::error!(%lease, %refusal, "a lease cannot be topped up");
    }
}

async fn try_settle(controller: &Controller, lane: LaneKey, batch: &[Outgoing]) -> Answer<()> {
    let provider = controller.link(lane.1)?;
    seal_tickets(controller, lane, &*provider).await?;
    let receipts = batch.iter().map(|outgoing| Unsealed {
        receipt: outgoing.receipt.clone(),
        mark: outgoing.mark,
    });
    let seal = provider
        .seal_receipts(lane, receipts.collect())
        .await
        .map_err(rejected)?;
    let done = leases::submit_as_payer(controller, Action::Settle(settlement(lane, batch, &seal))).await?;
    controller.telemetry.settled.inc_by(batch.len() as u64);
    tracing::debug!(lease = %lane.0, jobs = batch.len(), height = done.height, "settled");
    Ok(())
}

async fn seal_tickets(controller: &Controller, key: LaneKey, provider: &dyn ProviderLink) -> Answer<()> {
    let book = controller.leases.book(key.0);
    let lane = book.and_then(|book| book.lanes().into_iter().find(|(account, _)| *account == key.1));
    match lane {
        Some((_, lane)) => lane.seal(controller, key, provider, 0).await,
        None => Ok(()),
    }
}

/// Receipts of one lane with the provider's seal over them, in ascending order of their sequences, each once.
pub fn settlement(lane: LaneKey, batch: &[Outgoing], seal: &Seal) -> Settle {
    let mut codes: BTreeMap<Digest, u16> = BTreeMap::new();
    for outgoing in batch {
        let next = u16::try_from(codes.len()).expect("a batch is far below 65536 jobs");
        codes.entry(outgoing.receipt.code).or_insert(next);
    }
    let jobs = batch.iter().map(|outgoing| settled_job(outgoing, &codes)).collect();
    let mut in_order: Vec<(u16, Digest)> = codes.into_iter().map(|(code, index)| (index, code)).collect();
    in_order.sort_unstable();
    Settle {
        lease: lane.0,
        provider: lane.1,
        codes: in_order.into_iter().map(|(_, code)| code).collect(),
        jobs,
        receipts: Some(seal.signature),
        acks: None,
    }
}

fn settled_job(outgoing: &Outgoing, codes: &BTreeMap<Digest, u16>) -> SettledJob {
    let receipt = &outgoing.receipt;
    SettledJob {
        sequence: receipt.sequence,
        job: receipt.job,
        code: codes[&receipt.code],
        input: receipt.input,
        price_max_ucr: outgoing.price_max_ucr,
        metered: Some(Metered {
            output: receipt.output,
            status: receipt.status,
            counters: receipt.counters,
            price_ucr: receipt.price_ucr,
            duration_us: receipt.duration_us,
        }),
        received_at_ms: Some(outgoing.received_at_ms),
    }
}
