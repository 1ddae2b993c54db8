//! Claims in random histories: made, settled over, refuted, paid.

use piecework_model::{Code, LeaseId};
use proptest::prelude::*;

use super::{
    super::{
        claims::{claim_of, other_receipt, pay_lane, receipt},
        world::*,
    },
    Jobs, Oracle, PROVIDERS, honest,
};
use crate::*;

#[derive(Clone, Debug)]
pub enum ClaimOp {
    /// Sequences, and whether an ack is there.
    Claim(Vec<(u64, bool)>),
    Pay(Vec<u64>),
    /// By another receipt that the provider sealed.
    Refute(u64),
}

pub fn claim_op() -> impl Strategy<Value = ClaimOp> {
    prop_oneof![
        3 => prop::collection::btree_map(0u64..40, any::<bool>(), 1..5)
            .prop_map(|jobs| ClaimOp::Claim(jobs.into_iter().collect())),
        3 => prop::collection::btree_set(0u64..40, 1..20).prop_map(|jobs| ClaimOp::Pay(jobs.into_iter().collect())),
        1 => (0u64..40).prop_map(ClaimOp::Refute),
    ]
}

impl Oracle {
    pub fn claim_step(&mut self, lease: u8, lane: bool, op: &ClaimOp) {
        let (nth, provider) = (self.nth(lease), PROVIDERS[usize::from(lane)]);
        match op {
            ClaimOp::Claim(jobs) => self.claim(nth, provider, jobs),
            ClaimOp::Pay(sequences) => self.pay_claims(nth, provider, sequences),
            ClaimOp::Refute(sequence) => self.refute(nth, provider, *sequence),
        }
    }

    /// One whose window is open.
    pub fn some_claim(&self, lease: LeaseId) -> Option<(Who, u64)> {
        let lease = self.leases.iter().find(|known| known.id == lease)?;
        let open = |until: Option<u64>| until >= Some(self.next_height());
        let claimed = lease.jobs.iter().find(|(_, known)| open(known.claimed_until));
        claimed.map(|(place, _)| *place)
    }

    fn claim(&mut self, nth: usize, provider: Who, claimed: &[(u64, bool)]) {
        let until = self.next_height() + u64::from(WINDOW);
        let mut after: Jobs = self.leases[nth].jobs.clone();
        for (sequence, ack) in claimed {
            let known = after.entry((provider, *sequence)).or_default();
            if !known.is_done() && known.claimed_until.is_none() {
                (known.receipt, known.claimed_until) = (true, Some(until));
                known.ack |= ack;
            }
        }
        let jobs: Vec<Job> = claimed
            .iter()
            .map(|(sequence, ack)| Job {
                ack: *ack,
                ..honest(*sequence)
            })
            .collect();
        let expect = self.settlement_expectation(nth, &after);
        let claim = claim_of(&self.world, self.leases[nth].id, provider, &[&jobs]);
        self.send(provider, Action::Claim(claim), expect);
        if expect.is_ok() {
            self.leases[nth].jobs = after;
        }
    }

    fn pay_claims(&mut self, nth: usize, provider: Who, sequences: &[u64]) {
        let height = self.next_height();
        let lease = &self.leases[nth];
        let until = |sequence: &u64| lease.jobs.get(&(provider, *sequence))?.claimed_until;
        let windows: Vec<u64> = sequences.iter().filter_map(until).collect();
        let expect = match (lease.closed, windows.iter().max()) {
            (true, _) => Err(Code::LeaseClosed),
            (false, None) => Err(Code::ClaimNone),
            (false, Some(last)) if height <= *last => Err(Code::ClaimNotDue),
            (false, Some(_)) => Ok(()),
        };
        let action = pay_lane(lease.id, provider, sequences);
        let events = self.send(Who::Stranger, action, expect);
        assert_eq!(paid(&events).len(), if expect.is_ok() { windows.len() } else { 0 });
        if expect.is_ok() {
            for sequence in sequences {
                if let Some(known) = self.leases[nth].jobs.get_mut(&(provider, *sequence)) {
                    known.paid |= known.claimed_until.take().is_some();
                }
            }
        }
    }

    fn refute(&mut self, nth: usize, provider: Who, sequence: u64) {
        let (height, lease) = (self.next_height(), self.leases[nth].id);
        let known = self.leases[nth].jobs.get(&(provider, sequence)).copied();
        let expect = match known.and_then(|known| known.claimed_until) {
            None => Err(Code::ClaimNone),
            Some(until) if until < height => Err(Code::ClaimTooLate),
            Some(_) => Ok(()),
        };
        let says_else = receipt(lease, provider, &job(sequence, 1));
        let challenge = other_receipt(&self.world, (lease, provider), sequence, says_else, provider);
        self.send(Who::Controller, Action::Challenge(challenge), expect);
        if expect.is_ok() {
            let known = self.leases[nth].jobs.entry((provider, sequence)).or_default();
            (known.refuted, known.claimed_until) = (true, None);
        }
    }
}
