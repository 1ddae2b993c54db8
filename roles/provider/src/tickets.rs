//! Whether an order may run here: the ticket against the provider's own word and the order's parts.

use std::collections::HashSet;

use piecework_model::{Digest, Domain, NetworkId, PublicKey, Rejection};
use piecework_queue::{Order, Profile, Refusal};

/// Rejects what was not ordered by a known payer, for this provider, in time, at its prices, for this code and input.
pub(crate) fn check(
    order: &Order,
    profile: &Profile,
    payers: &HashSet<PublicKey>,
    network: &NetworkId,
    now_ms: u64,
) -> Result<(), Refusal> {
    let ticket = &order.ticket;
    let refuse = |code, message: &str| Err(Rejection::new(code, message));
    if !payers.contains(&order.payer) {
        return refuse("ticket.unknown_payer", "this controller is not one of this provider's");
    }
    if ticket.provider != profile.account {
        return refuse("ticket.other_provider", "the ticket is for another provider");
    }
    if ticket.deadline_ms < now_ms {
        return refuse("ticket.expired", "the ticket's deadline is over");
    }
    if ticket.code != order.work.code || ticket.limits != order.work.limits {
        return refuse("ticket.other_code", "the ticket is for other code or other limits");
    }
    if ticket.input != input_digest(order) {
        return refuse("ticket.other_input", "the ticket is for another input");
    }
    if !profile.prices.within(&ticket.prices) {
        return refuse("ticket.underpriced", "the ticket pays less than this provider asks");
    }
    match &order.seal {
        None => Ok(()),
        Some(seal) => seal
            .verify(&order.payer, Domain::Tickets, network, &[ticket.leaf()])
            .map_err(|_| Rejection::new("ticket.bad_seal", "the seal does not fit the ticket")),
    }
}

fn input_digest(order: &Order) -> Digest {
    piecework_queue::input_digest(&order.event, &order.parameters)
}
