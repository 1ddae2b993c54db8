//! Settlement: a lane's receipts wait for company, get the provider's seal, and go to the ledger in one transaction.
//!
//! ```text
//! journal (durable) -> outbox -> seal of tickets, seal of receipts -> Settle -> final -> (follow marks them paid)
//! ```
//!
//! Each lane that has receipts is served by a task of its own: what a provider does or does not do is felt by its lanes
//! alone. What is here is also in the journal: after a crash it is taken up again, and what was settled already is skipped
//! by the ledger. No retry limit: a settlement that does not get through is tried until it does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use piecework_ledger::{Action, Metered, Settle, SettledJob};
use piecework_model::{Code, Digest, Seal};
use piecework_queue::{ProviderLink, Unsealed};
use tokio::task::JoinSet;

use crate::{
    Answer,
    clock::within,
    failure::{rejected, store},
    money::{
        Money, leases,
        outbox::{Batch, LaneKey, Outbox, Outgoing},
        pace::{Unsettled, back_off, until_turn},
        withheld,
    },
};

/// Jobs of one transaction: well below the ledger's own limit, large enough that its signature costs nothing a job.
const SETTLE_JOBS_MAX: usize = 500;
/// The last settlements at shutdown; what does not get through by then is settled after the next start.
const LAST_WITHIN: Duration = Duration::from_secs(5);

/// Puts what an earlier run left unsettled into the outbox; their lanes' leases must be known by then.
pub(crate) async fn take_up(money: &Arc<Money>) -> Answer<()> {
    let unsettled = money.ground.store.unsettled().await.map_err(store)?;
    if !unsettled.is_empty() {
        tracing::info!(
            jobs = unsettled.len(),
            "receipts from before the restart wait for settlement"
        );
    }
    for job in unsettled {
        leases::load_once(money, job.developer).await?;
        if let Some(owed) = withheld::take_up(money, &job).await? {
            money.outbox.push(owed);
        }
    }
    Ok(())
}

/// Gives each lane that has receipts a task, until shutdown; then each settles a last time.
pub(crate) async fn run(money: Arc<Money>) {
    let mut tasks = JoinSet::new();
    loop {
        let outbox = &money.outbox;
        let is_stopping = tokio::select! {
            () = money.ground.shutdown.cancelled() => true,
            () = outbox.news() => false,
            () = money.ground.clock.sleep(money.ground.tuning.settle_every), if outbox.has_parked() => false,
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a lane's settlement panicked; retrying");
                }
                continue;
            }
        };
        let is_here = |provider| money.providers.link(provider).is_ok();
        for lane in outbox.take_fresh().into_iter().chain(outbox.take_parked(is_here)) {
            tasks.spawn(serve(money.clone(), lane));
        }
        if is_stopping {
            break;
        }
    }
    let last = async { while tasks.join_next().await.is_some() {} };
    if within(&*money.ground.clock, LAST_WITHIN, last).await.is_none() {
        let jobs = money.outbox.len();
        tracing::info!(
            jobs,
            "stopped before all receipts were settled; the rest are settled after the next start"
        );
    }
}

/// However a lane's task ends, unless it has nothing left: the lane gets another one.
struct Served<'a> {
    outbox: &'a Outbox,
    lane: LaneKey,
    has_more: bool,
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        if self.has_more {
            self.outbox.park(self.lane);
        }
    }
}

/// What came of a lane's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// All that waited when it began is settled.
    Through,
    /// Its provider is away: only that can seal its receipts.
    Away,
    Failed,
}

/// Settles one lane, turn by turn, until nothing waits in it, its provider goes away, or shutdown. It waits for nobody else,
/// and nobody for it.
async fn serve(money: Arc<Money>, lane: LaneKey) {
    let (outbox, tuning) = (&money.outbox, &money.ground.tuning);
    let mut served = Served {
        outbox,
        lane,
        has_more: true,
    };
    let mut failures = 0;
    loop {
        let wait = match failures {
            0 => until_turn(lane, tuning.settle_every, money.ground.clock.now()),
            failures => back_off(failures),
        };
        let is_stopping = tokio::select! {
            () = money.ground.shutdown.cancelled() => true,
            () = money.ground.clock.sleep(wait) => false,
        };
        // One that fails now would only hold up the shutdown.
        if is_stopping && failures > 0 {
            return;
        }
        match turn(&money, lane).await {
            Turn::Through => failures = 0,
            Turn::Failed => failures = failures.saturating_add(1),
            Turn::Away => return,
        }
        if failures == 0 && outbox.rest(lane) {
            served.has_more = false;
            return;
        }
        if is_stopping {
            return;
        }
    }
}

/// What comes in meanwhile waits for the next turn, unless a batch was of full size: a settlement costs the ledger a block,
/// however few jobs are in it.
async fn turn(money: &Money, lane: LaneKey) -> Turn {
    loop {
        let Ok(provider) = money.providers.link(lane.1) else {
            return Turn::Away;
        };
        let mut batch = money.outbox.take(lane, SETTLE_JOBS_MAX);
        let is_full = batch.receipts().len() == SETTLE_JOBS_MAX;
        if batch.receipts().is_empty() {
            return Turn::Through;
        }
        batch.sort();
        match try_settle(money, lane, &*provider, batch.receipts()).await {
            Ok(()) => batch.done(),
            Err(unsettled) => {
                if !recover(money, lane, batch, &unsettled).await {
                    return Turn::Failed;
                }
            }
        }
        if !is_full {
            return Turn::Through;
        }
    }
}

/// Whether the batch came to its end all the same; else it is tried again.
async fn recover(money: &Money, lane: LaneKey, batch: Batch<'_>, unsettled: &Unsettled) -> bool {
    let jobs = batch.receipts().len();
    tracing::error!(lease = %lane.0, provider = %lane.1, jobs, %unsettled, "a settlement failed");
    money.ground.telemetry.settlements_failed.inc();
    let refusal = match unsettled {
        Unsettled::Refused(refusal) => refusal,
        Unsettled::SealOverdue | Unsettled::NoPlace | Unsettled::LedgerOverdue => return false,
    };
    match refusal.code.known() {
        Some(Code::SettleBudget) => {
            feed(money, lane, batch.receipts()).await;
            false
        }
        Some(Code::LeaseClosed) => give_up(money, batch, "its lease closed before it was settled").await,
        Some(Code::SettleNotPayer) => give_up(money, batch, "this controller pays from its lease no more").await,
        Some(_) | None => false,
    }
}

/// This controller cannot pay these any more: their lease closed before their provider came back to seal them, or its
/// developer took this controller's key away. In its window a provider claims what it has a seal for.
async fn give_up(money: &Money, mut batch: Batch<'_>, reason: &str) -> bool {
    while let Some(outgoing) = batch.receipts().last() {
        let job = outgoing.receipt.job;
        if let Err(refusal) = withheld::lost(money, job, reason).await {
            tracing::error!(%job, %refusal, "recording that a job will not be paid failed");
            return false;
        }
        batch.done_with_last();
    }
    true
}

/// The lease had not enough left for these: claims have drawn on it as well.
async fn feed(money: &Money, lane: LaneKey, batch: &[Outgoing]) {
    let prices = batch.iter().map(|outgoing| outgoing.receipt.price_ucr);
    let missing = prices.fold(0, u64::saturating_add).max(1);
    if let Err(refusal) = leases::feed(money, lane.0, missing).await {
        tracing::error!(lease = %lane.0, %refusal, "topping up a lease failed");
    }
}

async fn try_settle(
    money: &Money,
    lane: LaneKey,
    provider: &dyn ProviderLink,
    batch: &[Outgoing],
) -> Result<(), Unsettled> {
    let places = &money.places;
    let clock = &*money.ground.clock;
    let seal = places
        .sealing(clock, lane.1, sealed(money, lane, provider, batch))
        .await?;
    let settle = leases::submit_as_payer(money, Action::Settle(settlement(lane, batch, &seal)));
    let done = places.submitting(clock, settle).await?;
    money.ground.telemetry.settled.inc_by(batch.len() as u64);
    tracing::debug!(lease = %lane.0, jobs = batch.len(), height = done.height, "settled");
    Ok(())
}

/// The provider gets the seal over its tickets and gives its own over the receipts. Cancel safe.
async fn sealed(money: &Money, lane: LaneKey, provider: &dyn ProviderLink, batch: &[Outgoing]) -> Answer<Seal> {
    if let Some(tickets) = money.leases.book(lane.0).and_then(|book| book.known_lane(lane.1)) {
        tickets.seal(money, lane, provider, 0).await?;
    }
    let receipts = batch.iter().map(|outgoing| Unsealed {
        receipt: outgoing.receipt.clone(),
        mark: outgoing.mark,
    });
    let seal = provider.seal_receipts(lane, receipts.collect()).await;
    seal.map_err(rejected)
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
