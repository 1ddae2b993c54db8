//! Orders per lane: no sequence runs twice, and unsealed work stays within the exposure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::Path,
};

use parking_lot::Mutex;
use piecework_model::{Code, Digest, Domain, LeaseId, NetworkId, PublicKey, Receipt, Rejection, Seal, Ticket};
use piecework_queue::{Order, Refusal};

use crate::journal::{Begun, Journal};

/// The lanes of one provider, by lease.
#[derive(Default)]
pub struct Lanes {
    lanes: Mutex<HashMap<LeaseId, Lane>>,
    /// Without one nothing is remembered over a restart.
    journal: Option<Journal>,
}

#[derive(Default)]
struct Lane {
    payer: PublicKey,
    /// Every sequence below has been begun (or given up).
    begun_below: u64,
    begun_above: BTreeSet<u64>,
    unsealed: BTreeMap<u64, Stake>,
    at_stake_ucr: u64,
}

struct Stake {
    leaf: Digest,
    amount_ucr: u64,
}

/// Gaps that a lane remembers: a controller that crashed leaves one of some thousand sequences, never to be used.
const GAPS_MAX: usize = 4_096;

impl Lane {
    fn has_begun(&self, sequence: u64) -> bool {
        sequence < self.begun_below || self.begun_above.contains(&sequence)
    }

    /// Begun, and nothing of it waits for a seal.
    fn is_settled(&self, sequence: u64) -> bool {
        self.has_begun(sequence) && !self.unsealed.contains_key(&sequence)
    }

    fn begun(&self, lease: LeaseId) -> Vec<Begun> {
        let above = self.begun_above.iter().map(|sequence| Begun::One(lease, *sequence));
        std::iter::once(Begun::AllBelow(lease, self.begun_below))
            .chain(above)
            .collect()
    }

    fn mark_begun(&mut self, sequence: u64) {
        self.begun_above.insert(sequence);
        while self.begun_above.remove(&self.begun_below) {
            self.begun_below += 1;
        }
        if self.begun_above.len() > GAPS_MAX {
            self.begun_below = self.begun_above.pop_first().expect("the set is not empty") + 1;
        }
    }

    fn put_at_stake(&mut self, sequence: u64, leaf: Digest, amount_ucr: u64) {
        self.at_stake_ucr = self.at_stake_ucr.saturating_add(amount_ucr);
        self.unsealed.insert(sequence, Stake { leaf, amount_ucr });
    }
}

fn all_begun(lanes: &HashMap<LeaseId, Lane>) -> Vec<Begun> {
    lanes.iter().flat_map(|(lease, lane)| lane.begun(*lease)).collect()
}

impl Lanes {
    /// Lanes that remember in the file at `path` what was begun.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut lanes: HashMap<LeaseId, Lane> = HashMap::new();
        let journal = Journal::open(path, |begun| {
            for begun in begun {
                match begun {
                    Begun::One(lease, sequence) => lanes.entry(lease).or_default().mark_begun(sequence),
                    Begun::AllBelow(lease, sequence) => lanes.entry(lease).or_default().begun_below = sequence,
                }
            }
            all_begun(&lanes)
        })?;
        Ok(Self {
            lanes: Mutex::new(lanes),
            journal: Some(journal),
        })
    }

    /// What a restart leaves of them: what was begun stays so, and nothing is at stake.
    pub fn restarted(&self) -> Self {
        let lane = |lane: &Lane| Lane {
            payer: lane.payer,
            begun_below: lane.begun_below,
            begun_above: lane.begun_above.clone(),
            ..Lane::default()
        };
        let lanes = self.lanes.lock();
        Self {
            lanes: Mutex::new(lanes.iter().map(|(lease, known)| (*lease, lane(known))).collect()),
            journal: None,
        }
    }

    /// Marks the sequence as begun. Rejects `ticket.replayed`, and `ticket.unsealed` where too much would be at stake.
    pub fn begin(&self, order: &Order) -> Result<(), Refusal> {
        let ticket = &order.ticket;
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(ticket.lease).or_default();
        lane.payer = order.payer;
        if lane.has_begun(ticket.sequence) {
            return Err(Rejection::new(Code::TicketReplayed, "this sequence has already run"));
        }
        let at_stake_ucr = lane.at_stake_ucr.saturating_add(ticket.price_max_ucr);
        if order.seal.is_none() && at_stake_ucr > order.exposure_ucr {
            return Err(Rejection::new(
                Code::TicketUnsealed,
                "too much work is unsealed in this lane; seal finished jobs first",
            ));
        }
        if let Some(journal) = &self.journal {
            journal.note(ticket.lease, ticket.sequence)?;
        }
        if order.seal.is_none() {
            lane.put_at_stake(ticket.sequence, ticket.leaf(), ticket.price_max_ucr);
        }
        lane.mark_begun(ticket.sequence);
        if let Some(journal) = self.journal.as_ref().filter(|journal| journal.is_long())
            && let Err(error) = journal.shorten(all_begun(&lanes))
        {
            tracing::warn!(%error, "compacting the journal of begun jobs failed; it keeps growing");
        }
        Ok(())
    }

    /// The job could not begin after all: nothing of it is at stake, and its sequence stays used.
    pub fn refused(&self, ticket: &Ticket) {
        let mut lanes = self.lanes.lock();
        if let Some(lane) = lanes.get_mut(&ticket.lease)
            && let Some(stake) = lane.unsealed.remove(&ticket.sequence)
        {
            lane.at_stake_ucr = lane.at_stake_ucr.saturating_sub(stake.amount_ucr);
        }
    }

    /// From here on the job's price is at stake, no longer its maximum.
    pub fn finish(&self, receipt: &Receipt) {
        let mut lanes = self.lanes.lock();
        let Some(lane) = lanes.get_mut(&receipt.lease) else {
            return;
        };
        if let Some(stake) = lane.unsealed.get_mut(&receipt.sequence) {
            lane.at_stake_ucr = lane
                .at_stake_ucr
                .saturating_sub(stake.amount_ucr)
                .saturating_add(receipt.price_ucr);
            stake.amount_ucr = receipt.price_ucr;
        }
    }

    /// Takes the payer's seal over the tickets of these sequences, in this order. Rejects `ticket.bad_seal`.
    pub fn accept_seal(&self, seal: &Seal, sequences: &[u64], network: &NetworkId) -> Result<(), Refusal> {
        let bad = |message: &str| Rejection::new(Code::TicketBadSeal, message);
        let mut lanes = self.lanes.lock();
        let lane = lanes
            .get_mut(&seal.lease)
            .ok_or_else(|| bad("nothing was ordered in this lane"))?;
        if sequences.iter().all(|sequence| lane.is_settled(*sequence)) {
            return Ok(()); // asked again after a cut, or of an earlier run: nothing of it is at stake here
        }
        let leaves: Option<Vec<Digest>> = sequences
            .iter()
            .map(|sequence| lane.unsealed.get(sequence).map(|stake| stake.leaf))
            .collect();
        let leaves = leaves.ok_or_else(|| bad("a sequence is not waiting for a seal"))?;
        seal.verify(&lane.payer, Domain::Tickets, network, &leaves)
            .map_err(|_| bad("the seal does not verify"))?;
        for sequence in sequences {
            if let Some(stake) = lane.unsealed.remove(sequence) {
                lane.at_stake_ucr = lane.at_stake_ucr.saturating_sub(stake.amount_ucr);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use piecework_model::SecretKey;

    use super::*;
    use crate::orders::{NETWORK, order, payer};

    fn seal(key: &SecretKey, sequences: &[u64]) -> Seal {
        let leaves: Vec<_> = sequences
            .iter()
            .map(|sequence| order(*sequence).ticket.leaf())
            .collect();
        let ticket = order(0).ticket;
        Seal::sign(key, Domain::Tickets, &NETWORK, (ticket.lease, ticket.provider), &leaves)
    }

    /// `None` if it began.
    fn code(result: Result<(), Refusal>) -> Option<Code> {
        result.err()?.code.known()
    }

    #[test]
    fn a_sequence_runs_once_in_whatever_order_they_come() {
        let lanes = Lanes::default();
        for sequence in [3, 0] {
            assert_eq!(code(lanes.begin(&order(sequence))), None);
            assert_eq!(code(lanes.begin(&order(sequence))), Some(Code::TicketReplayed));
        }
    }

    #[test]
    fn what_was_begun_is_not_begun_again_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("begun");
        for (_, sequence) in [("the first run", 0), ("the second", 2)] {
            let lanes = Lanes::open(&path).expect("opens");
            assert_eq!(code(lanes.begin(&order(sequence))), None);
        }
        let lanes = Lanes::open(&path).expect("opens");
        for (sequence, expected) in [
            (0, Some(Code::TicketReplayed)),
            (2, Some(Code::TicketReplayed)),
            (1, None),
        ] {
            assert_eq!(code(lanes.begin(&order(sequence))), expected);
        }
    }

    #[test]
    fn a_seal_may_come_twice_and_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("begun");
        let lanes = Lanes::open(&path).expect("opens");
        lanes.begin(&order(0)).expect("it fits");
        for _ in 0..2 {
            lanes
                .accept_seal(&seal(&payer(), &[0]), &[0], &NETWORK)
                .expect("a good seal");
        }
        let lanes = Lanes::open(&path).expect("opens");
        lanes
            .accept_seal(&seal(&payer(), &[0]), &[0], &NETWORK)
            .expect("a seal of an earlier run");
        assert_eq!(
            code(lanes.accept_seal(&seal(&payer(), &[1]), &[1], &NETWORK)),
            Some(Code::TicketBadSeal)
        );
    }

    #[test]
    fn what_is_unsealed_never_exceeds_the_exposure() {
        let lanes = Lanes::default();
        assert_eq!(code(lanes.begin(&order(0))), None);
        assert_eq!(code(lanes.begin(&order(1))), None);
        assert_eq!(
            code(lanes.begin(&order(2))),
            Some(Code::TicketUnsealed),
            "3 x 1000 ucr are above 2500"
        );
        lanes
            .accept_seal(&seal(&payer(), &[1]), &[1], &NETWORK)
            .expect("a good seal");
        assert_eq!(code(lanes.begin(&order(2))), None);
        assert_eq!(code(lanes.begin(&order(3))), Some(Code::TicketUnsealed));
    }

    #[test]
    fn a_job_that_could_not_begin_has_nothing_at_stake() {
        let lanes = Lanes::default();
        for sequence in 0..10 {
            assert_eq!(code(lanes.begin(&order(sequence))), None);
            lanes.refused(&order(sequence).ticket);
        }
        assert_eq!(code(lanes.begin(&order(0))), Some(Code::TicketReplayed));
    }

    #[test]
    fn a_seal_counts_only_if_it_is_the_payers_over_these_tickets() {
        let lanes = Lanes::default();
        lanes.begin(&order(0)).expect("it fits");
        let stranger = SecretKey::from_seed([8; 32]);
        for (seal, sequences) in [
            (seal(&stranger, &[0]), [0]),
            (seal(&payer(), &[1]), [0]),
            (seal(&payer(), &[0]), [1]),
        ] {
            assert_eq!(
                code(lanes.accept_seal(&seal, &sequences, &NETWORK)),
                Some(Code::TicketBadSeal)
            );
        }
        lanes
            .accept_seal(&seal(&payer(), &[0]), &[0], &NETWORK)
            .expect("a good seal");
    }
}
