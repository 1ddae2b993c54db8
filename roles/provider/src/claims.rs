//! What a provider can claim by itself: sealed tickets it has run, with its receipts, until they are settled.
//!
//! A seal covers a batch, so the leaves of a whole batch are kept until the last of its jobs is paid.

use std::collections::{BTreeMap, BTreeSet};

use piecework_ledger::{BatchTicket, Claim, ClaimedJob, Metered, TicketBatch};
use piecework_model::{Digest, LeaseId, PublicKey, Receipt, Seal, Signature, Ticket};

/// Jobs remembered for each lease: at some 500 bytes each, a few megabytes. The oldest go first.
const JOBS_PER_LEASE_MAX: usize = 10_000;

/// The papers of one provider's unpaid jobs, by lease.
#[derive(Default)]
pub struct Papers(BTreeMap<LeaseId, Lease>);

#[derive(Default)]
struct Lease {
    jobs: BTreeMap<u64, Paper>,
    /// In the order in which the seals came.
    batches: Vec<Batch>,
}

struct Paper {
    ticket: Ticket,
    receipt: Option<Receipt>,
}

struct Batch {
    payer: PublicKey,
    signature: Signature,
    members: Vec<(u64, Digest)>,
}

impl Papers {
    /// A job has begun.
    pub fn begun(&mut self, ticket: &Ticket) {
        let lease = self.0.entry(ticket.lease).or_default();
        let paper = Paper {
            ticket: ticket.clone(),
            receipt: None,
        };
        lease.jobs.insert(ticket.sequence, paper);
        while lease.jobs.len() > JOBS_PER_LEASE_MAX {
            lease.jobs.pop_first();
        }
    }

    pub fn ended(&mut self, receipt: &Receipt) {
        if let Some(paper) = self.paper(receipt.lease, receipt.sequence) {
            paper.receipt = Some(receipt.clone());
        }
    }

    fn paper(&mut self, lease: LeaseId, sequence: u64) -> Option<&mut Paper> {
        self.0.get_mut(&lease)?.jobs.get_mut(&sequence)
    }

    /// A seal over these tickets, in this order, that has been verified. One with an unknown ticket is not kept: it could
    /// not be shown again.
    pub fn sealed(&mut self, payer: PublicKey, seal: &Seal, sequences: &[u64]) {
        let Some(lease) = self.0.get_mut(&seal.lease) else {
            return;
        };
        let member = |sequence: &u64| Some((*sequence, lease.jobs.get(sequence)?.ticket.leaf()));
        let Some(members) = sequences.iter().map(member).collect::<Option<Vec<_>>>() else {
            return;
        };
        lease.batches.push(Batch {
            payer,
            signature: seal.signature,
            members,
        });
    }

    /// The job was paid, or refuted: nothing more is to be had for it.
    pub fn done(&mut self, lease: LeaseId, sequence: u64) {
        let Some(known) = self.0.get_mut(&lease) else { return };
        known.jobs.remove(&sequence);
        let jobs = &known.jobs;
        known
            .batches
            .retain(|batch| batch.members.iter().any(|(sequence, _)| jobs.contains_key(sequence)));
        if known.jobs.is_empty() {
            self.0.remove(&lease);
        }
    }

    /// Leases with jobs that could be claimed.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.0.keys().copied().collect()
    }

    /// A claim of up to `jobs_max` jobs that have run under a seal, lowest sequences first; `None` where there is none.
    /// Without acks: a provider has none.
    pub fn claim(&self, lease: LeaseId, jobs_max: usize) -> Option<Claim> {
        let known = self.0.get(&lease)?;
        let mut batches: Vec<(u64, &Batch)> = Vec::new();
        for batch in &known.batches {
            let first = batch.members.iter().map(|(sequence, _)| *sequence).min();
            batches.extend(first.map(|first| (first, batch)));
        }
        batches.sort_by_key(|(first, _)| *first);
        let (mut above, mut left, mut claimed) = (None, jobs_max, Vec::new());
        for (_, batch) in batches {
            // Sequences ascend from batch to batch: what lies across waits for the next claim.
            let from = above;
            let wanted: BTreeSet<u64> = batch
                .members
                .iter()
                .map(|(sequence, _)| *sequence)
                .filter(|sequence| Some(*sequence) > from && known.is_run(*sequence))
                .take(left)
                .collect();
            let in_order = batch.members.windows(2).all(|pair| pair[0].0 < pair[1].0);
            let Some(last) = wanted.last().copied().filter(|_| in_order) else {
                continue;
            };
            (above, left) = (Some(last), left - wanted.len());
            claimed.push(known.batch(batch, &wanted));
        }
        (!claimed.is_empty()).then_some(Claim {
            lease,
            batches: claimed,
            acks: None,
        })
    }
}

impl Lease {
    fn is_run(&self, sequence: u64) -> bool {
        self.jobs.get(&sequence).is_some_and(|paper| paper.receipt.is_some())
    }

    fn batch(&self, batch: &Batch, wanted: &BTreeSet<u64>) -> TicketBatch {
        let ticket = |(sequence, leaf): &(u64, Digest)| match self.jobs.get(sequence) {
            Some(Paper {
                ticket,
                receipt: Some(receipt),
            }) if wanted.contains(sequence) => BatchTicket::Claimed(Box::new(claimed(ticket, receipt))),
            Some(_) | None => BatchTicket::Other(*leaf),
        };
        TicketBatch {
            payer: batch.payer,
            signature: batch.signature,
            tickets: batch.members.iter().map(ticket).collect(),
        }
    }
}

fn claimed(ticket: &Ticket, receipt: &Receipt) -> ClaimedJob {
    ClaimedJob {
        ticket: ticket.clone(),
        metered: Metered {
            output: receipt.output,
            status: receipt.status,
            counters: receipt.counters,
            price_ucr: receipt.price_ucr,
            duration_us: receipt.duration_us,
        },
        received_at_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use piecework_model::{Counters, Domain, JobStatus};

    use super::*;
    use crate::orders::{NETWORK, order, payer};

    fn run(papers: &mut Papers, sequences: &[u64]) {
        for sequence in sequences {
            let ticket = order(*sequence).ticket;
            papers.begun(&ticket);
            papers.ended(&Receipt {
                lease: ticket.lease,
                provider: ticket.provider,
                sequence: *sequence,
                job: ticket.job,
                code: ticket.code,
                input: ticket.input,
                output: Digest::of(b"1"),
                status: JobStatus::Ok,
                counters: Counters::default(),
                price_ucr: 1,
                duration_us: 1,
            });
        }
    }

    fn seal(papers: &mut Papers, sequences: &[u64]) {
        let leaves: Vec<Digest> = sequences
            .iter()
            .map(|sequence| order(*sequence).ticket.leaf())
            .collect();
        let ticket = order(0).ticket;
        let seal = Seal::sign(
            &payer(),
            Domain::Tickets,
            &NETWORK,
            (ticket.lease, ticket.provider),
            &leaves,
        );
        papers.sealed(payer().public(), &seal, sequences);
    }

    fn sequences(claim: Option<&Claim>) -> Vec<u64> {
        let tickets = claim
            .into_iter()
            .flat_map(|claim| &claim.batches)
            .flat_map(|batch| &batch.tickets);
        tickets
            .filter_map(|ticket| match ticket {
                BatchTicket::Claimed(job) => Some(job.ticket.sequence),
                BatchTicket::Other(_) => None,
            })
            .collect()
    }

    #[test]
    fn what_ran_under_a_seal_is_claimed_until_it_is_paid() {
        let (mut papers, lease) = (Papers::default(), order(0).ticket.lease);
        run(&mut papers, &[0, 1, 2, 5]);
        papers.begun(&order(6).ticket);
        assert_eq!(papers.claim(lease, 10), None, "nothing is sealed");
        seal(&mut papers, &[5, 6]);
        seal(&mut papers, &[0, 1]);
        assert_eq!(sequences(papers.claim(lease, 10).as_ref()), [0, 1, 5]);
        assert_eq!(sequences(papers.claim(lease, 2).as_ref()), [0, 1]);
        papers.done(lease, 0);
        let claim = papers.claim(lease, 10).expect("two are left");
        assert_eq!(sequences(Some(&claim)), [1, 5]);
        assert!(matches!(claim.batches[0].tickets[0], BatchTicket::Other(_)));
        for sequence in [1, 2, 5, 6] {
            papers.done(lease, sequence);
        }
        assert_eq!(papers.leases(), []);
    }
}
