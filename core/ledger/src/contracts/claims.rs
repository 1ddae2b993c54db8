//! Claims: a provider is paid without the payer, after a window in which the claim can be refuted.
//!
//! ```text
//! ticket + receipt -- Claim --> claimed{until} --+-- PayClaims, after until --> paid, record gone
//!                                                +-- Settle, by the payer ----> paid as settled, record gone
//!                                                '-- Challenge ---------------> refuted, record gone, never paid
//! ```
//! The sequence is taken with the claim, so in each case it is paid at most once. The lease keeps the price aside and
//! cannot expire while a claim waits, so a claim that is not refuted is always paid.

use piecework_model::{AccountId, Ack, Digest, Domain, LeaseId, PublicKey, Receipt, Rejection, Sealed};

use super::{
    Call, check_lane,
    jobs::{LaneBook, check_sequences},
    payment::{Step, announce_papers, apply},
    settlement::{check_price, check_time},
};
use crate::{
    execute::Event,
    mutant::{Mutant, broken},
    rejections::{
        challenge_acknowledged, challenge_not_paid, challenge_not_shown, claim_bad_acks, claim_bad_tickets,
        claim_job_mismatch, claim_none, claim_not_due, claim_other_lane, claim_price_above_ticket, claim_too_late,
        lease_closed, settle_empty,
    },
    state::{Key, Lease, LeaseState, OpenJob},
    transaction::{BatchTicket, Challenge, Claim, ClaimedJob, Evidence, PayClaims, TicketBatch},
};

/// The signature of the transaction is the provider's, so it stands for the receipts.
pub(super) fn claim(call: &mut Call, claim: &Claim) -> Result<(), Rejection> {
    let provider = call.authorize_sender()?;
    let lease = call.draft.lease(claim.lease)?;
    check_time(&lease, call.context.height)?;
    check_lane(&lease, provider)?;
    let jobs: Vec<&ClaimedJob> = claim.batches.iter().flat_map(claimed).collect();
    if jobs.is_empty() {
        return Err(settle_empty());
    }
    check_sequences(&call.params, jobs.iter().map(|job| job.ticket.sequence))?;
    check_tickets(call, claim, provider, &lease)?;
    check_acks(call, claim, provider, &lease)?;
    let mut book = LaneBook::open(call, claim.lease, provider, lease);
    for job in jobs {
        record(call, &mut book, job).map_err(|refused| at(refused, job.ticket.sequence))?;
    }
    book.close(call)
}

fn claimed(batch: &TicketBatch) -> impl Iterator<Item = &ClaimedJob> {
    batch.tickets.iter().filter_map(|ticket| match ticket {
        BatchTicket::Claimed(job) => Some(&**job),
        BatchTicket::Other(_) => None,
    })
}

fn at(refused: Rejection, sequence: u64) -> Rejection {
    refused.hint(format!("at sequence {sequence}"))
}

/// Every ticket is of this lane and under the seal of a key that pays for the lease, or did within a window.
fn check_tickets(call: &Call, claim: &Claim, provider: AccountId, lease: &Lease) -> Result<(), Rejection> {
    let lane = (claim.lease, provider);
    for batch in &claim.batches {
        if let Some(job) = claimed(batch).find(|job| (job.ticket.lease, job.ticket.provider) != lane) {
            return Err(at(claim_other_lane(), job.ticket.sequence));
        }
        let leaf = |ticket: &BatchTicket| match ticket {
            BatchTicket::Claimed(job) => job.ticket.leaf(),
            BatchTicket::Other(leaf) => *leaf,
        };
        let leaves: Vec<Digest> = batch.tickets.iter().map(leaf).collect();
        let sealed = || call.seals((&batch.payer, batch.signature), Domain::Tickets, lane, &leaves);
        let holds = pays(lease, &batch.payer, call.context.height) && sealed();
        if !holds && !broken(Mutant::SkipTicketSeal) {
            return Err(claim_bad_tickets().hint(format!("the seal of {}", batch.payer)));
        }
    }
    Ok(())
}

fn pays(lease: &Lease, key: &PublicKey, height: u64) -> bool {
    let former = |(former, until_height): &(PublicKey, u64)| {
        former == key && (height <= *until_height || broken(Mutant::FormerPayersForever))
    };
    lease.payer_keys.contains(key) || lease.former_payers.iter().any(former)
}

/// There is a seal of acks where there are acks, and a mailbox of the lease made it.
fn check_acks(call: &Call, claim: &Claim, provider: AccountId, lease: &Lease) -> Result<(), Rejection> {
    let ack = |job: &ClaimedJob| {
        Some(Ack {
            job: job.ticket.job,
            output: job.metered.output,
            received_at_ms: job.received_at_ms?,
        })
    };
    let jobs = claim.batches.iter().flat_map(claimed);
    let leaves: Vec<Digest> = jobs.filter_map(ack).map(|ack| ack.leaf()).collect();
    let holds = match &claim.acks {
        None => leaves.is_empty(),
        Some((key, signature)) => {
            let lane = (claim.lease, provider);
            !leaves.is_empty()
                && lease.mailboxes.contains(key)
                && call.seals((key, *signature), Domain::Acks, lane, &leaves)
        }
    };
    match holds || broken(Mutant::SkipClaimAcks) {
        true => Ok(()),
        false => Err(claim_bad_acks()),
    }
}

fn record(call: &mut Call, book: &mut LaneBook, job: &ClaimedJob) -> Result<(), Rejection> {
    let sequence = job.ticket.sequence;
    let before = book.open_job(call, sequence);
    let done = match &before {
        Some(open) => open.claimed_until.is_some(),
        None => book.lane.has_taken(sequence) && !broken(Mutant::ClaimTwice),
    };
    if done {
        return Ok(());
    }
    let height = call.context.height;
    let after = with_claim(
        before.as_ref(),
        job,
        height,
        height.saturating_add(u64::from(book.lease.window_blocks)),
    )?;
    check_ticket_price(job)?;
    check_price(&after, &book.lease)?;
    if !book.lane.has_taken(sequence) {
        book.lane.take(sequence);
    }
    let step = Step {
        sequence,
        before,
        after,
    };
    announce_papers(call, book, &step);
    call.events.push(Event::JobClaimed {
        lease: book.id,
        provider: book.provider,
        sequence,
        job: job.ticket.job,
        price_ucr: job.metered.price_ucr,
        until_height: step.after.claimed_until.unwrap_or(height),
    });
    book.keep(call, sequence, step.before.as_ref(), step.after)
}

/// The record with the claim. What a settlement recorded of the job stands.
fn with_claim(before: Option<&OpenJob>, job: &ClaimedJob, height: u64, until: u64) -> Result<OpenJob, Rejection> {
    let (ticket, metered) = (&job.ticket, &job.metered);
    let mut open = before.cloned().unwrap_or(OpenJob {
        job: ticket.job,
        code: ticket.code,
        input: ticket.input,
        price_max_ucr: ticket.price_max_ucr,
        metered: None,
        received_at_ms: None,
        opened_at_height: height,
        claimed_until: None,
    });
    let recorded = (open.job, open.code, open.input, open.price_max_ucr);
    if recorded != (ticket.job, ticket.code, ticket.input, ticket.price_max_ucr) {
        return Err(claim_job_mismatch());
    }
    if open.metered.as_ref().is_some_and(|known| known != metered) {
        return Err(claim_job_mismatch());
    }
    open.metered = Some(metered.clone());
    open.received_at_ms = open.received_at_ms.or(job.received_at_ms);
    open.claimed_until = Some(until);
    Ok(open)
}

/// A settlement's tickets are the payer's word; here their prices are on the table.
fn check_ticket_price(job: &ClaimedJob) -> Result<(), Rejection> {
    let (ticket, metered) = (&job.ticket, &job.metered);
    let agreed = ticket.prices.price(&metered.counters);
    let within = metered.price_ucr <= ticket.price_max_ucr && agreed.is_ok_and(|agreed| metered.price_ucr <= agreed);
    match within || broken(Mutant::IgnoreTicketPrice) {
        true => Ok(()),
        false => Err(claim_price_above_ticket()),
    }
}

/// Anybody may sign, with or without an account: what is paid to whom is on record, and paid once.
pub(super) fn pay(call: &mut Call, pay: &PayClaims) -> Result<(), Rejection> {
    let lease = call.draft.lease(pay.lease)?;
    if lease.state == LeaseState::Closed {
        return Err(lease_closed());
    }
    check_sequences(&call.params, pay.sequences.iter().copied())?;
    let provider = call.draft.account(pay.provider)?;
    let mut book = LaneBook::open(call, pay.lease, pay.provider, lease);
    let steps = due_steps(call, &book, &pay.sequences)?;
    call.verify_signature()?;
    apply(call, &mut book, steps, &provider, |job| {
        job.metered.as_ref().map(|metered| metered.price_ucr)
    })?;
    book.close(call)
}

/// Rejects with `claim.none`, or `claim.not_due` where a window is still open.
fn due_steps(call: &Call, book: &LaneBook, sequences: &[u64]) -> Result<Vec<Step>, Rejection> {
    let mut steps = Vec::new();
    for sequence in sequences {
        let Some(open) = book.open_job(call, *sequence) else {
            continue;
        };
        let Some(until) = open.claimed_until else { continue };
        if call.context.height <= until && !broken(Mutant::PayClaimsEarly) {
            return Err(at(claim_not_due(), *sequence).hint(format!("the last height of its window is {until}")));
        }
        let (before, after) = (Some(open.clone()), open);
        steps.push(Step {
            sequence: *sequence,
            before,
            after,
        });
    }
    match steps.is_empty() {
        true => Err(claim_none()),
        false => Ok(steps),
    }
}

/// The claimed job's record goes; its sequence stays taken.
pub(super) fn challenge(call: &mut Call, challenge: &Challenge) -> Result<(), Rejection> {
    let lease = call.authorize_payer(challenge.lease)?;
    let mut book = LaneBook::open(call, challenge.lease, challenge.provider, lease);
    let open = book.open_job(call, challenge.sequence);
    let Some(open) = open.filter(|open| open.claimed_until.is_some()) else {
        return Err(claim_none());
    };
    if open.claimed_until < Some(call.context.height) {
        return Err(claim_too_late());
    }
    if !broken(Mutant::BelieveChallenge) {
        match &challenge.evidence {
            Evidence::OtherReceipt(receipt) => check_other_receipt(call, challenge, receipt, &open)?,
            Evidence::Replaced(receipt) => check_replacement(call, challenge, receipt, &open)?,
        }
    }
    book.forget(Some(&open))?;
    call.draft
        .remove(Key::OpenJob(book.id, book.provider, challenge.sequence));
    call.events.push(Event::JobRefuted {
        lease: book.id,
        provider: book.provider,
        sequence: challenge.sequence,
        job: open.job,
    });
    book.close(call)
}

/// The provider sealed a receipt of this very sequence that says something else.
fn check_other_receipt(
    call: &Call,
    challenge: &Challenge,
    other: &Sealed<Receipt>,
    open: &OpenJob,
) -> Result<(), Rejection> {
    let receipt = &other.member;
    let same_place = (receipt.lease, receipt.provider, receipt.sequence)
        == (challenge.lease, challenge.provider, challenge.sequence);
    let differs = open.metered.as_ref().is_some_and(|metered| {
        (metered.output, metered.status, metered.counters, metered.price_ucr)
            != (receipt.output, receipt.status, receipt.counters, receipt.price_ucr)
    }) || receipt.job != open.job;
    if !same_place || !differs {
        return Err(challenge_not_shown().hint("another receipt of the same sequence is asked for"));
    }
    sealed_by_provider(call, other, challenge.lease)
}

fn sealed_by_provider(call: &Call, sealed: &Sealed<Receipt>, lease: LeaseId) -> Result<(), Rejection> {
    let provider = sealed.member.provider;
    let key = call.draft.account(provider)?.key;
    sealed
        .verify(&key, Domain::Receipts, &call.context.network, (lease, provider))
        .map_err(|_| challenge_not_shown().hint("the provider has not sealed the receipt"))
}

/// The payer's word that it ordered the job again counts only with the receipt of that order, and a payment for it.
fn check_replacement(
    call: &Call,
    challenge: &Challenge,
    other: &Sealed<Receipt>,
    open: &OpenJob,
) -> Result<(), Rejection> {
    if open.received_at_ms.is_some() {
        return Err(challenge_acknowledged());
    }
    let receipt = &other.member;
    let same_work = (receipt.job, receipt.code, receipt.input) == (open.job, open.code, open.input)
        || broken(Mutant::ReplacedByOtherWork);
    let claimed = (challenge.provider, challenge.sequence);
    let elsewhere = receipt.lease == challenge.lease && (receipt.provider, receipt.sequence) != claimed;
    if !(same_work && elsewhere) {
        return Err(challenge_not_shown().hint("a receipt of the claimed job from another ticket is asked for"));
    }
    sealed_by_provider(call, other, challenge.lease)?;
    let lane = (receipt.lease, receipt.provider);
    let taken = call.draft.lane(lane.0, lane.1).has_taken(receipt.sequence);
    let done = call.draft.open_job(lane.0, lane.1, receipt.sequence).is_none();
    match (taken && done) || broken(Mutant::ReplacedUnpaid) {
        true => Ok(()),
        false => Err(challenge_not_paid()),
    }
}
