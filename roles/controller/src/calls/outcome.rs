//! From a delivery to a job's record: the receipt is checked, the outcome put into words.

use piecework_api::errors::Refusal;
use piecework_model::{AnyCode, Code, Digest, JobStatus, Receipt, Salt, Ticket};
use piecework_queue::Delivery;
use piecework_sandbox::{FELL_SHORT, Logs, NO_SCHEDULED, Outcome, Streamed};
use piecework_store::JobState;
use serde_json::{json, value::RawValue};

use crate::calls::streams::{Collected, Seen};

/// What a run came to, for the caller and the record.
pub(crate) struct Verdict {
    pub(crate) state: JobState,
    /// JSON text of the output, where there is one.
    pub(crate) output: Option<bytes::Bytes>,
    pub(crate) error: Option<Box<Refusal>>,
}

/// Why a receipt is not paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptFault {
    #[error("the receipt is for another job")]
    OtherJob,
    #[error("the receipt names another output than the one that came")]
    OtherOutput,
    #[error("the receipt claims more than the ticket allows")]
    OverTicket,
    #[error("the receipt claims more than the controller saw")]
    OverObserved,
    #[error("the output is larger than the ticket allows")]
    TooMuchOutput,
    #[error("the logs are longer than the ticket allows")]
    TooManyLogs,
}

impl ReceiptFault {
    /// Whether the output that came with it is the provider's word on this job all the same: then only the bill is refused.
    pub fn leaves_result(self) -> bool {
        match self {
            Self::OverTicket | Self::OverObserved => true,
            Self::OtherJob | Self::OtherOutput | Self::TooMuchOutput | Self::TooManyLogs => false,
        }
    }
}

/// Rounding between two clocks, and the time an answer is under way.
const OBSERVED_SLACK_US: u64 = 2_000;

/// What a sandbox adds to what the function printed: that it was cut, and whom it asked for over the network.
const LOGS_SLACK_BYTES: u64 = 256 << 10;

/// Whether the logs are no longer than an honest sandbox makes them.
pub(crate) fn check_logs(ticket: &Ticket, logs: &Logs) -> Result<(), ReceiptFault> {
    let longest = ticket.limits.log_bytes.saturating_add(LOGS_SLACK_BYTES);
    match logs.text.len() as u64 > longest || logs.lines.len() > logs.text.len() {
        true => Err(ReceiptFault::TooManyLogs),
        false => Ok(()),
    }
}

/// What the controller saw of a run.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// From the order to the delivery.
    pub us: u64,
    /// Of the provider.
    pub cores: u32,
    pub streamed: Streamed,
    /// What of the ticket's limit of bytes is there for streams; the rest is the network's, which is not seen from here.
    pub streamable_bytes: u64,
    /// Of the job's digests.
    pub salt: Option<Salt>,
}

/// Whether the receipt is for this ticket and this output, at its price, within what was seen from here.
pub fn check_receipt(
    ticket: &Ticket,
    receipt: &Receipt,
    outcome: &Outcome,
    observed: &Observed,
) -> Result<(), ReceiptFault> {
    let same = receipt.lease == ticket.lease
        && receipt.provider == ticket.provider
        && receipt.sequence == ticket.sequence
        && receipt.job == ticket.job
        && receipt.code == ticket.code
        && receipt.input == ticket.input;
    if !same {
        return Err(ReceiptFault::OtherJob);
    }
    if receipt.output != output(ticket, outcome, &observed.streamed)?.salted(observed.salt.as_ref()) {
        return Err(ReceiptFault::OtherOutput);
    }
    let priced = ticket
        .prices
        .price(&receipt.counters)
        .is_ok_and(|price| receipt.price_ucr <= price);
    let moved_too_much = receipt.counters.egress_bytes > ticket.limits.egress_bytes;
    if receipt.price_ucr > ticket.price_max_ucr || !priced || moved_too_much {
        return Err(ReceiptFault::OverTicket);
    }
    let network_max = ticket.limits.egress_bytes.saturating_sub(observed.streamable_bytes);
    let moved_max = network_max.saturating_add(observed.streamed.both_ways());
    let wall_us = observed.us + OBSERVED_SLACK_US;
    let memory_max = u128::from(ticket.limits.memory_bytes) * u128::from(wall_us.div_ceil(1_000));
    let over = receipt.counters.cpu_us > wall_us.saturating_mul(u64::from(observed.cores))
        || u128::from(receipt.counters.memory_byte_ms) > memory_max
        || receipt.counters.egress_bytes > moved_max
        || receipt.duration_us > wall_us;
    if over { Err(ReceiptFault::OverObserved) } else { Ok(()) }
}

/// The digest that the receipt has to name: of an output in one piece, or of whatever was streamed until the run ended.
fn output(ticket: &Ticket, outcome: &Outcome, streamed: &Streamed) -> Result<Digest, ReceiptFault> {
    match outcome {
        Outcome::Returned(output) if output.len() as u64 > ticket.limits.output_bytes => {
            Err(ReceiptFault::TooMuchOutput)
        }
        _ => came_through(outcome, streamed).ok_or(ReceiptFault::OtherOutput),
    }
}

/// The digest of what came of a run, as it came; none of an output beside a stream: the caller cannot have both.
pub(crate) fn came_through(outcome: &Outcome, streamed: &Streamed) -> Option<Digest> {
    match outcome {
        Outcome::Returned(_) if streamed.begun => None,
        Outcome::Returned(output) => Some(Digest::of(output)),
        Outcome::Streamed
        | Outcome::Raised(_)
        | Outcome::TimedOut
        | Outcome::Stopped
        | Outcome::OutOfMemory
        | Outcome::Crashed(_)
        | Outcome::OutputTooLarge
        | Outcome::OutputInvalid(_)
        | Outcome::FellShort(_)
        | Outcome::Lost => Some(streamed.digest),
    }
}

/// Puts the outcome into words. An output that is not JSON, whoever made it, is the function's fault.
pub(crate) fn judge(delivery: &Delivery, limits: &piecework_model::Limits, seen: &Seen) -> Verdict {
    let failed = |state, code: AnyCode, message: String| Verdict {
        state,
        output: None,
        error: Some(Box::new(Refusal::new(code, message).job(delivery.receipt.job))),
    };
    let too_large = || {
        failed(
            JobState::Failed,
            Code::FunctionOutputTooLarge.into(),
            match seen.streamed.begun {
                true => format!(
                    "the answer was stopped after {} bytes: it is over the limit of what may be streamed or collected",
                    seen.streamed.bytes
                ),
                false => format!("the output is over the limit of {} bytes", limits.output_bytes),
            },
        )
    };
    if seen.output == Collected::TooLarge {
        return too_large();
    }
    if let Some(fault) = &seen.answer_fault {
        return failed(JobState::Failed, fault.code.clone(), fault.message.clone());
    }
    if let Some(fault) = &seen.body_fault
        && delivery.receipt.status != JobStatus::Ok
    {
        return failed(JobState::Cancelled, fault.code.clone(), fault.message.clone());
    }
    if delivery.is_cut && delivery.receipt.status != JobStatus::Ok {
        let message = "the provider's link broke in the middle of the job's stream";
        return failed(JobState::Failed, Code::ProviderLost.into(), message.into());
    }
    if delivery.receipt.status == JobStatus::Cancelled {
        return failed(
            JobState::Cancelled,
            Code::JobCancelled.into(),
            "the job was cancelled".into(),
        );
    }
    match &delivery.finished.outcome {
        Outcome::Returned(output) => match serde_json::from_slice::<&RawValue>(output) {
            Ok(_) => Verdict {
                state: JobState::Succeeded,
                output: Some(output.clone()),
                error: None,
            },
            Err(error) => failed(
                JobState::Failed,
                Code::FunctionOutputInvalid.into(),
                format!("the output is not JSON: {error}"),
            ),
        },
        Outcome::Streamed => Verdict {
            state: JobState::Succeeded,
            output: match &seen.output {
                Collected::Whole(bytes) => Some(Collected::to_json(bytes)),
                Collected::Nothing | Collected::TooLarge => None,
            },
            error: None,
        },
        Outcome::Raised(raised) if raised.kind == FELL_SHORT => failed(
            JobState::Failed,
            Code::SandboxUnsupported.into(),
            format!("the function used what its sandbox lacks: {}", raised.message),
        ),
        Outcome::Raised(raised) if raised.kind == NO_SCHEDULED => failed(
            JobState::Failed,
            Code::FunctionNoScheduled.into(),
            raised.message.clone(),
        ),
        Outcome::Raised(raised) => {
            let (code, message) = match raised.limit_met() {
                Some((code, what)) => (code, format!("the run {what}: {}", raised.message)),
                None => (
                    Code::FunctionRaised,
                    format!("the function raised {}: {}", raised.kind, raised.message),
                ),
            };
            let mut verdict = failed(JobState::Failed, code.into(), message);
            let details = json!({"type": raised.kind, "message": raised.message, "stack": raised.stack});
            verdict.error = verdict.error.map(|error| Box::new(error.details(details)));
            verdict
        }
        Outcome::Stopped => failed(
            JobState::Cancelled,
            Code::JobCancelled.into(),
            "the job was cancelled".into(),
        ),
        Outcome::TimedOut => failed(
            JobState::TimedOut,
            Code::FunctionTimedOut.into(),
            format!(
                "the run took longer than its timeout of {} ms and was ended",
                limits.timeout_ms
            ),
        ),
        Outcome::OutOfMemory => failed(
            JobState::Failed,
            Code::FunctionOutOfMemory.into(),
            format!(
                "the run needed more than its memory limit of {} MiB",
                limits.memory_bytes >> 20
            ),
        ),
        Outcome::Crashed(how) => failed(
            JobState::Failed,
            Code::FunctionCrashed.into(),
            format!("the function's process ended: {how}"),
        ),
        Outcome::Lost => failed(
            JobState::Failed,
            Code::SandboxWorkerLost.into(),
            "the process that runs the developer's functions ended; which of them ended it is not known".into(),
        ),
        Outcome::FellShort(what) => failed(
            JobState::Failed,
            Code::SandboxUnsupported.into(),
            format!("the function used what its sandbox lacks: {what}"),
        ),
        Outcome::OutputTooLarge => too_large(),
        Outcome::OutputInvalid(why) => failed(
            JobState::Failed,
            Code::FunctionOutputInvalid.into(),
            format!("the output is not JSON: {why}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use piecework_model::{AccountId, Counters, JobId, LeaseId, Limits, Prices};

    use super::*;

    const PRICES: Prices = Prices {
        start_ucr: 1,
        cpu_ucr_per_s: 1_000,
        memory_ucr_per_gib_s: 35,
        egress_ucr_per_mib: 10,
    };
    const OBSERVED_US: u64 = 10_000;
    const OBSERVED: Observed = Observed {
        us: OBSERVED_US,
        cores: 2,
        streamed: Streamed {
            begun: false,
            digest: Digest([0; 32]),
            bytes: 0,
            body_bytes: 0,
        },
        streamable_bytes: 0,
        salt: None,
    };

    fn ticket() -> Ticket {
        Ticket {
            lease: LeaseId([1; 20]),
            provider: AccountId([2; 20]),
            sequence: 3,
            job: JobId([4; 16]),
            code: Digest::of(b"code"),
            input: Digest::of(b"input"),
            limits: Limits::DEFAULT,
            prices: PRICES,
            price_max_ucr: 100,
            deadline_ms: 0,
            replaces: None,
        }
    }

    /// What an honest provider says of a run of 5 ms on one core.
    fn receipt() -> Receipt {
        let ticket = ticket();
        let counters = Counters {
            cpu_us: 5_000,
            memory_byte_ms: 1 << 20,
            egress_bytes: 0,
        };
        Receipt {
            lease: ticket.lease,
            provider: ticket.provider,
            sequence: ticket.sequence,
            job: ticket.job,
            code: ticket.code,
            input: ticket.input,
            output: Digest::of(b"1"),
            status: JobStatus::Ok,
            counters,
            price_ucr: PRICES.price(&counters).expect("in range"),
            duration_us: 5_000,
        }
    }

    fn fault_of(change: impl FnOnce(&mut Receipt)) -> Option<ReceiptFault> {
        let mut receipt = receipt();
        change(&mut receipt);
        let output = Outcome::Returned(Bytes::from_static(b"1"));
        check_receipt(&ticket(), &receipt, &output, &OBSERVED).err()
    }

    #[test]
    fn an_honest_receipt_passes() {
        assert_eq!(fault_of(|_| ()), None);
    }

    #[test]
    fn row_5_the_providers_word_is_bounded_by_the_ticket_and_by_what_was_seen() {
        assert_eq!(
            fault_of(|receipt| receipt.price_ucr += 1),
            Some(ReceiptFault::OverTicket)
        );
        assert_eq!(
            fault_of(|receipt| receipt.counters.cpu_us = 2 * OBSERVED_US + 5_000),
            Some(ReceiptFault::OverObserved)
        );
        assert_eq!(
            fault_of(|receipt| receipt.counters.memory_byte_ms = u64::MAX >> 20),
            Some(ReceiptFault::OverObserved)
        );
        assert_eq!(
            fault_of(|receipt| receipt.duration_us = 2 * OBSERVED_US),
            Some(ReceiptFault::OverObserved)
        );
        assert_eq!(
            fault_of(|receipt| receipt.counters.egress_bytes = 1),
            Some(ReceiptFault::OverTicket),
            "the network was off"
        );
        let dear = |receipt: &mut Receipt| {
            receipt.counters.cpu_us = 20_000;
            receipt.price_ucr = 101;
        };
        assert_eq!(
            fault_of(dear),
            Some(ReceiptFault::OverTicket),
            "above the ticket's maximum"
        );
    }

    #[test]
    fn an_output_digest_counts_only_under_the_jobs_salt() {
        let (salt, other) = (Salt([1; 32]), Salt([2; 32]));
        let fault_of = |output| {
            let receipt = Receipt { output, ..receipt() };
            let observed = Observed {
                salt: Some(salt),
                ..OBSERVED
            };
            let outcome = Outcome::Returned(Bytes::from_static(b"1"));
            check_receipt(&ticket(), &receipt, &outcome, &observed).err()
        };
        assert_eq!(fault_of(Digest::of(b"1").salted(Some(&salt))), None);
        for wrong in [
            Digest::of(b"1"),
            Digest::of(b"1").salted(Some(&other)),
            Digest::of(b"2").salted(Some(&salt)),
        ] {
            assert_eq!(fault_of(wrong), Some(ReceiptFault::OtherOutput));
        }
    }

    #[test]
    fn an_output_over_the_limit_is_refused() {
        let output = Bytes::from(vec![
            b'1';
            usize::try_from(Limits::DEFAULT.output_bytes).expect("small") + 1
        ]);
        let receipt = Receipt {
            output: Digest::of(&output),
            ..receipt()
        };
        let outcome = Outcome::Returned(output);
        let checked = check_receipt(&ticket(), &receipt, &outcome, &OBSERVED);
        assert_eq!(checked, Err(ReceiptFault::TooMuchOutput));
    }

    #[test]
    fn a_receipt_of_a_stream_names_what_came_through_and_no_more_bytes() {
        let streamed = Streamed {
            begun: true,
            digest: Digest::of(b"abc"),
            bytes: 3,
            body_bytes: 4,
        };
        let observed = Observed {
            streamed,
            streamable_bytes: 1_000,
            ..OBSERVED
        };
        let network_bytes = 10;
        let mut ticket = ticket();
        ticket.limits.egress_bytes = network_bytes + 1_000;
        let fault_of = |outcome: Outcome, change: fn(&mut Receipt)| {
            let mut receipt = receipt();
            receipt.output = Digest::of(b"abc");
            receipt.counters.egress_bytes = network_bytes + 7;
            change(&mut receipt);
            check_receipt(&ticket, &receipt, &outcome, &observed).err()
        };
        for honest in [Outcome::Streamed, Outcome::Stopped, Outcome::TimedOut] {
            assert_eq!(fault_of(honest, |_| ()), None);
        }
        assert_eq!(
            fault_of(Outcome::Streamed, |receipt| receipt.output = Digest::of(b"ab")),
            Some(ReceiptFault::OtherOutput)
        );
        assert_eq!(
            fault_of(Outcome::Streamed, |receipt| receipt.counters.egress_bytes += 1),
            Some(ReceiptFault::OverObserved)
        );
        assert_eq!(
            fault_of(Outcome::Streamed, |receipt| receipt.counters.egress_bytes = 1_011),
            Some(ReceiptFault::OverTicket)
        );
        let both = Outcome::Returned(Bytes::from_static(b"abc"));
        assert_eq!(
            fault_of(both, |_| ()),
            Some(ReceiptFault::OtherOutput),
            "an output beside a stream"
        );
    }

    #[test]
    fn logs_over_the_limit_are_refused() {
        let of = |bytes: u64| Logs {
            text: "x".repeat(usize::try_from(bytes).expect("small")),
            lines: Vec::new(),
        };
        let longest = Limits::DEFAULT.log_bytes + LOGS_SLACK_BYTES;
        assert_eq!(check_logs(&ticket(), &of(longest)), Ok(()));
        assert_eq!(check_logs(&ticket(), &of(longest + 1)), Err(ReceiptFault::TooManyLogs));
    }

    #[test]
    fn a_receipt_for_something_else_is_refused() {
        assert_eq!(
            fault_of(|receipt| receipt.job = JobId([9; 16])),
            Some(ReceiptFault::OtherJob)
        );
        assert_eq!(fault_of(|receipt| receipt.sequence += 1), Some(ReceiptFault::OtherJob));
        assert_eq!(
            fault_of(|receipt| receipt.provider = AccountId([9; 20])),
            Some(ReceiptFault::OtherJob)
        );
        assert_eq!(
            fault_of(|receipt| receipt.input = Digest::of(b"2")),
            Some(ReceiptFault::OtherJob)
        );
        assert_eq!(
            fault_of(|receipt| receipt.output = Digest::of(b"2")),
            Some(ReceiptFault::OtherOutput)
        );
    }
}
