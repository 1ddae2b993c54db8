//! Receipts: what a job used becomes a claim, and a batch of claims gets the provider's seal.

use std::time::Duration;

use piecework_model::{
    AccountId, Code, Counters, Digest, Domain, JobStatus, LeaseId, Limits, NetworkId, Receipt, Rejection, Salt, Seal,
    SecretKey, Ticket,
};
use piecework_queue::{Refusal, Unsealed};
use piecework_sandbox::{Finished, Outcome, Streamed};

pub struct Receipts {
    key: SecretKey,
    network: NetworkId,
    /// Marks the provider's own receipts: a request for a seal must bring the mark, so nothing needs to be remembered.
    mark_key: [u8; 32],
}

impl Receipts {
    pub fn new(key: SecretKey, network: NetworkId) -> Self {
        let mark_key = blake3::derive_key("piecework 2026 receipt mark", &key.to_seed());
        Self { key, network, mark_key }
    }

    /// States what the job used, with what it streamed among its egress and its slot among its memory, bounded by the ticket's
    /// limits and price, and by what whoever watched the run can have seen.
    pub fn write(
        &self,
        (ticket, salt): (&Ticket, Option<&Salt>),
        finished: &Finished,
        streamed: &Streamed,
        seen: &Seen,
    ) -> (Receipt, [u8; 32]) {
        let counters = Counters {
            memory_byte_ms: finished
                .counters
                .memory_byte_ms
                .max(slot_byte_ms(ticket, finished.duration)),
            ..finished.counters
        };
        let counters = bounded(counters, ticket.limits.counters_max(seen.cores));
        let counters = bounded(counters, seen.most(ticket));
        let price_ucr = ticket
            .prices
            .price(&counters)
            .unwrap_or(u64::MAX)
            .min(ticket.price_max_ucr);
        let receipt = Receipt {
            lease: ticket.lease,
            provider: ticket.provider,
            sequence: ticket.sequence,
            job: ticket.job,
            code: ticket.code,
            input: ticket.input,
            output: output_digest(&finished.outcome, streamed).salted(salt),
            status: status(&finished.outcome),
            counters,
            price_ucr,
            duration_us: u64::try_from(finished.duration.as_micros()).unwrap_or(u64::MAX),
        };
        let mark = self.mark(&receipt);
        (receipt, mark)
    }

    fn mark(&self, receipt: &Receipt) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.mark_key);
        borsh::to_writer(&mut hasher, receipt).expect("a hasher accepts every byte");
        *hasher.finalize().as_bytes()
    }

    /// Seals receipts that carry this provider's mark. Rejects `receipt.not_mine` for any that does not.
    pub fn seal(&self, lane: (LeaseId, AccountId), receipts: &[Unsealed]) -> Result<Seal, Refusal> {
        let mut leaves = Vec::with_capacity(receipts.len());
        for Unsealed { receipt, mark } in receipts {
            let mine = blake3::Hash::from_bytes(self.mark(receipt)) == blake3::Hash::from_bytes(*mark);
            if !mine || (receipt.lease, receipt.provider) != lane {
                return Err(Rejection::new(
                    Code::ReceiptNotMine,
                    "a receipt was not issued by this provider in this lane",
                ));
            }
            leaves.push(receipt.leaf());
        }
        Ok(Seal::sign(&self.key, Domain::Receipts, &self.network, lane, &leaves))
    }
}

/// What the slot counts as. Of whole milliseconds: the slot of a shorter run is paid with its start.
fn slot_byte_ms(ticket: &Ticket, duration: Duration) -> u64 {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Limits::SLOT_BYTES.min(ticket.limits.memory_bytes).saturating_mul(ms)
}

/// What can be seen of a run from outside.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub cores: u32,
    /// From the order to the delivery.
    pub took: Duration,
}

impl Seen {
    /// An instance may have used more: CPU time before this run, which is billed to it, and without control groups more memory
    /// than its limit for a moment. A controller takes neither.
    fn most(&self, ticket: &Ticket) -> Counters {
        let us = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX);
        Counters {
            cpu_us: us.saturating_mul(u64::from(self.cores)),
            memory_byte_ms: ticket.limits.memory_bytes.saturating_mul(us.div_ceil(1_000)),
            egress_bytes: u64::MAX,
        }
    }
}

fn bounded(used: Counters, max: Counters) -> Counters {
    Counters {
        cpu_us: used.cpu_us.min(max.cpu_us),
        memory_byte_ms: used.memory_byte_ms.min(max.memory_byte_ms),
        egress_bytes: used.egress_bytes.min(max.egress_bytes),
    }
}

/// Also of a run that failed in the middle of its stream: what was streamed until then.
fn output_digest(outcome: &Outcome, streamed: &Streamed) -> Digest {
    match outcome {
        Outcome::Returned(output) => Digest::of(output),
        Outcome::Streamed
        | Outcome::Raised(_)
        | Outcome::TimedOut
        | Outcome::Stopped
        | Outcome::OutOfMemory
        | Outcome::Crashed(_)
        | Outcome::OutputTooLarge
        | Outcome::OutputInvalid(_)
        | Outcome::FellShort(_)
        | Outcome::Lost => streamed.digest,
    }
}

fn status(outcome: &Outcome) -> JobStatus {
    match outcome {
        Outcome::Returned(_) | Outcome::Streamed => JobStatus::Ok,
        Outcome::TimedOut => JobStatus::TimedOut,
        Outcome::Stopped => JobStatus::Cancelled,
        Outcome::OutOfMemory => JobStatus::OutOfMemory,
        Outcome::Raised(_)
        | Outcome::Crashed(_)
        | Outcome::OutputTooLarge
        | Outcome::OutputInvalid(_)
        | Outcome::FellShort(_)
        | Outcome::Lost => JobStatus::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::{NETWORK, order};

    fn finished(cpu_us: u64) -> Finished {
        Finished {
            outcome: Outcome::Returned(bytes::Bytes::from_static(b"1")),
            logs: piecework_sandbox::Logs::default(),
            counters: Counters {
                cpu_us,
                memory_byte_ms: 1,
                egress_bytes: 0,
            },
            memory_peak_bytes: 1,
            duration: Duration::from_millis(1),
            reusable: true,
        }
    }

    fn seen(seconds: u64) -> Seen {
        Seen {
            cores: 2,
            took: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn row_5_a_receipt_never_exceeds_its_ticket() {
        let receipts = Receipts::new(SecretKey::from_seed([6; 32]), NETWORK);
        let ticket = order(0).ticket;
        let (receipt, _) = receipts.write((&ticket, None), &finished(u64::MAX), &Streamed::default(), &seen(3_600));
        assert_eq!(receipt.price_ucr, ticket.price_max_ucr);
        assert_eq!(receipt.counters.cpu_us, ticket.limits.counters_max(2).cpu_us);
    }

    #[test]
    fn a_run_that_only_waits_pays_for_its_slot() {
        let receipts = Receipts::new(SecretKey::from_seed([6; 32]), NETWORK);
        let ticket = order(0).ticket;
        let of = |ms| {
            let waited = Finished {
                duration: Duration::from_millis(ms),
                ..finished(10)
            };
            receipts
                .write((&ticket, None), &waited, &Streamed::default(), &seen(3_600))
                .0
                .counters
        };
        assert_eq!(of(0).memory_byte_ms, 1, "what was measured");
        assert_eq!(of(3_000).memory_byte_ms, 3_000 * (64 << 20));
        let most = ticket.limits.counters_max(2).memory_byte_ms;
        assert!(of(3_000_000).memory_byte_ms <= most);
    }

    #[test]
    fn the_output_digest_is_salted_as_ordered() {
        let receipts = Receipts::new(SecretKey::from_seed([6; 32]), NETWORK);
        let (ticket, salt) = (order(0).ticket, Salt([7; 32]));
        let of = |salt| {
            receipts
                .write((&ticket, salt), &finished(10), &Streamed::default(), &seen(3_600))
                .0
                .output
        };
        assert_eq!(of(None), Digest::of(b"1"));
        assert_eq!(of(Some(&salt)), Digest::of(b"1").salted(Some(&salt)));
        assert_ne!(of(Some(&salt)), of(None));
    }

    #[test]
    fn a_receipt_never_exceeds_what_its_run_can_have_shown() {
        let receipts = Receipts::new(SecretKey::from_seed([6; 32]), NETWORK);
        let ticket = order(0).ticket;
        let mut used = finished(5_000_000);
        used.counters.memory_byte_ms = u64::MAX;
        let (receipt, _) = receipts.write((&ticket, None), &used, &Streamed::default(), &seen(1));
        assert_eq!(receipt.counters.cpu_us, 2_000_000, "one second of two cores");
        assert_eq!(receipt.counters.memory_byte_ms, 1_000 * ticket.limits.memory_bytes);
    }

    #[test]
    fn only_what_this_provider_wrote_gets_its_seal() {
        let key = SecretKey::from_seed([6; 32]);
        let receipts = Receipts::new(key.clone(), NETWORK);
        let ticket = order(0).ticket;
        let lane = (ticket.lease, ticket.provider);
        let (receipt, mark) = receipts.write((&ticket, None), &finished(10), &Streamed::default(), &seen(1));
        let mine = Unsealed {
            receipt: receipt.clone(),
            mark,
        };
        let after_a_restart = Receipts::new(key.clone(), NETWORK);
        let seal = after_a_restart
            .seal(lane, std::slice::from_ref(&mine))
            .expect("known again by its mark");
        assert!(
            seal.verify(&key.public(), Domain::Receipts, &NETWORK, &[receipt.leaf()])
                .is_ok()
        );
        let dearer = Unsealed {
            receipt: Receipt {
                price_ucr: receipt.price_ucr + 1,
                ..receipt.clone()
            },
            mark,
        };
        assert_eq!(
            receipts.seal(lane, &[dearer]).expect_err("altered").code,
            Code::ReceiptNotMine
        );
        let other_lane = (LeaseId([7; 20]), lane.1);
        assert_eq!(
            receipts.seal(other_lane, &[mine]).expect_err("another lane").code,
            Code::ReceiptNotMine
        );
    }
}
