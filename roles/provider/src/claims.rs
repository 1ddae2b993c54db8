//! What a provider is owed, and how it collects it without its controller: sealed tickets with receipts, until they are
//! paid.
//!
//! ```text
//! ran -> sealed -> (paid by a settlement) -> forgotten
//!           '----> unpaid for too long, or the lease drains -> Claim -> window -> PayClaims -> forgotten
//! ```
//! Decisions only: time and what the ledger shows come in, transactions go out. A seal covers a batch, so the leaves of
//! a whole batch are kept until the last of its jobs is paid.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_ledger::{
    Action, BatchTicket, Claim, ClaimedJob, JOBS_PER_SETTLEMENT_MAX, LeaseState, Metered, PayClaims,
    TICKET_BATCHES_PER_CLAIM_MAX, TicketBatch,
};
use piecework_model::{AccountId, Digest, Domain, LeaseId, NetworkId, PublicKey, Receipt, Seal, Signature, Ticket};

/// Jobs remembered for each lease, at some 700 bytes each: seconds of a busy machine, hours of a quiet one. Past that
/// the oldest are forgotten: a payer who settles nothing for so long is not worth more memory.
const JOBS_PER_LEASE_MAX: usize = 50_000;
/// A job whose ticket nobody sealed so long after cannot be claimed; a payer that comes back settles it without this
/// paper.
const UNSEALED_KEPT_MS: u64 = 3_600_000;
/// Of one claim: some 250 KB, so that it fits a block beside other transactions.
const JOBS_PER_CLAIM_MAX: usize = 500;

/// The papers of one provider's unpaid jobs, by lease.
#[derive(Default, BorshSerialize, BorshDeserialize)]
pub struct Papers {
    lanes: BTreeMap<LeaseId, Lane>,
    #[borsh(skip)]
    revision: u64,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Lane {
    jobs: BTreeMap<u64, Paper>,
    batches: BTreeMap<u64, Batch>,
    next_batch: u64,
    /// Fewer after the ledger refused a claim: the job that is to blame is found, and given up.
    claim_jobs: u32,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Paper {
    ticket: Ticket,
    receipt: Receipt,
    payer: PublicKey,
    ran_at_ms: u64,
    batch: Option<u64>,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Batch {
    payer: PublicKey,
    signature: Signature,
    members: Vec<(u64, Digest)>,
    /// Members whose papers are here and name this batch.
    unpaid: u32,
}

/// One lane of this provider as the ledger shows it. The lane is to be read before the lease and the records: a
/// sequence that is taken, and of which no record is seen later, is done with.
pub struct Shown<'a> {
    /// Not above that of any of the reads.
    pub height: u64,
    pub lease: LeaseState,
    pub lane: Option<&'a piecework_ledger::Lane>,
    /// Records of this lane's unfinished jobs among [`Papers::unpaid`], with the last height of a claim's window.
    pub open: BTreeMap<u64, Option<u64>>,
    /// Of those, the ones whose payer may soon say that nothing came of them.
    pub pressing: BTreeSet<u64>,
}

/// How long a provider waits for its payer.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub now_ms: u64,
    /// A job that is unpaid for this long is claimed.
    pub claim_after_ms: u64,
}

/// What is not known to be paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    pub jobs: u64,
    pub price_ucr: u64,
    /// Jobs under the payer's seal: these can be claimed without it.
    pub sealed_jobs: u64,
}

/// What is to be sent to the ledger, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Steps {
    pub claim: Option<Claim>,
    pub pay: Option<PayClaims>,
}

impl Steps {
    pub fn actions(self) -> impl Iterator<Item = Action> {
        let claim = self.claim.map(Action::Claim);
        claim.into_iter().chain(self.pay.map(Action::PayClaims))
    }
}

impl Papers {
    /// A job has ended; `seal` is over its ticket alone and has been verified.
    pub fn ran(&mut self, ticket: &Ticket, payer: PublicKey, seal: Option<&Seal>, receipt: &Receipt, now_ms: u64) {
        self.revision += 1;
        let lane = self.lanes.entry(ticket.lease).or_default();
        lane.jobs.insert(
            ticket.sequence,
            Paper {
                ticket: ticket.clone(),
                receipt: receipt.clone(),
                payer,
                ran_at_ms: now_ms,
                batch: None,
            },
        );
        if let Some(seal) = seal {
            lane.keep(payer, seal.signature, vec![(ticket.sequence, ticket.leaf())]);
        }
        if lane.jobs.len() > JOBS_PER_LEASE_MAX
            && let Some((sequence, _)) = lane.jobs.first_key_value()
        {
            lane.forget(*sequence);
        }
    }

    /// A seal over these tickets, in this order. What does not verify is not kept, nor what could not be shown again
    /// because one of its tickets is unknown.
    pub fn sealed(&mut self, seal: &Seal, sequences: &[u64], network: &NetworkId) {
        let Some(lane) = self.lanes.get_mut(&seal.lease) else {
            return;
        };
        let Some(payer) = sequences
            .first()
            .and_then(|first| lane.jobs.get(first))
            .map(|paper| paper.payer)
        else {
            return;
        };
        let member = |sequence: &u64| Some((*sequence, lane.jobs.get(sequence)?.ticket.leaf()));
        let Some(members) = sequences.iter().map(member).collect::<Option<Vec<_>>>() else {
            return;
        };
        let leaves: Vec<Digest> = members.iter().map(|(_, leaf)| *leaf).collect();
        if seal.verify(&payer, Domain::Tickets, network, &leaves).is_ok() {
            self.revision += 1;
            lane.keep(payer, seal.signature, members);
        }
    }

    /// Leases with jobs that are not known to be paid.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.leases_waiting_since(u64::MAX)
    }

    /// Of those, the leases whose first job ran at this time or before.
    pub fn leases_waiting_since(&self, ms: u64) -> Vec<LeaseId> {
        let waiting = self.lanes.iter().filter(|(_, lane)| lane.since_ms() <= Some(ms));
        waiting.map(|(lease, _)| *lease).collect()
    }

    pub fn owed(&self) -> Owed {
        let mut owed = Owed::default();
        for paper in self.lanes.values().flat_map(|lane| lane.jobs.values()) {
            owed.jobs += 1;
            owed.price_ucr = owed.price_ucr.saturating_add(paper.receipt.price_ucr);
            owed.sealed_jobs += u64::from(paper.batch.is_some());
        }
        owed
    }

    /// Another one whenever the papers changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Sequences of a lease that are not known to be paid, ascending.
    pub fn unpaid(&self, lease: LeaseId) -> Vec<u64> {
        let lane = self.lanes.get(&lease);
        lane.into_iter().flat_map(|lane| lane.jobs.keys().copied()).collect()
    }

    /// When the job ran that has waited longest, of the first ones of each lease.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.lanes.values().filter_map(Lane::since_ms).min()
    }

    /// Forgets what is done with, and says what to send. Asked again before that is final it says the same again, which
    /// the ledger does not mind.
    pub fn next(&mut self, lane: (LeaseId, AccountId), shown: &Shown, patience: Patience) -> Steps {
        let (lease, provider) = lane;
        let Some(lane) = self.lanes.get_mut(&lease) else {
            return Steps::default();
        };
        let gone = lane.forget_done(shown) + lane.forget_unsealed(patience.now_ms);
        self.revision += u64::from(gone > 0);
        if lane.jobs.is_empty() || shown.lease == LeaseState::Closed {
            self.lanes.remove(&lease);
            self.revision += 1;
            return Steps::default();
        }
        let claim = lane.claim(lease, |sequence, paper| {
            let claimed = shown.open.get(&sequence).is_some_and(Option::is_some);
            !claimed && (shown.presses(sequence) || patience.is_over(paper.ran_at_ms))
        });
        let over =
            |(sequence, until): (&u64, &Option<u64>)| until.filter(|until| *until < shown.height).map(|_| *sequence);
        let sequences: Vec<u64> = shown.open.iter().filter_map(over).take(JOBS_PER_CLAIM_MAX).collect();
        let pay = PayClaims {
            lease,
            provider,
            sequences,
        };
        Steps {
            claim,
            pay: (!pay.sequences.is_empty()).then_some(pay),
        }
    }

    /// The ledger took a claim of this lease.
    pub fn accepted(&mut self, lease: LeaseId) {
        if let Some(lane) = self.lanes.get_mut(&lease) {
            lane.claim_jobs = JOBS_PER_CLAIM_MAX as u32;
        }
    }

    /// The ledger refused a claim for what is in it: the next one is half as long; a single job is given up, and
    /// returned.
    pub fn refused(&mut self, claim: &Claim) -> Option<Receipt> {
        let lane = self.lanes.get_mut(&claim.lease)?;
        let sequences: Vec<u64> = claimed(claim).collect();
        if let [single] = sequences[..] {
            self.revision += 1;
            return lane.forget(single);
        }
        lane.claim_jobs = u32::try_from(sequences.len() / 2).unwrap_or(1).max(1);
        None
    }
}

/// Sequences that a claim names, ascending.
pub fn claimed(claim: &Claim) -> impl Iterator<Item = u64> {
    let tickets = claim.batches.iter().flat_map(|batch| &batch.tickets);
    tickets.filter_map(|ticket| match ticket {
        BatchTicket::Claimed(job) => Some(job.ticket.sequence),
        BatchTicket::Other(_) => None,
    })
}

impl Shown<'_> {
    /// What is not claimed while the lease drains, or within the window of a job that was opened, is lost.
    fn presses(&self, sequence: u64) -> bool {
        matches!(self.lease, LeaseState::Draining { .. }) || self.pressing.contains(&sequence)
    }

    fn is_done(&self, sequence: u64) -> bool {
        let taken = self.lane.is_some_and(|lane| lane.has_taken(sequence));
        taken && !self.open.contains_key(&sequence)
    }
}

impl Patience {
    fn is_over(&self, since_ms: u64) -> bool {
        since_ms.saturating_add(self.claim_after_ms) <= self.now_ms
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            jobs: BTreeMap::new(),
            batches: BTreeMap::new(),
            next_batch: 0,
            claim_jobs: JOBS_PER_CLAIM_MAX as u32,
        }
    }
}

impl Lane {
    /// Each ticket counts in the first batch that covered it.
    fn keep(&mut self, payer: PublicKey, signature: Signature, members: Vec<(u64, Digest)>) {
        let number = self.next_batch;
        let mut unpaid = 0;
        for (sequence, _) in &members {
            if let Some(paper) = self.jobs.get_mut(sequence).filter(|paper| paper.batch.is_none()) {
                paper.batch = Some(number);
                unpaid += 1;
            }
        }
        if unpaid > 0 {
            self.next_batch += 1;
            self.batches.insert(
                number,
                Batch {
                    payer,
                    signature,
                    members,
                    unpaid,
                },
            );
        }
    }

    fn forget(&mut self, sequence: u64) -> Option<Receipt> {
        let paper = self.jobs.remove(&sequence)?;
        if let Some(number) = paper.batch
            && let Some(batch) = self.batches.get_mut(&number)
        {
            batch.unpaid -= 1;
            if batch.unpaid == 0 {
                self.batches.remove(&number);
            }
        }
        Some(paper.receipt)
    }

    /// How many they were.
    fn forget_done(&mut self, shown: &Shown) -> usize {
        let done: Vec<u64> = self
            .jobs
            .keys()
            .copied()
            .filter(|sequence| shown.is_done(*sequence))
            .collect();
        done.iter().filter_map(|sequence| self.forget(*sequence)).count()
    }

    /// How many they were.
    fn forget_unsealed(&mut self, now_ms: u64) -> usize {
        let is_old = |paper: &Paper| paper.ran_at_ms.saturating_add(UNSEALED_KEPT_MS) <= now_ms;
        let unsealed = self.jobs.iter().filter(|(_, paper)| paper.batch.is_none());
        let old: Vec<u64> = unsealed
            .filter(|(_, paper)| is_old(paper))
            .map(|(sequence, _)| *sequence)
            .collect();
        old.iter().filter_map(|sequence| self.forget(*sequence)).count()
    }

    /// Sequences ascend with time, near enough.
    fn since_ms(&self) -> Option<u64> {
        self.jobs.first_key_value().map(|(_, paper)| paper.ran_at_ms)
    }

    /// Of sealed jobs, lowest sequences first; `None` where there is none. Without acks: a provider has none. Sequences
    /// ascend from batch to batch: what lies across waits for the next claim.
    fn claim(&self, lease: LeaseId, is_wanted: impl Fn(u64, &Paper) -> bool) -> Option<Claim> {
        let mut batches: Vec<&Batch> = self.batches.values().collect();
        batches.sort_by_key(|batch| batch.members.iter().map(|(sequence, _)| *sequence).min());
        let (mut picked, mut leaves, mut shown) = (Vec::new(), 0, Vec::new());
        for batch in batches {
            let before = picked.len();
            let fits = leaves + batch.members.len() <= JOBS_PER_SETTLEMENT_MAX as usize;
            if !fits || shown.len() == TICKET_BATCHES_PER_CLAIM_MAX {
                continue;
            }
            for (sequence, _) in &batch.members {
                let room = picked.len() < self.claim_jobs as usize && picked.last() < Some(sequence);
                if room && self.jobs.get(sequence).is_some_and(|paper| is_wanted(*sequence, paper)) {
                    picked.push(*sequence);
                }
            }
            if picked.len() > before {
                leaves += batch.members.len();
                shown.push(self.show(batch, &picked[before..]));
            }
        }
        (!shown.is_empty()).then_some(Claim {
            lease,
            batches: shown,
            acks: None,
        })
    }

    fn show(&self, batch: &Batch, picked: &[u64]) -> TicketBatch {
        let ticket = |(sequence, leaf): &(u64, Digest)| match self.jobs.get(sequence) {
            Some(paper) if picked.binary_search(sequence).is_ok() => BatchTicket::Claimed(Box::new(paper.claimed())),
            Some(_) | None => BatchTicket::Other(*leaf),
        };
        TicketBatch {
            payer: batch.payer,
            signature: batch.signature,
            tickets: batch.members.iter().map(ticket).collect(),
        }
    }
}

impl Paper {
    fn claimed(&self) -> ClaimedJob {
        ClaimedJob {
            ticket: self.ticket.clone(),
            metered: Metered {
                output: self.receipt.output,
                status: self.receipt.status,
                counters: self.receipt.counters,
                price_ucr: self.receipt.price_ucr,
                duration_us: self.receipt.duration_us,
            },
            received_at_ms: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use piecework_model::{Counters, JobStatus};

    use super::*;
    use crate::orders::{NETWORK, order, payer};

    const WAITS: Patience = Patience {
        now_ms: 5_000,
        claim_after_ms: 5_000,
    };

    fn lane() -> (LeaseId, AccountId) {
        let ticket = order(0).ticket;
        (ticket.lease, ticket.provider)
    }

    fn ran(papers: &mut Papers, sequences: &[u64], at_ms: u64) {
        for sequence in sequences {
            let ticket = order(*sequence).ticket;
            let receipt = Receipt {
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
            };
            papers.ran(&ticket, payer().public(), None, &receipt, at_ms);
        }
    }

    fn seal(sequences: &[u64]) -> Seal {
        let leaf = |sequence: &u64| order(*sequence).ticket.leaf();
        let leaves: Vec<Digest> = sequences.iter().map(leaf).collect();
        Seal::sign(&payer(), Domain::Tickets, &NETWORK, lane(), &leaves)
    }

    fn sealed(papers: &mut Papers, sequences: &[u64]) {
        papers.sealed(&seal(sequences), sequences, &NETWORK);
    }

    fn shown(lane: Option<&piecework_ledger::Lane>) -> Shown<'_> {
        Shown {
            height: 10,
            lease: LeaseState::Open,
            lane,
            open: BTreeMap::new(),
            pressing: BTreeSet::new(),
        }
    }

    fn taken(intervals: &[(u64, u64)]) -> piecework_ledger::Lane {
        piecework_ledger::Lane {
            taken: intervals.to_vec(),
            ..Default::default()
        }
    }

    fn claims(papers: &mut Papers, shown: &Shown, patience: Patience) -> Vec<u64> {
        let steps = papers.next(lane(), shown, patience);
        steps.claim.iter().flat_map(claimed).collect()
    }

    #[test]
    fn what_ran_under_a_seal_and_is_not_paid_is_claimed() {
        let mut papers = Papers::default();
        ran(&mut papers, &[0, 1, 2, 5, 6], 0);
        assert_eq!(claims(&mut papers, &shown(None), WAITS), [0; 0], "nothing is sealed");
        sealed(&mut papers, &[5, 6]);
        sealed(&mut papers, &[0, 1]);
        let owed = Owed {
            jobs: 5,
            price_ucr: 5,
            sealed_jobs: 4,
        };
        assert_eq!(papers.owed(), owed);
        assert_eq!(claims(&mut papers, &shown(None), WAITS), [0, 1, 5, 6]);
        let paid = taken(&[(0, 1), (6, 7)]);
        let steps = papers.next(lane(), &shown(Some(&paid)), WAITS);
        let claim = steps.claim.expect("two are left");
        assert_eq!(claimed(&claim).collect::<Vec<_>>(), [1, 5]);
        assert!(matches!(claim.batches[0].tickets[0], BatchTicket::Other(_)));
        let all = taken(&[(0, 7)]);
        assert_eq!(papers.next(lane(), &shown(Some(&all)), WAITS), Steps::default());
        assert_eq!(papers.leases(), []);
    }

    #[test]
    fn a_payer_is_waited_for_unless_its_lease_drains() {
        let mut papers = Papers::default();
        ran(&mut papers, &[0], 1);
        sealed(&mut papers, &[0]);
        assert_eq!(
            claims(&mut papers, &shown(None), WAITS),
            [0; 0],
            "a millisecond is missing"
        );
        let mut drains = shown(None);
        drains.lease = LeaseState::Draining { until_height: 12 };
        assert_eq!(claims(&mut papers, &drains, WAITS), [0]);
        drains.lease = LeaseState::Closed;
        assert_eq!(claims(&mut papers, &drains, WAITS), [0; 0]);
        assert_eq!(papers.leases(), [], "nothing is to be had of a closed lease");
    }

    #[test]
    fn a_job_that_was_opened_is_claimed_before_its_payer_may_release_it() {
        let mut papers = Papers::default();
        ran(&mut papers, &[0, 1], 1);
        sealed(&mut papers, &[0, 1]);
        let lane_record = taken(&[(0, 2)]);
        let mut view = shown(Some(&lane_record));
        view.open = BTreeMap::from([(0, None), (1, None)]);
        assert_eq!(claims(&mut papers, &view, WAITS), [0; 0], "the payer has time");
        view.pressing = BTreeSet::from([1]);
        assert_eq!(claims(&mut papers, &view, WAITS), [1]);
    }

    #[test]
    fn a_claim_is_paid_when_its_window_is_over_and_not_made_twice() {
        let mut papers = Papers::default();
        ran(&mut papers, &[0, 1, 2], 0);
        sealed(&mut papers, &[0, 1, 2]);
        let lane_record = taken(&[(0, 3)]);
        let mut view = shown(Some(&lane_record));
        view.open = BTreeMap::from([(0, Some(9)), (1, Some(10)), (2, None)]);
        let steps = papers.next(lane(), &view, WAITS);
        assert_eq!(
            steps.claim.iter().flat_map(claimed).collect::<Vec<_>>(),
            [2],
            "opened, not claimed"
        );
        assert_eq!(steps.pay.expect("one is due").sequences, [0]);
    }

    #[test]
    fn one_bad_job_does_not_keep_the_others_from_being_claimed() {
        let mut papers = Papers::default();
        ran(&mut papers, &[0, 1, 2, 3], 0);
        sealed(&mut papers, &[0, 1, 2, 3]);
        for (asked, given_up) in [(4, None), (2, None), (1, Some(0))] {
            let claim = papers.next(lane(), &shown(None), WAITS).claim.expect("a claim");
            assert_eq!(claimed(&claim).count(), asked);
            assert_eq!(papers.refused(&claim).map(|receipt| receipt.sequence), given_up);
        }
        papers.accepted(lane().0);
        assert_eq!(claims(&mut papers, &shown(None), WAITS), [1, 2, 3]);
    }

    #[test]
    fn a_seal_that_does_not_verify_is_not_kept() {
        let mut papers = Papers::default();
        ran(&mut papers, &[0, 1], 0);
        papers.sealed(&seal(&[0]), &[0, 1], &NETWORK);
        papers.sealed(&seal(&[0, 1]), &[1, 0], &NETWORK);
        papers.sealed(&seal(&[0, 7]), &[0, 7], &NETWORK);
        assert_eq!(claims(&mut papers, &shown(None), WAITS), [0; 0]);
        sealed(&mut papers, &[1, 0]);
        assert_eq!(
            claims(&mut papers, &shown(None), WAITS),
            [1],
            "what is out of order waits"
        );
    }

    #[test]
    fn what_nobody_sealed_is_forgotten_after_an_hour() {
        let mut papers = Papers::default();
        ran(&mut papers, &[0, 1], 1);
        sealed(&mut papers, &[0]);
        for (now_ms, left) in [(UNSEALED_KEPT_MS, [0, 1].as_slice()), (UNSEALED_KEPT_MS + 1, &[0])] {
            let claim_after_ms = u64::MAX;
            papers.next(lane(), &shown(None), Patience { now_ms, claim_after_ms });
            assert_eq!(papers.unpaid(lane().0), left);
        }
    }

    #[test]
    fn papers_are_the_same_after_a_restart() {
        let mut papers = Papers::default();
        ran(&mut papers, &[0, 1], 0);
        sealed(&mut papers, &[0, 1]);
        let bytes = borsh::to_vec(&papers).expect("memory");
        let mut again = Papers::try_from_slice(&bytes).expect("what was written");
        let expected = papers.next(lane(), &shown(None), WAITS);
        assert_eq!(again.next(lane(), &shown(None), WAITS), expected);
    }
}
