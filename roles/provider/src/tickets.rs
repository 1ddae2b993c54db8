//! Whether an order may run here: the ticket against the provider's own word and the order's parts.

use std::collections::HashSet;

use piecework_model::{Code, Counters, Digest, Domain, LeaseId, Limits, NetworkId, PublicKey, Rejection, Ticket};
use piecework_queue::{Order, Profile, Refusal};

/// Rejects a ticket unless a known payer ordered it, for this provider, in time, at its prices, for this code and
/// input.
pub fn check(
    order: &Order,
    profile: &Profile,
    payers: &HashSet<PublicKey>,
    network: &NetworkId,
    now_ms: u64,
) -> Result<(), Refusal> {
    let ticket = &order.ticket;
    let refuse = |code, message: &str| Err(Rejection::new(code, message));
    if !payers.contains(&order.payer) {
        return refuse(
            Code::TicketUnknownPayer,
            "this provider does not work for this controller",
        );
    }
    if ticket.provider != profile.account {
        return refuse(Code::TicketOtherProvider, "the ticket is for another provider");
    }
    if ticket.deadline_ms < now_ms {
        return refuse(Code::TicketExpired, "the ticket's deadline is past");
    }
    let stream_bytes = order.work.limits.streamable(&ticket.limits);
    let Some(stream_bytes) = stream_bytes.filter(|_| ticket.code == order.work.code) else {
        return refuse(Code::TicketOtherCode, "the ticket is for different code or limits");
    };
    let work = &order.work.limits;
    if !ticket.limits.within(&Limits::RUN_MAX) || work.footprint_bytes() > profile.memory_bytes {
        return refuse(
            Code::TicketOverLimits,
            "the ticket allows the job more than this provider gives any job",
        );
    }
    if ticket.input != input_digest(order).salted(order.salt.as_ref()) {
        return refuse(Code::TicketOtherInput, "the ticket is for a different input");
    }
    if !profile.prices.within(&ticket.prices) && !is_free(profile, ticket.lease) {
        return refuse(
            Code::TicketUnderpriced,
            "the ticket pays less than this provider charges",
        );
    }
    if !pays_for(ticket, stream_bytes) {
        return refuse(
            Code::TicketUnderpriced,
            "the ticket's maximum does not pay for what the job may stream",
        );
    }
    match &order.seal {
        None => Ok(()),
        Some(seal) => seal
            .verify(&order.payer, Domain::Tickets, network, &[ticket.leaf()])
            .map_err(|_| Rejection::new(Code::TicketBadSeal, "the seal does not match the ticket")),
    }
}

/// A run never streams more than its ticket could pay for.
fn pays_for(ticket: &Ticket, stream_bytes: u64) -> bool {
    let streamed = Counters {
        egress_bytes: stream_bytes,
        ..Counters::default()
    };
    let price = ticket.prices.price(&streamed);
    stream_bytes == 0 || price.is_ok_and(|price| price <= ticket.price_max_ucr)
}

/// The id of a lease proves who opened it, so there is no need to trust a controller.
fn is_free(profile: &Profile, lease: LeaseId) -> bool {
    /// A lease takes the number of its opening among its owner's transactions; as many as this take some milliseconds
    /// to try.
    const NONCES_MAX: u64 = 1 << 14;
    let opened = |owner| (0..NONCES_MAX).any(|nonce| LeaseId::of(owner, nonce) == lease);
    profile.free_for.is_some_and(opened)
}

fn input_digest(order: &Order) -> Digest {
    piecework_queue::input_digest(&order.event, &order.parameters)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use piecework_model::{AccountId, Prices, Seal, SecretKey};
    use piecework_queue::Work;

    use super::*;
    use crate::orders::{NETWORK, NOW_MS, order, payer, profile};

    fn code_of(change: impl FnOnce(&mut Order)) -> Option<Code> {
        let mut order = order(0);
        change(&mut order);
        let payers = HashSet::from([payer().public()]);
        check(&order, &profile(), &payers, &NETWORK, NOW_MS).err()?.code.known()
    }

    #[test]
    fn an_order_that_fits_runs() {
        assert_eq!(code_of(|_| ()), None);
    }

    #[test]
    fn row_11_a_job_that_nobody_ordered_is_refused() {
        let stranger = SecretKey::from_seed([8; 32]);
        assert_eq!(
            code_of(|order| order.payer = stranger.public()),
            Some(Code::TicketUnknownPayer)
        );
    }

    #[test]
    fn what_does_not_fit_the_ticket_is_refused() {
        assert_eq!(
            code_of(|order| order.ticket.provider = AccountId([7; 20])),
            Some(Code::TicketOtherProvider)
        );
        assert_eq!(
            code_of(|order| order.ticket.deadline_ms = NOW_MS - 1),
            Some(Code::TicketExpired)
        );
        assert_eq!(
            code_of(|order| order.ticket.code = Digest::of(b"other")),
            Some(Code::TicketOtherCode)
        );
        assert_eq!(
            code_of(|order| order.ticket.limits.timeout_ms += 1),
            Some(Code::TicketOtherCode)
        );
        assert_eq!(
            code_of(|order| order.work = Arc::new(Work {
                limits: order.ticket.limits.with_stream(1),
                ..(*order.work).clone()
            })),
            Some(Code::TicketOtherCode),
            "less than the function has"
        );
        assert_eq!(
            code_of(|order| order.event = Bytes::from_static(b"[]")),
            Some(Code::TicketOtherInput)
        );
        assert_eq!(
            code_of(|order| order.parameters = Bytes::from_static(b"1")),
            Some(Code::TicketOtherInput)
        );
        assert_eq!(
            code_of(|order| order.ticket.prices.cpu_ucr_per_s -= 1),
            Some(Code::TicketUnderpriced)
        );
    }

    #[test]
    fn a_ticket_allows_no_more_than_this_provider_gives_any_job() {
        let both = |change: fn(&mut Limits)| {
            move |order: &mut Order| {
                let mut limits = order.ticket.limits;
                change(&mut limits);
                order.ticket.limits = limits;
                order.work = Arc::new(Work {
                    limits,
                    ..(*order.work).clone()
                });
            }
        };
        let changes: [fn(&mut Limits); 8] = [
            |limits| limits.timeout_ms = Limits::RUN_MAX.timeout_ms + 1,
            |limits| limits.memory_bytes = Limits::RUN_MAX.memory_bytes + 1,
            |limits| limits.memory_bytes = 1 << 30,
            |limits| limits.processes = Limits::RUN_MAX.processes + 1,
            |limits| limits.disk_bytes = Limits::RUN_MAX.disk_bytes + 1,
            |limits| limits.output_bytes = Limits::RUN_MAX.output_bytes + 1,
            |limits| limits.log_bytes = Limits::RUN_MAX.log_bytes + 1,
            |limits| limits.egress_bytes = Limits::RUN_MAX.egress_bytes + 1,
        ];
        for change in changes {
            assert_eq!(code_of(both(change)), Some(Code::TicketOverLimits));
        }
    }

    #[test]
    fn a_ticket_may_let_a_job_stream_what_it_can_pay_for() {
        let streams =
            |mib: u64| move |order: &mut Order| order.ticket.limits = order.work.limits.with_stream(mib << 20);
        assert_eq!(code_of(streams(90)), None, "10 ucr each, 1,000 in all");
        assert_eq!(code_of(streams(100)), Some(Code::TicketUnderpriced));
    }

    #[test]
    fn an_owners_own_jobs_may_cost_nothing_and_nobody_elses() {
        let (owner, stranger) = (AccountId([21; 20]), AccountId([22; 20]));
        let profile = Profile {
            free_for: Some(owner),
            ..profile()
        };
        let payers = HashSet::from([payer().public()]);
        let code_for = |developer: AccountId| {
            let mut order = order(0);
            order.ticket.prices = Prices::default();
            order.ticket.lease = LeaseId::of(developer, 7);
            check(&order, &profile, &payers, &NETWORK, NOW_MS).map_err(|refusal| refusal.code)
        };
        assert_eq!(code_for(owner), Ok(()));
        assert_eq!(code_for(stranger).expect_err("a stranger"), Code::TicketUnderpriced);
    }

    #[test]
    fn a_seal_of_its_own_must_be_the_payers_over_this_ticket() {
        let seal = |key: &SecretKey, order: &Order| {
            let lane = (order.ticket.lease, order.ticket.provider);
            Some(Seal::sign(key, Domain::Tickets, &NETWORK, lane, &[order.ticket.leaf()]))
        };
        assert_eq!(code_of(|order| order.seal = seal(&payer(), order)), None);
        let stranger = SecretKey::from_seed([8; 32]);
        assert_eq!(
            code_of(|order| order.seal = seal(&stranger, order)),
            Some(Code::TicketBadSeal)
        );
        let altered = |order: &mut Order| {
            order.seal = seal(&payer(), order);
            order.ticket.price_max_ucr += 1;
        };
        assert_eq!(code_of(altered), Some(Code::TicketBadSeal));
    }
}
