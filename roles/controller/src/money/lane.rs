//! The tickets of one lane: their numbers, and what of them is not under a seal yet.

use std::collections::BTreeMap;

use piecework_model::Digest;

/// A seal's batch; its Merkle tree costs microseconds.
const SEAL_TICKETS_MAX: usize = 1_000;

/// Tickets of one lease to one provider.
#[derive(Default)]
pub struct LaneState {
    next: u64,
    /// Sequences below are reserved durably: never given out again after a crash.
    reserved_to: u64,
    /// What runs or has run without a seal over its ticket. In order: seals are the same wherever they are made again.
    unsealed: BTreeMap<u64, Unsealed>,
    /// Under a seal that the provider has not confirmed yet.
    sealing: BTreeMap<u64, Unsealed>,
    /// Batches whose seal may not have arrived. They are sealed again as they were: the provider may have half of the story.
    lost: Vec<Vec<(u64, Digest)>>,
    at_stake_ucr: u64,
}

struct Unsealed {
    leaf: Digest,
    amount_ucr: u64,
    finished: bool,
}

impl LaneState {
    /// Begins with `start`, below which earlier runs may have given out any number.
    pub fn from(start: u64) -> Self {
        Self {
            next: start,
            reserved_to: start,
            ..Self::default()
        }
    }

    /// The next number, unless more must be reserved first.
    pub fn take(&mut self) -> Option<u64> {
        (self.next < self.reserved_to).then(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// Where the reserved numbers end, if all of them are given out.
    pub fn exhausted_at(&self) -> Option<u64> {
        (self.next == self.reserved_to).then_some(self.reserved_to)
    }

    /// Numbers below `up_to` are durably reserved from now on.
    pub fn reserve_to(&mut self, up_to: u64) {
        self.reserved_to = up_to;
    }

    /// Whether a ticket of this price may go without a seal of its own; if so it is at stake from now on.
    pub fn stake(&mut self, sequence: u64, leaf: Digest, price_max_ucr: u64, exposure_ucr: u64) -> bool {
        if self.at_stake_ucr.saturating_add(price_max_ucr) > exposure_ucr {
            return false;
        }
        self.at_stake_ucr += price_max_ucr;
        self.unsealed.insert(
            sequence,
            Unsealed {
                leaf,
                amount_ucr: price_max_ucr,
                finished: false,
            },
        );
        true
    }

    /// The job ended at this price; the provider has begun it, so its ticket can be sealed.
    pub fn ran(&mut self, sequence: u64, price_ucr: u64) {
        let Some(ticket) = self.unsealed.get_mut(&sequence) else {
            return;
        };
        let before = std::mem::replace(&mut ticket.amount_ucr, price_ucr);
        ticket.finished = true;
        self.at_stake_ucr = self.at_stake_ucr.saturating_sub(before).saturating_add(price_ucr);
    }

    /// The provider refused to begin: the ticket binds nobody.
    pub fn refused(&mut self, sequence: u64) {
        if let Some(ticket) = self.unsealed.remove(&sequence) {
            self.at_stake_ucr = self.at_stake_ucr.saturating_sub(ticket.amount_ucr);
        }
    }

    /// Takes what has run for a seal, if more than `above_ucr` are at stake. Each batch ends with [`LaneState::sealed`] or
    /// [`LaneState::not_sealed`].
    pub fn take_finished(&mut self, above_ucr: u64) -> Vec<(u64, Digest)> {
        if self.at_stake_ucr <= above_ucr {
            return Vec::new();
        }
        if let Some(batch) = self.lost.pop() {
            return batch;
        }
        let finished = self
            .unsealed
            .iter()
            .filter(|(_, ticket)| ticket.finished)
            .take(SEAL_TICKETS_MAX);
        let batch: Vec<(u64, Digest)> = finished.map(|(sequence, ticket)| (*sequence, ticket.leaf)).collect();
        for (sequence, _) in &batch {
            self.sealing.extend(self.unsealed.remove_entry(sequence));
        }
        batch
    }

    /// The provider has the seal over these.
    pub fn sealed(&mut self, sequences: &[u64]) {
        for ticket in sequences.iter().filter_map(|sequence| self.sealing.remove(sequence)) {
            self.at_stake_ucr = self.at_stake_ucr.saturating_sub(ticket.amount_ucr);
        }
    }

    /// The seal may not have arrived: the batch comes again.
    pub fn not_sealed(&mut self, batch: Vec<(u64, Digest)>) {
        self.lost.push(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unsealed_stays_within_the_exposure_until_a_seal_takes_it() {
        let mut lane = LaneState::from(7);
        assert_eq!((lane.take(), lane.exhausted_at()), (None, Some(7)));
        lane.reserve_to(9);
        assert_eq!((lane.take(), lane.take(), lane.take()), (Some(7), Some(8), None));
        assert!(lane.stake(7, Digest::of(b"7"), 60, 100));
        assert!(!lane.stake(8, Digest::of(b"8"), 60, 100));
        lane.ran(7, 10);
        assert!(lane.stake(8, Digest::of(b"8"), 60, 100));
        assert_eq!(lane.take_finished(0), [(7, Digest::of(b"7"))]);
        assert!(!lane.stake(9, Digest::of(b"9"), 40, 100), "the seal is under way");
        lane.sealed(&[7]);
        assert!(lane.stake(9, Digest::of(b"9"), 40, 100));
        lane.refused(8);
        lane.refused(9);
        assert!(lane.stake(9, Digest::of(b"9"), 100, 100));
    }

    #[test]
    fn what_was_under_a_seal_that_got_lost_is_sealed_again() {
        let mut lane = LaneState::from(0);
        assert!(lane.stake(0, Digest::of(b"0"), 60, 100));
        lane.ran(0, 10);
        let batch = lane.take_finished(0);
        assert_eq!(lane.take_finished(0), [], "it is under way");
        assert!(lane.stake(1, Digest::of(b"1"), 60, 100));
        lane.ran(1, 10);
        lane.not_sealed(batch.clone());
        assert_eq!(lane.take_finished(0), batch, "as it was");
        lane.sealed(&[0]);
        assert_eq!(lane.take_finished(0), [(1, Digest::of(b"1"))]);
    }
}
