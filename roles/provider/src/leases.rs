//! Checks the leases that orders come from: could the pay still be claimed if nobody settles it?
//!
//! ```text
//! first order of a lease -> the ledger is asked -> remembered -- some seconds later, at the next order --> asked again
//! ```
//! A developer who closes a lease gets what is left of it after the lease's window; what is not claimed by then is
//! lost. So the window must leave time for the job and for a claim, and nothing new begins once it runs.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use piecework_ledger::{Key, Lease, LeaseState, Value};
use piecework_model::{Code, LeaseId, PublicKey, Rejection, Ticket};
use piecework_queue::Refusal;

use crate::collect::Ledger;

/// What a claim needs at the least: a lease that drains is noticed within half a minute, and a ledger in full swing
/// makes some thirty blocks a second.
pub const WINDOW_BLOCKS_MIN: u32 = 1_000;

/// A lease that was looked at within this time is not looked at again: so long a closing one may still get orders,
/// which its window has room for.
const FRESH: Duration = Duration::from_secs(5);
/// An order waits so long for the ledger's answer about a lease that is new here.
const PATIENCE: Duration = Duration::from_secs(3);
/// The peer that is asked may be some blocks behind the controller's.
const UNKNOWN_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Some hundred bytes each; one look each when they are forgotten.
const KNOWN_MAX: usize = 10_000;

/// What is known of the leases whose orders come here.
pub struct Leases {
    ledger: Ledger,
    window_blocks_min: u32,
    known: Arc<Mutex<HashMap<LeaseId, Known>>>,
}

struct Known {
    seen: Seen,
    looked_at: Instant,
}

#[derive(Clone)]
enum Seen {
    Lease(Arc<Lease>),
    /// The ledger answers, and has no such lease.
    Nothing,
    /// The ledger does not answer.
    Dark,
}

/// Rejects what could not be claimed: `lease.draining`, `lease.closed`, `lease.short_window`, `ticket.unknown_payer`,
/// `ticket.other_provider`.
pub fn check(lease: &Lease, ticket: &Ticket, payer: &PublicKey, window_blocks_min: u32) -> Result<(), Refusal> {
    let refuse = |code, message: String| Err(Rejection::new(code, message));
    match lease.state {
        LeaseState::Open => {}
        LeaseState::Draining { until_height } => {
            return refuse(
                Code::LeaseDraining,
                format!("the lease is closing until block {until_height} and takes no new jobs"),
            );
        }
        LeaseState::Closed => return refuse(Code::LeaseClosed, "the lease is closed and cannot pay".into()),
    }
    if !lease.payer_keys.contains(payer) {
        return refuse(
            Code::TicketUnknownPayer,
            "the ticket's signer is not a payer of its lease".into(),
        );
    }
    if lease.provider.is_some_and(|only| only != ticket.provider) {
        return refuse(Code::TicketOtherProvider, "the lease is with another provider".into());
    }
    let needed = window_needed(ticket, window_blocks_min);
    if lease.window_blocks < needed && ticket.price_max_ucr > 0 {
        return refuse(
            Code::LeaseShortWindow,
            format!(
                "the lease's window is {} blocks, but this provider needs {needed} to run this job and claim it",
                lease.window_blocks
            ),
        );
    }
    Ok(())
}

/// A ledger at rest makes a block a second: the job may take its whole time before there is anything to claim.
fn window_needed(ticket: &Ticket, window_blocks_min: u32) -> u32 {
    window_blocks_min.saturating_add(ticket.limits.timeout_ms.div_ceil(1_000))
}

impl Leases {
    pub fn new(ledger: Ledger, window_blocks_min: u32) -> Self {
        Self {
            ledger,
            window_blocks_min,
            known: Arc::default(),
        }
    }

    /// See [`check`]; `lease.unknown` where the ledger has no such lease. Where the ledger cannot be seen the order
    /// stands: its exposure bounds what that can cost.
    pub async fn admit(&self, ticket: &Ticket, payer: &PublicKey) -> Result<(), Refusal> {
        let seen = match self.known(ticket.lease) {
            Some(seen) => seen,
            None => {
                let seen = look_patiently(&self.ledger, ticket.lease).await;
                keep(&self.known, ticket.lease, seen.clone());
                seen
            }
        };
        match seen {
            Seen::Lease(lease) => match check(&lease, ticket, payer, self.window_blocks_min) {
                Err(refused) if refused.code == Code::TicketUnknownPayer => {
                    self.admit_new_payer(ticket, payer, refused).await
                }
                checked => checked,
            },
            Seen::Nothing => Err(Rejection::new(Code::LeaseUnknown, "the ledger has no such lease")),
            Seen::Dark => Ok(()),
        }
    }

    /// Another controller may have taken the lease up since it was looked at, or since the peer that is asked was.
    async fn admit_new_payer(&self, ticket: &Ticket, payer: &PublicKey, mut refused: Refusal) -> Result<(), Refusal> {
        let until = Instant::now() + PATIENCE;
        while refused.code == Code::TicketUnknownPayer && Instant::now() < until {
            tokio::time::sleep(UNKNOWN_AGAIN_AFTER).await;
            let Seen::Lease(lease) = look(&self.ledger, ticket.lease).await else {
                return Err(refused);
            };
            keep(&self.known, ticket.lease, Seen::Lease(lease.clone()));
            match check(&lease, ticket, payer, self.window_blocks_min) {
                Ok(()) => return Ok(()),
                Err(now) => refused = now,
            }
        }
        Err(refused)
    }

    /// As it was last seen. What is old is looked at again beside, for the orders to come.
    fn known(&self, id: LeaseId) -> Option<Seen> {
        let mut all = self.known.lock();
        let known = all.get_mut(&id)?;
        if known.looked_at.elapsed() > FRESH {
            known.looked_at = Instant::now();
            let (ledger, all) = (self.ledger.clone(), self.known.clone());
            tokio::spawn(async move {
                // What was seen before is better than nothing.
                match look(&ledger, id).await {
                    Seen::Dark => {}
                    seen => keep(&all, id, seen),
                }
            });
        }
        Some(known.seen.clone())
    }
}

fn keep(known: &Mutex<HashMap<LeaseId, Known>>, id: LeaseId, seen: Seen) {
    let mut all = known.lock();
    if all.len() >= KNOWN_MAX {
        all.clear();
    }
    match seen {
        // Asked again at once: the peer may only be behind.
        Seen::Nothing => drop(all.remove(&id)),
        Seen::Lease(_) | Seen::Dark => {
            let looked_at = Instant::now();
            all.insert(id, Known { seen, looked_at });
        }
    }
}

async fn look(ledger: &Ledger, id: LeaseId) -> Seen {
    let value = async { ledger().await?.get(&Key::Lease(id)).await };
    let failure = match tokio::time::timeout(PATIENCE, value).await {
        Ok(Ok(Some(Value::Lease(lease)))) => return Seen::Lease(Arc::new(lease)),
        Ok(Ok(_)) => return Seen::Nothing,
        Ok(Err(failure)) => failure.to_string(),
        Err(_) => "no peer answers".to_owned(),
    };
    tracing::warn!(lease = %id, failure, "reading a lease failed; accepting its orders");
    Seen::Dark
}

async fn look_patiently(ledger: &Ledger, id: LeaseId) -> Seen {
    let until = Instant::now() + PATIENCE;
    loop {
        match look(ledger, id).await {
            Seen::Nothing if Instant::now() < until => tokio::time::sleep(UNKNOWN_AGAIN_AFTER).await,
            seen => return seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use piecework_ledger::Subject;
    use piecework_model::{AccountId, Credits};

    use super::*;
    use crate::orders::{order, payer};

    fn lease() -> Lease {
        let ticket = order(0).ticket;
        Lease {
            developer: AccountId([6; 20]),
            subject: Subject::AnyFunction,
            provider: None,
            controller: AccountId([7; 20]),
            price_caps: ticket.prices,
            budget: Credits(1_000_000),
            used: Credits::ZERO,
            reserved: Credits::ZERO,
            payer_keys: vec![payer().public()],
            former_payers: Vec::new(),
            mailboxes: vec![payer().public()],
            exposure_ucr: 1_000,
            window_blocks: 3_600,
            state: LeaseState::Open,
            open_jobs: 0,
            claimed_jobs: 0,
        }
    }

    fn code_of(change: impl FnOnce(&mut Lease, &mut Ticket)) -> Option<Code> {
        let (mut lease, mut ticket) = (lease(), order(0).ticket);
        change(&mut lease, &mut ticket);
        check(&lease, &ticket, &payer().public(), WINDOW_BLOCKS_MIN)
            .err()?
            .code
            .known()
    }

    #[test]
    fn row_15_a_deposit_that_could_be_gone_before_the_provider_claims_is_not_worked_for() {
        assert_eq!(code_of(|_, _| ()), None);
        let short = |lease: &mut Lease, _: &mut Ticket| lease.window_blocks = 10;
        assert_eq!(code_of(short), Some(Code::LeaseShortWindow));
        let closing = |lease: &mut Lease, _: &mut Ticket| lease.state = LeaseState::Draining { until_height: 9 };
        assert_eq!(code_of(closing), Some(Code::LeaseDraining));
        assert_eq!(
            code_of(|lease, _| lease.state = LeaseState::Closed),
            Some(Code::LeaseClosed)
        );
    }

    #[test]
    fn the_window_covers_the_job_and_the_claim() {
        let long = |window: u32| {
            code_of(move |lease, ticket| {
                ticket.limits.timeout_ms = 900_000;
                lease.window_blocks = window;
            })
        };
        assert_eq!(long(WINDOW_BLOCKS_MIN + 900), None);
        assert_eq!(long(WINDOW_BLOCKS_MIN + 899), Some(Code::LeaseShortWindow));
        let free = |lease: &mut Lease, ticket: &mut Ticket| {
            (lease.window_blocks, ticket.price_max_ucr) = (1, 0);
        };
        assert_eq!(code_of(free), None, "nothing is owed for it");
    }

    #[test]
    fn a_ticket_that_the_lease_does_not_pay_is_refused() {
        assert_eq!(
            code_of(|lease, _| lease.payer_keys.clear()),
            Some(Code::TicketUnknownPayer)
        );
        let anothers = |lease: &mut Lease, _: &mut Ticket| lease.provider = Some(AccountId([9; 20]));
        assert_eq!(code_of(anothers), Some(Code::TicketOtherProvider));
    }
}
