//! Follows the ledger's blocks: marks jobs paid, writes statements, notices leases. Exactly once, also after a crash.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::StreamExt as _;
use piecework_chain::FinalBlock;
use piecework_chain_http::view::block_view;
use piecework_ledger::{Action, Event, Key, SignedTransaction, Value};
use piecework_model::{AccountId, Credits, JobId, LeaseId};
use piecework_store::{JobStep, Payment};
use serde::{Deserialize, Serialize};

use crate::{
    Answer, Controller, accounts, codecs,
    failure::{chain, store},
    money::{closing, disputes, leases},
};

/// One movement of a statement, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) at_ms: u64,
    pub(crate) height: u64,
    pub(crate) kind: String,
    pub(crate) counterparty: Option<AccountId>,
    pub(crate) jobs: u32,
    pub(crate) amount: Credits,
    pub(crate) transaction: piecework_model::Digest,
}

/// Idle blocks after which the place is noted anyway, so that a start does not read them all again.
const NOTE_EVERY: u64 = 1_000;

pub(crate) fn statement_space(account: AccountId) -> String {
    format!("statement/{account}")
}

/// Reads up to the head that the ledger has now.
pub(crate) async fn catch_up(controller: &Arc<Controller>) -> Answer<()> {
    let from = controller.store.projected_height().await.map_err(store)? + 1;
    let head = controller.chain.status().height;
    for height in from..=head {
        if let Some(block) = controller.chain.block(height).await.map_err(chain)? {
            project(controller, &block).await?;
        }
    }
    if head >= from {
        controller.store.mark_paid(&[], head).await.map_err(store)?;
    }
    Ok(())
}

/// Follows the live blocks until shutdown. A failure is tried again: nothing is skipped.
pub(crate) async fn run(controller: Arc<Controller>) {
    while !controller.shutdown.is_cancelled() {
        let from = match controller.store.projected_height().await {
            Ok(height) => height + 1,
            Err(error) => {
                tracing::error!(%error, "the place in the ledger cannot be read");
                pause(&controller).await;
                continue;
            }
        };
        if follow(&controller, from).await.is_err() {
            pause(&controller).await;
        }
    }
}

async fn pause(controller: &Controller) {
    tokio::select! {
        () = controller.shutdown.cancelled() => {}
        () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
    }
}

async fn follow(controller: &Arc<Controller>, from: u64) -> Answer<()> {
    let mut blocks = controller.chain.blocks_from(from);
    loop {
        let next = tokio::select! {
            () = controller.shutdown.cancelled() => return Ok(()),
            next = blocks.next() => next,
        };
        match next {
            Some(block) => project(controller, &block).await?,
            None => return crate::failure::refuse("ledger.unavailable", "the ledger has stopped"),
        }
    }
}

/// All that a block means to this controller. May be repeated for the same block.
async fn project(controller: &Arc<Controller>, block: &FinalBlock) -> Answer<()> {
    let mut payments = Vec::new();
    for (index, (signed, outcome)) in block.transactions.iter().zip(&block.outcomes).enumerate() {
        let Ok(events) = &outcome.result else { continue };
        payments.extend(payments_in(controller, block, signed, events).await?);
        let index = u32::try_from(index).expect("a block's transactions fit 32 bits");
        write_statements(controller, block, index, signed, events).await?;
        for event in events {
            match event {
                Event::LeaseOpened { lease, developer, .. } => leases::noticed(controller, *developer, *lease).await?,
                Event::LeaseToppedUp { lease, .. } | Event::PayerDelegated { lease } => {
                    leases::changed(controller, *lease).await?;
                }
                Event::LeaseDraining { lease, until_height } => {
                    closing::began(controller, *lease, *until_height).await?;
                }
                Event::LeaseClosed { lease, freed } => closing::ended(controller, *lease, *freed).await?,
                Event::KeyRotated { account } => accounts::key_rotated(controller, *account).await?,
                Event::JobClaimed { .. } => disputes::note(controller, event).await?,
                _ => {}
            }
        }
        note_steps(controller, block, signed, events).await?;
    }
    if !payments.is_empty() || block.height.is_multiple_of(NOTE_EVERY) {
        controller
            .store
            .mark_paid(&payments, block.height)
            .await
            .map_err(store)?;
        controller.telemetry.paid.inc_by(payments.len() as u64);
        count_billing(controller, block);
    }
    if !block.transactions.is_empty() {
        controller.announce_block(block_view(block));
    }
    Ok(())
}

/// A job's step on the ledger.
fn step(event: &Event) -> Option<(JobId, JobStep)> {
    match event {
        Event::JobOpened { job, .. } => Some((*job, JobStep::Opened)),
        Event::JobMetered { job, .. } => Some((*job, JobStep::Metered)),
        Event::JobReceived { job, .. } => Some((*job, JobStep::Received)),
        _ => None,
    }
}

/// Steps of jobs that this block does not pay as well: those of the others are found by the block that paid them.
async fn note_steps(
    controller: &Controller,
    block: &FinalBlock,
    signed: &SignedTransaction,
    events: &[Event],
) -> Answer<()> {
    let is_own = signed.key == controller.payer;
    let paid: BTreeSet<JobId> = events
        .iter()
        .filter_map(|event| payment(event, block.height).map(|payment| payment.job))
        .collect();
    for event in events {
        let Some((job, step)) = step(event) else { continue };
        // Whoever pays from a lease may name any job; who claims, those that it ran.
        if !paid.contains(&job) && (is_own || disputes::is_of_its_lease(controller, event).await?) {
            controller
                .store
                .note_step(job, step, block.height)
                .await
                .map_err(store)?;
        }
    }
    Ok(())
}

/// A place on the ledger.
pub(crate) struct Place {
    pub(crate) height: u64,
    pub(crate) transaction: piecework_model::Digest,
    pub(crate) at_ms: u64,
}

/// Where the ledger noted each step of a job before its payment, or with it.
pub(crate) async fn places_of(
    controller: &Controller,
    (job, lease): (JobId, Option<LeaseId>),
    paid_height: Option<u64>,
) -> Answer<BTreeMap<JobStep, Place>> {
    let is_its = |event: &&Event| match (event.lease_job(), lease) {
        (Some(of), Some(lease)) => of == (lease, job),
        // Opened, and no receipt came of it.
        (Some((_, of)), None) => of == job,
        (None, _) => false,
    };
    let noted = controller.store.steps(job).await.map_err(store)?;
    let heights: BTreeSet<u64> = noted.into_iter().map(|(_, height)| height).chain(paid_height).collect();
    let mut places = BTreeMap::new();
    for height in heights {
        let Some(block) = controller.chain.block(height).await.map_err(chain)? else {
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

fn count_billing(controller: &Controller, block: &FinalBlock) {
    for signed in &block.transactions {
        let Action::Settle(settle) = &signed.transaction.action else {
            continue;
        };
        for received_at_ms in settle.jobs.iter().filter_map(|job| job.received_at_ms) {
            let waited_ms = block.timestamp_ms.saturating_sub(received_at_ms);
            controller.telemetry.billed.observe(waited_ms as f64 / 1e3);
        }
    }
}

/// What a transaction paid. What this controller has not settled itself is looked at one by one: a claim may be for a
/// ticket whose answer never came, and a settlement of somebody else's may name a job that is none of its lease's.
async fn payments_in(
    controller: &Controller,
    block: &FinalBlock,
    signed: &SignedTransaction,
    events: &[Event],
) -> Answer<Vec<Payment>> {
    let mut payments = Vec::new();
    for event in events {
        let Some(payment) = payment(event, block.height) else {
            continue;
        };
        let is_own = signed.key == controller.payer && matches!(signed.transaction.action, Action::Settle(_));
        if is_own || disputes::is_of_its_ticket(controller, event).await? {
            payments.push(payment);
        }
    }
    Ok(payments)
}

fn payment(event: &Event, height: u64) -> Option<Payment> {
    match event {
        Event::JobPaid {
            job, commission_ucr, ..
        } => Some(Payment {
            job: *job,
            height,
            commission_ucr: *commission_ucr,
        }),
        _ => None,
    }
}

async fn write_statements(
    controller: &Controller,
    block: &FinalBlock,
    index: u32,
    signed: &SignedTransaction,
    events: &[Event],
) -> Answer<()> {
    let payer = match &signed.transaction.action {
        Action::Settle(settle) => developer_of(controller, settle.lease).await?,
        Action::PayClaims(pay) => developer_of(controller, pay.lease).await?,
        _ => None,
    };
    for (part, (account, line)) in lines(block, signed, events, payer).into_iter().enumerate() {
        // Counted down, so that the order of keys is newest first.
        let key = format!("{:016x}-{:08x}-{part:02x}", u64::MAX - block.height, u32::MAX - index);
        codecs::put_json(controller, &statement_space(account), &key, &line).await?;
    }
    Ok(())
}

/// What a transaction moved, by account.
fn lines(
    block: &FinalBlock,
    signed: &SignedTransaction,
    events: &[Event],
    payer: Option<AccountId>,
) -> Vec<(AccountId, Line)> {
    let line = |kind: &str, counterparty, jobs, amount| Line {
        at_ms: block.timestamp_ms,
        height: block.height,
        kind: kind.to_owned(),
        counterparty,
        jobs,
        amount,
        transaction: signed.id().0,
    };
    let mut lines = Vec::new();
    let mut lanes: BTreeMap<AccountId, (u32, i128, i128)> = BTreeMap::new();
    for event in events {
        match event {
            Event::CreditsTransferred { from, to, amount } => {
                lines.push((*from, line("transfer", Some(*to), 0, Credits(-amount.0))));
                lines.push((*to, line("transfer", Some(*from), 0, *amount)));
            }
            Event::DebtCovered {
                sponsor,
                account,
                amount,
            } => {
                lines.push((*sponsor, line("debt_covered", Some(*account), 0, Credits(-amount.0))));
                lines.push((*account, line("debt_covered", Some(*sponsor), 0, *amount)));
            }
            Event::PeerPaid { owner, amount, .. } => lines.push((*owner, line("peer_share", None, 0, *amount))),
            Event::JobPaid {
                provider,
                price_ucr,
                commission_ucr,
                ..
            } => {
                let (jobs, paid, earned) = lanes.entry(*provider).or_default();
                *jobs += 1;
                *paid += i128::from(*price_ucr);
                *earned += i128::from(*price_ucr) - i128::from(*commission_ucr);
            }
            _ => {}
        }
    }
    for (provider, (jobs, paid, earned)) in lanes {
        lines.push((provider, line("jobs_earned", payer, jobs, Credits(earned))));
        if let Some(developer) = payer {
            lines.push((developer, line("jobs_paid", Some(provider), jobs, Credits(-paid))));
        }
    }
    lines
}

/// The job's place on the ledger, found by the block that paid it.
pub(crate) async fn payment_of(
    controller: &Controller,
    (job, lease): (JobId, Option<LeaseId>),
    height: u64,
) -> Answer<Option<(piecework_model::Digest, u64)>> {
    let Some(block) = controller.chain.block(height).await.map_err(chain)? else {
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

async fn developer_of(controller: &Controller, lease: LeaseId) -> Answer<Option<AccountId>> {
    match controller.chain.get(&Key::Lease(lease)).await.map_err(chain)? {
        Some(Value::Lease(lease)) => Ok(Some(lease.developer)),
        Some(_) | None => Ok(None),
    }
}
