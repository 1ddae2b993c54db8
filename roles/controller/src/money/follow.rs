//! Follows the ledger's blocks: marks jobs paid, writes statements, notices leases. Exactly once, also after a crash.
//!
//! ```text
//! block -> read (what it means here) -> one transaction of the store, with the place in the ledger -> what follows from it
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use piecework_chain::FinalBlock;
use piecework_chain_http::view::block_view;
use piecework_ledger::{Action, Event, JobChange, SignedTransaction};
use piecework_model::{Code, JobId, LeaseId};
use piecework_store::{JobStep, Payment, Projected};

use crate::{
    Answer, accounts,
    failure::{chain, store},
    money::{Money, closing, disputes, leases, statements, withheld},
};

/// Idle blocks after which the place is noted anyway, so that a start does not read them all again.
const NOTE_EVERY: u64 = 1_000;
/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads up to the head that the ledger has now.
pub(crate) async fn catch_up(money: &Arc<Money>) -> Answer<()> {
    let from = money.ground.store.projected_height().await.map_err(store)? + 1;
    let head = money.ground.chain.status().height;
    for height in from..=head {
        if let Some(block) = money.ground.chain.block(height).await.map_err(chain)? {
            project(money, &block).await?;
        }
    }
    if head >= from {
        money.ground.store.project(&Projected::at(head)).await.map_err(store)?;
    }
    Ok(())
}

/// Follows the live blocks until shutdown. A failure is tried again: nothing is skipped.
pub(crate) async fn run(money: Arc<Money>) {
    while !money.ground.shutdown.is_cancelled() {
        let from = match money.ground.store.projected_height().await {
            Ok(height) => height + 1,
            Err(error) => {
                tracing::error!(%error, "reading the last followed block failed");
                pause(&money).await;
                continue;
            }
        };
        if follow(&money, from).await.is_err() {
            pause(&money).await;
        }
    }
}

async fn pause(money: &Money) {
    tokio::select! {
        () = money.ground.shutdown.cancelled() => {}
        () = money.ground.clock.sleep(PAUSE) => {}
    }
}

async fn follow(money: &Arc<Money>, from: u64) -> Answer<()> {
    let mut blocks = money.ground.chain.blocks_from(from);
    loop {
        let next = tokio::select! {
            () = money.ground.shutdown.cancelled() => return Ok(()),
            next = blocks.next() => next,
        };
        match next {
            Some(block) => project(money, &block).await?,
            None => return crate::failure::refuse(Code::LedgerUnavailable, "the ledger has stopped"),
        }
    }
}

/// What a block means here.
struct Reading {
    durable: Projected,
    /// Leases that began to drain: what is held of them is paid.
    draining: Vec<LeaseId>,
}

/// Does all that a block means to this controller, with one commit of the store. May be repeated for the same block.
async fn project(money: &Arc<Money>, block: &FinalBlock) -> Answer<()> {
    let reading = read(money, block).await?;
    let paid = reading.durable.payments.len() as u64;
    if !reading.durable.is_empty() || block.height.is_multiple_of(NOTE_EVERY) {
        money.ground.store.project(&reading.durable).await.map_err(store)?;
    }
    if paid > 0 {
        money.ground.telemetry.paid.inc_by(paid);
        count_billing(money, block);
    }
    for lease in reading.draining {
        if let Err(refusal) = withheld::release_of(money, lease).await {
            tracing::warn!(%lease, %refusal, "releasing held receipts of a closing lease failed; retrying in the next round");
        }
    }
    if !block.transactions.is_empty() {
        money.ground.events.block(block_view(block));
    }
    Ok(())
}

/// Writes nothing that a block is counted by. Budgets and leases in memory follow at once: they only come nearer to what
/// the ledger says, however often that is.
async fn read(money: &Arc<Money>, block: &FinalBlock) -> Answer<Reading> {
    let mut reading = Reading {
        durable: Projected::at(block.height),
        draining: Vec::new(),
    };
    for (index, (signed, outcome)) in block.transactions.iter().zip(&block.outcomes).enumerate() {
        let Ok(events) = &outcome.result else { continue };
        let payments = payments_in(money, block, signed, events).await?;
        reading.durable.payments.extend(payments);
        let index = u32::try_from(index).expect("a block's transactions fit 32 bits");
        let lines = statements::of(money, block, index, (signed, events)).await?;
        reading.durable.puts.extend(lines);
        for event in events {
            read_event(money, event, &mut reading).await?;
        }
        let steps = steps_in(money, block, signed, events).await?;
        reading.durable.steps.extend(steps);
    }
    Ok(reading)
}

/// What an event means beside payments, steps and statements.
async fn read_event(money: &Arc<Money>, event: &Event, reading: &mut Reading) -> Answer<()> {
    let durable = &mut reading.durable;
    match event {
        Event::LeaseOpened { lease, developer, .. } => {
            durable.puts.extend(leases::noticed(money, *developer, *lease).await?);
        }
        Event::LeaseToppedUp { lease, .. } | Event::PayerDelegated { lease } => {
            durable.puts.extend(leases::changed(money, *lease).await?);
        }
        Event::LeaseDraining { lease, until_height } => {
            if let Some(put) = closing::began(money, *lease, *until_height).await? {
                durable.puts.push(put);
                reading.draining.push(*lease);
            }
        }
        Event::LeaseClosed { lease, freed } => {
            durable.takes.extend(closing::ended(money, *lease, *freed).await?);
        }
        // Of a user of this controller, and so a write of its own: it compares before it writes, and may be repeated.
        Event::KeyRotated { account } => accounts::key_rotated(&money.accounts, *account).await?,
        Event::JobClaimed { .. } => durable.puts.extend(disputes::note(money, event).await?),
        Event::AccountRegistered { .. }
        | Event::CreditsTransferred { .. }
        | Event::OfferPut { .. }
        | Event::OfferDropped { .. }
        | Event::JobOpened { .. }
        | Event::JobMetered { .. }
        | Event::JobReceived { .. }
        | Event::JobPaid { .. }
        | Event::JobRefuted { .. }
        | Event::MismatchReported { .. }
        | Event::LimitSet { .. }
        | Event::DebtCovered { .. }
        | Event::ChangeProposed { .. }
        | Event::ChangeVoted { .. }
        | Event::PeersChanged { .. }
        | Event::ParamsChanged {}
        | Event::PeerPaid { .. }
        | Event::RulesChanged { .. }
        | Event::JobReleased { .. } => {}
    }
    Ok(())
}

/// A job's step on the ledger.
fn step(event: &Event) -> Option<(JobId, JobStep)> {
    let of = event.of_job()?;
    let step = match of.change {
        JobChange::Opened => JobStep::Opened,
        JobChange::Metered => JobStep::Metered,
        JobChange::Received => JobStep::Received,
        JobChange::Paid { .. }
        | JobChange::Claimed { .. }
        | JobChange::Refuted
        | JobChange::Released
        | JobChange::Mismatched => return None,
    };
    Some((of.job, step))
}

/// Steps of jobs that this block does not pay as well: those of the others are found by the block that paid them.
async fn steps_in(
    money: &Money,
    block: &FinalBlock,
    signed: &SignedTransaction,
    events: &[Event],
) -> Answer<Vec<(JobId, JobStep)>> {
    let is_own = signed.key == money.ground.payer;
    let paid: BTreeSet<JobId> = events
        .iter()
        .filter_map(|event| payment(event, block.height).map(|payment| payment.job))
        .collect();
    let mut steps = Vec::new();
    for event in events {
        let Some((job, step)) = step(event) else { continue };
        // Whoever pays from a lease may name any job; who claims, those that it ran.
        if !paid.contains(&job) && (is_own || disputes::is_of_its_lease(money, event).await?) {
            steps.push((job, step));
        }
    }
    Ok(steps)
}

/// A place on the ledger.
pub(crate) struct Place {
    pub(crate) height: u64,
    pub(crate) transaction: piecework_model::Digest,
    pub(crate) at_ms: u64,
}

/// Where the ledger noted each step of a job before its payment, or with it.
pub(crate) async fn places_of(
    money: &Money,
    (job, lease): (JobId, Option<LeaseId>),
    paid_height: Option<u64>,
) -> Answer<BTreeMap<JobStep, Place>> {
    let is_its = |event: &&Event| match (event.lease_job(), lease) {
        (Some(of), Some(lease)) => of == (lease, job),
        // Opened, and no receipt came of it.
        (Some((_, of)), None) => of == job,
        (None, _) => false,
    };
    let noted = money.ground.store.steps(job).await.map_err(store)?;
    let heights: BTreeSet<u64> = noted.into_iter().map(|(_, height)| height).chain(paid_height).collect();
    let mut places = BTreeMap::new();
    for height in heights {
        let Some(block) = money.ground.chain.block(height).await.map_err(chain)? else {
            continue;
        };
        for outcome in &block.outcomes {
            let events = outcome.result.as_deref().unwrap_or_default();
            for (_, step) in events.iter().filter(is_its).filter_map(step) {
                places.entry(step).or_insert(Place {
                    height,
                    transaction: outcome.id.0,
                    at_ms: block.timestamp_ms,
                });
            }
        }
    }
    Ok(places)
}

fn count_billing(money: &Money, block: &FinalBlock) {
    for signed in &block.transactions {
        let Action::Settle(settle) = &signed.transaction.action else {
            continue;
        };
        for received_at_ms in settle.jobs.iter().filter_map(|job| job.received_at_ms) {
            let waited_ms = block.timestamp_ms.saturating_sub(received_at_ms);
            money.ground.telemetry.billed.observe(waited_ms as f64 / 1e3);
        }
    }
}

/// What a transaction paid. What this controller has not settled itself is looked at one by one: a claim may be for a
/// ticket whose answer never came, and a settlement of somebody else's may name a job that is none of its lease's.
async fn payments_in(
    money: &Money,
    block: &FinalBlock,
    signed: &SignedTransaction,
    events: &[Event],
) -> Answer<Vec<Payment>> {
    let mut payments = Vec::new();
    for event in events {
        let Some(payment) = payment(event, block.height) else {
            continue;
        };
        let is_own = signed.key == money.ground.payer && matches!(signed.transaction.action, Action::Settle(_));
        if is_own || disputes::is_of_its_ticket(money, event).await? {
            payments.push(payment);
        }
    }
    Ok(payments)
}

fn payment(event: &Event, height: u64) -> Option<Payment> {
    let of = event.of_job()?;
    match of.change {
        JobChange::Paid { commission_ucr, .. } => Some(Payment {
            job: of.job,
            height,
            commission_ucr,
        }),
        JobChange::Opened
        | JobChange::Metered
        | JobChange::Received
        | JobChange::Claimed { .. }
        | JobChange::Refuted
        | JobChange::Released
        | JobChange::Mismatched => None,
    }
}

/// The job's place on the ledger, found by the block that paid it.
pub(crate) async fn payment_of(
    money: &Money,
    (job, lease): (JobId, Option<LeaseId>),
    height: u64,
) -> Answer<Option<(piecework_model::Digest, u64)>> {
    let Some(block) = money.ground.chain.block(height).await.map_err(chain)? else {
        return Ok(None);
    };
    let found = block.outcomes.iter().find(|outcome| {
        outcome.result.as_ref().is_ok_and(|events| {
            events.iter().any(|event| {
                matches!(event, Event::JobPaid { job: paid, lease: from, .. }
                    if *paid == job && lease.is_none_or(|lease| lease == *from))
            })
        })
    });
    Ok(found.map(|outcome| (outcome.id.0, block.timestamp_ms)))
}
