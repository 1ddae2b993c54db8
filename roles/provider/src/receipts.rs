//! Receipts: what a job used becomes a claim, and a batch of claims gets the provider's seal.

use piecework_model::{
    AccountId, Counters, Digest, Domain, JobStatus, LeaseId, NetworkId, Receipt, Rejection, Seal, SecretKey, Ticket,
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

    /// States what the job used, with what it streamed among its egress, bounded by the ticket's limits and price.
    pub fn write(&self, ticket: &Ticket, finished: &Finished, streamed: &Streamed, cores: u32) -> (Receipt, [u8; 32]) {
        let counters = bounded(finished.counters, ticket.limits.counters_max(cores));
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
            output: output_digest(&finished.outcome, streamed),
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
                    "receipt.not_mine",
                    "a receipt was not issued by this provider in this lane",
                ));
            }
            leaves.push(receipt.leaf());
        }
        Ok(Seal::sign(&self.key, Domain::Receipts, &self.network, lane, &leaves))
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
        | Outcome::Lost => JobStatus::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    #[test]
    fn row_5_a_receipt_never_exceeds_its_ticket() {
        let receipts = Receipts::new(SecretKey::from_seed([6; 32]), NETWORK);
        let ticket = order(0).ticket;
        let (receipt, _) = receipts.write(&ticket, &finished(u64::MAX), &Streamed::default(), 2);
        assert_eq!(receipt.price_ucr, ticket.price_max_ucr);
        assert_eq!(receipt.counters.cpu_us, ticket.limits.counters_max(2).cpu_us);
    }

    #[test]
    fn only_what_this_provider_wrote_gets_its_seal() {
        let key = SecretKey::from_seed([6; 32]);
        let receipts = Receipts::new(key.clone(), NETWORK);
        let ticket = order(0).ticket;
        let lane = (ticket.lease, ticket.provider);
        let (receipt, mark) = receipts.write(&ticket, &finished(10), &Streamed::default(), 2);
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
            "receipt.not_mine"
        );
        let other_lane = (LeaseId([7; 20]), lane.1);
        assert_eq!(
            receipts.seal(other_lane, &[mine]).expect_err("another lane").code,
            "receipt.not_mine"
        );
    }
}
