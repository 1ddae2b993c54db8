//! How large a transaction may be, whatever the parameters say: checked before anything is read or hashed.

use piecework_model::Rejection;

use crate::{
    genesis::TEXT_BYTES_MAX,
    rejections::{bad_name, peers_bad_address, settle_empty, too_large},
    transaction::{Action, Change, Claim, OpenJobs, OpenLease, PutOffer, Register, Settle},
};

/// A settlement of 10,000 jobs is about 3 MB: more would crowd out a block.
pub const JOBS_PER_SETTLEMENT_MAX: u32 = 10_000;
/// Function versions of one settlement; their index has 16 bits, and a second's jobs of a lease rarely span a dozen.
pub const CODES_PER_SETTLEMENT_MAX: usize = 1_024;
/// Controllers, and mailboxes, of one lease: a pair for failover, a rotation, some slack. Each settlement reads them.
pub const KEYS_PER_LEASE_MAX: usize = 16;
/// Seals of one claim: each costs a signature's verification, some 50 us.
pub const TICKET_BATCHES_PER_CLAIM_MAX: usize = 200;
/// Backends of one machine: there are half a dozen kinds.
pub const OFFER_BACKENDS_MAX: usize = 16;
/// Labels of one machine: read by every scheduler.
pub const OFFER_LABELS_MAX: usize = 32;
/// One backend, region or label: for people and selectors, not for content.
pub const OFFER_TEXT_BYTES_MAX: usize = 64;
/// Unfinished jobs of one lease: bounds what it can leave in the state, also at a price of zero.
pub const OPEN_JOBS_PER_LEASE_MAX: u32 = 100_000;
/// How long a proposal can be voted for: a day or more of blocks of a second, so that owners have slept over it.
pub const PROPOSAL_BLOCKS: u64 = 100_000;

/// Rejects with `transaction.too_large`, `settle.empty`, `account.bad_name` or `peers.bad_address`.
pub(crate) fn check(action: &Action) -> Result<(), Rejection> {
    match action {
        Action::Register(register) => check_name(register),
        Action::PutOffer(offer) => check_offer(offer),
        Action::OpenLease(open) => check_lease(open),
        Action::OpenJobs(open) => check_tickets(open),
        Action::Settle(settle) => check_settle(settle),
        Action::Claim(claim) => check_claim(claim),
        Action::PayClaims(pay) => check_numbers(&pay.sequences),
        Action::ReleaseJobs(release) => check_numbers(&release.sequences),
        Action::Propose(propose) => check_change(&propose.change),
        Action::RotateKey(_)
        | Action::Transfer(_)
        | Action::DropOffer(_)
        | Action::TopUp(_)
        | Action::DelegatePayer(_)
        | Action::CloseLease(_)
        | Action::ExpireLease(_)
        | Action::Challenge(_)
        | Action::ReportMismatch(_)
        | Action::SetLimit(_)
        | Action::CoverDebt(_)
        | Action::Vote(_)
        | Action::PayPeers(_) => Ok(()),
    }
}

fn at_most(field: &'static str, length: usize, max: usize) -> Result<(), Rejection> {
    if length > max {
        return Err(too_large().field(field).hint(format!("at most {max}")));
    }
    Ok(())
}

/// A decoded name has not been checked: only its text form is.
fn check_name(register: &Register) -> Result<(), Rejection> {
    match register.name.as_str().parse::<piecework_model::OwnerName>() {
        Ok(_) => Ok(()),
        Err(_) => Err(bad_name().field("name")),
    }
}

fn check_offer(offer: &PutOffer) -> Result<(), Rejection> {
    at_most("backends", offer.backends.len(), OFFER_BACKENDS_MAX)?;
    at_most("labels", offer.labels.len(), OFFER_LABELS_MAX)?;
    at_most("region", offer.region.len(), OFFER_TEXT_BYTES_MAX)?;
    let longest = |texts: &[String]| texts.iter().map(String::len).max().unwrap_or(0);
    at_most("backends", longest(&offer.backends), OFFER_TEXT_BYTES_MAX)?;
    at_most("labels", longest(&offer.labels), OFFER_TEXT_BYTES_MAX)
}

fn check_lease(open: &OpenLease) -> Result<(), Rejection> {
    at_most("payer_keys", open.payer_keys.len(), KEYS_PER_LEASE_MAX)?;
    at_most("mailboxes", open.mailboxes.len(), KEYS_PER_LEASE_MAX)
}

fn check_tickets(open: &OpenJobs) -> Result<(), Rejection> {
    if open.tickets.is_empty() {
        return Err(settle_empty());
    }
    at_most("tickets", open.tickets.len(), JOBS_PER_SETTLEMENT_MAX as usize)
}

fn check_settle(settle: &Settle) -> Result<(), Rejection> {
    if settle.jobs.is_empty() {
        return Err(settle_empty());
    }
    at_most("codes", settle.codes.len(), CODES_PER_SETTLEMENT_MAX)?;
    at_most("jobs", settle.jobs.len(), JOBS_PER_SETTLEMENT_MAX as usize)
}

/// Counts all tickets of the batches: leaves that are not claimed cost hashing as well.
fn check_claim(claim: &Claim) -> Result<(), Rejection> {
    let tickets: usize = claim.batches.iter().map(|batch| batch.tickets.len()).sum();
    at_most("batches", claim.batches.len(), TICKET_BATCHES_PER_CLAIM_MAX)?;
    at_most("tickets", tickets, JOBS_PER_SETTLEMENT_MAX as usize)
}

fn check_numbers(sequences: &[u64]) -> Result<(), Rejection> {
    if sequences.is_empty() {
        return Err(settle_empty());
    }
    at_most("sequences", sequences.len(), JOBS_PER_SETTLEMENT_MAX as usize)
}

fn check_change(change: &Change) -> Result<(), Rejection> {
    match change {
        Change::AddPeer(add) => {
            at_most("address", add.address.len(), TEXT_BYTES_MAX)?;
            check_address(&add.address)
        }
        Change::RemovePeer(_) | Change::SetParams(_) | Change::SetRules(_) => Ok(()),
    }
}

/// A name or an IP address, which nobody here looks up, and a port.
fn check_address(address: &str) -> Result<(), Rejection> {
    let bad = || peers_bad_address().field("address");
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let port_is_set = port.parse::<u16>().is_ok_and(|port| port > 0);
    if host.is_empty() || !host.bytes().all(plain) || !port_is_set {
        return Err(bad());
    }
    Ok(())
}
