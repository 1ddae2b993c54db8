//! Settlement: receipts and acks come in, in any order; whoever has both is paid, once.
//!
//! ```text
//! (nothing) -- OpenJobs --> opened -- receipt --> metered --.
//!     |                        '----- ack ------> received --+-- the other paper --> paid, record gone
//!     '------- one paper ---------------------------'        '
//!     '------- both papers ----------------------------------> paid
//! ```
//! A sequence that the lane has taken, and that is not open, is done with: its job is skipped, whatever it says. A job that
//! the provider has claimed is open until it is paid: a settlement with both papers takes the claim's place.

use piecework_model::{Ack, Digest, Domain, PublicKey, Receipt, Rejection, Signature};

use super::{
    Call, check_lane,
    jobs::{LaneBook, check_sequences},
    payment::{Step, apply},
};
use crate::{
    mutant::{Mutant, broken},
    rejections::{
        lease_closed, settle_ack_without_receipt, settle_bad_acks, settle_bad_code, settle_bad_receipts,
        settle_job_mismatch, settle_no_paper, settle_price_above_caps, settle_price_above_ticket,
    },
    state::{Lease, LeaseState, OpenJob},
    transaction::{Metered, Settle, SettledJob},
};

pub(super) fn settle(call: &mut Call, settle: &Settle) -> Result<(), Rejection> {
    let lease = call.authorize_payer(settle.lease)?;
    check_time(&lease, call.context.height)?;
    check_lane(&lease, settle.provider)?;
    check_sequences(&call.params, settle.jobs.iter().map(|job| job.sequence))?;
    check_papers(settle)?;
    let provider = call.draft.account(settle.provider)?;
    let mut book = LaneBook::open(call, settle.lease, settle.provider, lease);
    let steps = plan(call, settle, &book)?;
    if steps.is_empty() {
        return Ok(());
    }
    verify_receipts(call, settle, &provider.key)?;
    verify_acks(call, settle, &book)?;
    apply(call, &mut book, steps, &provider, due)?;
    book.close(call)
}

/// The last height of the drain still pays.
pub(super) fn check_time(lease: &Lease, height: u64) -> Result<(), Rejection> {
    match lease.state {
        LeaseState::Open => Ok(()),
        LeaseState::Draining { until_height } if height <= until_height => Ok(()),
        LeaseState::Draining { .. } | LeaseState::Closed if broken(Mutant::SettleAfterDrain) => Ok(()),
        LeaseState::Draining { .. } | LeaseState::Closed => Err(lease_closed()),
    }
}

/// Every job names its code and has a paper, and there is a seal of receipts exactly where there are receipts.
fn check_papers(settle: &Settle) -> Result<(), Rejection> {
    for job in &settle.jobs {
        if usize::from(job.code) >= settle.codes.len() {
            return Err(settle_bad_code().hint(format!("at sequence {}", job.sequence)));
        }
        if job.metered.is_none() && job.received_at_ms.is_none() {
            return Err(settle_no_paper().hint(format!("at sequence {}", job.sequence)));
        }
    }
    if settle.receipts.is_some() != settle.jobs.iter().any(|job| job.metered.is_some()) {
        return Err(settle_bad_receipts().hint("a seal where there are receipts, and only there"));
    }
    if settle.acks.is_some() && settle.jobs.iter().all(|job| job.received_at_ms.is_none()) {
        return Err(settle_bad_acks().hint("there is a seal of acks without an ack"));
    }
    Ok(())
}

/// The jobs that change something.
fn plan(call: &Call, settle: &Settle, book: &LaneBook) -> Result<Vec<Step>, Rejection> {
    let mut steps = Vec::with_capacity(settle.jobs.len());
    for job in &settle.jobs {
        let before = match book.lane.has_taken(job.sequence) {
            true => match book.open_job(call, job.sequence) {
                Some(open) => Some(open),
                None if broken(Mutant::PayTwice) => None,
                None => continue,
            },
            false => None,
        };
        let code = settle.codes[usize::from(job.code)];
        let after = merge(before.as_ref(), job, code, call.context.height)
            .map_err(|refused| refused.hint(format!("at sequence {}", job.sequence)))?;
        if before.as_ref() != Some(&after) {
            check_price(&after, &book.lease)
                .map_err(|refused| refused.hint(format!("at sequence {}", job.sequence)))?;
            let sequence = job.sequence;
            steps.push(Step {
                sequence,
                before,
                after,
            });
        }
    }
    Ok(steps)
}

/// The record with the new papers added. The first receipt and the first ack of a job stand; only a claim gives way to
/// both papers together. To one of them it does not: an old settlement sent again would cut the claim's window short.
fn merge(before: Option<&OpenJob>, job: &SettledJob, code: Digest, height: u64) -> Result<OpenJob, Rejection> {
    let mut open = before.cloned().unwrap_or(OpenJob {
        job: job.job,
        code,
        input: job.input,
        price_max_ucr: job.price_max_ucr,
        metered: None,
        received_at_ms: None,
        opened_at_height: height,
        claimed_until: None,
    });
    let recorded = (open.job, open.code, open.input, open.price_max_ucr);
    if recorded != (job.job, code, job.input, job.price_max_ucr) {
        return Err(settle_job_mismatch());
    }
    let takes_over = open.claimed_until.is_some() && job.metered.is_some() && job.received_at_ms.is_some();
    match (&open.metered, &job.metered) {
        (Some(known), Some(metered)) if known != metered && !takes_over => return Err(settle_job_mismatch()),
        (_, Some(metered)) => open.metered = Some(metered.clone()),
        (Some(_) | None, None) => {}
    }
    open.received_at_ms = open.received_at_ms.or(job.received_at_ms);
    if takes_over {
        open.claimed_until = None;
    }
    Ok(open)
}

/// The price, once both papers are there and no claim's window is waited for.
fn due(job: &OpenJob) -> Option<u64> {
    let received = job.received_at_ms.is_some() || broken(Mutant::PayWithoutAck);
    let waits = job.claimed_until.is_some() && !broken(Mutant::CutWindowShort);
    job.metered
        .as_ref()
        .filter(|_| received && !waits)
        .map(|metered| metered.price_ucr)
}

pub(super) fn check_price(job: &OpenJob, lease: &Lease) -> Result<(), Rejection> {
    let Some(metered) = &job.metered else { return Ok(()) };
    if metered.price_ucr > job.price_max_ucr && !broken(Mutant::IgnorePriceMax) {
        return Err(settle_price_above_ticket());
    }
    let within = lease
        .price_caps
        .price(&metered.counters)
        .is_ok_and(|cap| metered.price_ucr <= cap);
    if within || broken(Mutant::IgnorePriceCaps) {
        Ok(())
    } else {
        Err(settle_price_above_caps())
    }
}

/// The provider sealed all receipts of the settlement, also those of jobs that are skipped.
fn verify_receipts(call: &Call, settle: &Settle, key: &PublicKey) -> Result<(), Rejection> {
    let Some(signature) = settle.receipts else {
        return Ok(());
    };
    let leaves: Vec<Digest> = settle
        .jobs
        .iter()
        .filter_map(|job| Some(receipt(settle, job, job.metered.as_ref()?).leaf()))
        .collect();
    if broken(Mutant::SkipReceiptSeal) || seal_holds(call, settle, key, Domain::Receipts, &leaves, signature) {
        Ok(())
    } else {
        Err(settle_bad_receipts())
    }
}

fn receipt(settle: &Settle, job: &SettledJob, metered: &Metered) -> Receipt {
    Receipt {
        lease: settle.lease,
        provider: settle.provider,
        sequence: job.sequence,
        job: job.job,
        code: settle.codes[usize::from(job.code)],
        input: job.input,
        output: metered.output,
        status: metered.status,
        counters: metered.counters,
        price_ucr: metered.price_ucr,
        duration_us: metered.duration_us,
    }
}

/// Acks are the signer's own word where it is a mailbox; else a mailbox sealed them.
fn verify_acks(call: &Call, settle: &Settle, book: &LaneBook) -> Result<(), Rejection> {
    if broken(Mutant::SkipAckSeal) || settle.jobs.iter().all(|job| job.received_at_ms.is_none()) {
        return Ok(());
    }
    let mailboxes = &book.lease.mailboxes;
    match settle.acks {
        None if mailboxes.contains(&call.signed.key) => Ok(()),
        None => Err(settle_bad_acks().hint("the payer's key is no mailbox of the lease")),
        Some((key, _)) if !mailboxes.contains(&key) => Err(settle_bad_acks().hint(format!("{key} is no mailbox"))),
        Some((key, signature)) => {
            let leaves = ack_leaves(call, settle, book)?;
            match seal_holds(call, settle, &key, Domain::Acks, &leaves, signature) {
                true => Ok(()),
                false => Err(settle_bad_acks()),
            }
        }
    }
}

/// An ack covers the output, which only a receipt tells: the job's own, or the one on record.
fn ack_leaves(call: &Call, settle: &Settle, book: &LaneBook) -> Result<Vec<Digest>, Rejection> {
    let mut leaves = Vec::with_capacity(settle.jobs.len());
    for job in &settle.jobs {
        let Some(received_at_ms) = job.received_at_ms else {
            continue;
        };
        let recorded = || book.open_job(call, job.sequence).and_then(|open| open.metered);
        let metered = job.metered.clone().or_else(recorded);
        let output = metered
            .map(|metered| metered.output)
            .ok_or_else(|| settle_ack_without_receipt().hint(format!("at sequence {}", job.sequence)))?;
        let ack = Ack {
            job: job.job,
            output,
            received_at_ms,
        };
        leaves.push(ack.leaf());
    }
    Ok(leaves)
}

fn seal_holds(
    call: &Call,
    settle: &Settle,
    key: &PublicKey,
    domain: Domain,
    leaves: &[Digest],
    signature: Signature,
) -> bool {
    let lane = (settle.lease, settle.provider);
    call.seals((key, signature), domain, lane, leaves)
}
