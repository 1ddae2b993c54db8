//! Jobs that were recorded on the ledger ahead of their run and came to nothing: what is kept aside for them is freed.
//!
//! ```text
//! noted -> OpenJobs -> ran: settled or claimed ----------> forgotten when its window is over
//!                 '--> nothing came of it, window over --> ReleaseJobs -> forgotten
//! ```
//! Noted before the ledger hears of it, so that a crash at any moment leaves nothing aside for ever.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use piecework_ledger::{Action, Key, ReleaseJobs, Value};
use piecework_model::{AccountId, Code, LeaseId, Ticket};
use serde::{Deserialize, Serialize};

use crate::{
    Answer,
    again::again,
    codecs,
    failure::{chain, store},
    money::{
        Money, closing,
        leases::{self, Reservation},
    },
};

/// `height/lease/provider/sequence` -> [`Opened`]: in the order in which they are looked at.
const SPACE: &str = "opened";
const EVERY: Duration = Duration::from_secs(5);
const PAGE: u32 = 200;

type Place = (LeaseId, AccountId, u64);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Opened {
    lease: LeaseId,
    provider: AccountId,
    sequence: u64,
    due_height: u64,
}

/// What this run counts as spent for jobs that came to nothing, until the ledger has freed it.
#[derive(Default)]
pub(crate) struct Aside(DashMap<Place, u64>);

/// A job is about to be recorded on the ledger.
pub(crate) async fn note(money: &Money, ticket: &Ticket) -> Answer<()> {
    let lease = closing::on_ledger(money, ticket.lease).await?;
    let window = lease.map_or(0, |lease| u64::from(lease.window_blocks));
    let opened = Opened {
        lease: ticket.lease,
        provider: ticket.provider,
        sequence: ticket.sequence,
        due_height: money.ground.chain.status().height + window,
    };
    let place = format!(
        "{:016x}/{}/{}/{}",
        opened.due_height, opened.lease, opened.provider, opened.sequence
    );
    codecs::put_json(&money.ground, SPACE, &place, &opened).await
}

/// Nothing came of a recorded job: its most is spent until the ledger frees it.
pub(crate) fn keep(money: &Money, ticket: &Ticket, reservation: Reservation) {
    let place = (ticket.lease, ticket.provider, ticket.sequence);
    money.aside.0.insert(place, ticket.price_max_ucr);
    reservation.commit(ticket.price_max_ucr);
}

/// Looks at what is due again and again, until shutdown.
pub(crate) async fn run(money: Arc<Money>) {
    again(&money.ground, EVERY, "jobs that came to nothing", || round(&money)).await;
}

async fn round(money: &Money) -> Answer<()> {
    let mut after: Option<String> = None;
    loop {
        let page = money.ground.store.list_values(SPACE, "", after.as_deref(), PAGE);
        let page = page.await.map_err(store)?;
        for (place, bytes) in page.items {
            let opened: Opened = codecs::from_json(&bytes)?;
            if opened.due_height >= money.ground.chain.status().height {
                return Ok(());
            }
            if is_done(money, &opened).await? {
                money.ground.store.take_value(SPACE, &place).await.map_err(store)?;
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Whether nothing is to be done about it any more: it was paid, or has papers and will be, or is free.
async fn is_done(money: &Money, opened: &Opened) -> Answer<bool> {
    let (lease, provider, sequence) = (opened.lease, opened.provider, opened.sequence);
    let key = Key::OpenJob(lease, provider, sequence);
    match money.ground.chain.get(&key).await.map_err(chain)? {
        Some(Value::OpenJob(job)) if job.metered.is_none() && job.received_at_ms.is_none() => {}
        Some(_) | None => return Ok(true),
    }
    let action = Action::ReleaseJobs(ReleaseJobs {
        lease,
        provider,
        sequences: vec![sequence],
    });
    match leases::submit_as_payer(money, action).await {
        Ok(_) => {
            if let Some((_, price_max_ucr)) = money.aside.0.remove(&(lease, provider, sequence)) {
                money.leases.forgive(lease, price_max_ucr);
            }
            tracing::info!(%lease, %provider, sequence, "released the reservation of a job that did not run");
            Ok(true)
        }
        Err(refusal)
            if refusal
                .code
                .is_one_of(&[Code::ReleaseNone, Code::LeaseClosed, Code::SettleNotPayer]) =>
        {
            Ok(true)
        }
        Err(refusal) if refusal.code == Code::ReleaseNotDue => Ok(false),
        Err(refusal) => Err(refusal),
    }
}
