//! A lane's arithmetic: which sequences it has taken, and what commission its payments owe.

use piecework_model::{Credits, Rejection};

use crate::{draft::plus, rejections::overflow, state::Lane};

/// Parts of the whole in `commission_ppm`.
const PPM: i128 = 1_000_000;

impl Lane {
    /// Whether the sequence was settled, or is open.
    pub fn has_taken(&self, sequence: u64) -> bool {
        let at = self.first_ending_after(sequence);
        self.taken.get(at).is_some_and(|(from, _)| *from <= sequence)
    }

    fn first_ending_after(&self, sequence: u64) -> usize {
        self.taken.partition_point(|(_, to)| *to <= sequence)
    }

    /// Takes a sequence below `u64::MAX` that is not taken yet, and keeps the intervals disjoint, ascending, not adjacent.
    pub(crate) fn take(&mut self, sequence: u64) {
        let at = self.first_ending_after(sequence);
        let end = sequence + 1;
        let joins_left = at > 0 && self.taken[at - 1].1 == sequence;
        let joins_right = self.taken.get(at).is_some_and(|(from, _)| *from == end);
        match (joins_left, joins_right) {
            (true, true) => self.taken[at - 1].1 = self.taken.remove(at).1,
            (true, false) => self.taken[at - 1].1 = end,
            (false, true) => self.taken[at].0 = sequence,
            (false, false) => self.taken.insert(at, (sequence, end)),
        }
    }

    /// Books one job's price; gives the commission in it, by which the lane's whole commission grows to
    /// floor(paid x ppm / 10^6). Never more than the price, nor negative where the rate was lowered meanwhile.
    pub(crate) fn pay(&mut self, price_ucr: u64, commission_ppm: u32) -> Result<u64, Rejection> {
        self.paid = plus(self.paid, price_ucr.into())?;
        self.jobs = self.jobs.saturating_add(1);
        let scaled = self
            .paid
            .0
            .checked_mul(i128::from(commission_ppm))
            .ok_or_else(overflow)?;
        let due = (scaled / PPM)
            .saturating_sub(self.commission.0)
            .clamp(0, i128::from(price_ucr));
        self.commission = plus(self.commission, Credits(due))?;
        u64::try_from(due).map_err(|_| overflow())
    }
}

/// A commission's three parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares {
    pub peers: i128,
    pub controller: i128,
    pub insurance: i128,
}

impl Shares {
    /// The parts of a lane's whole commission: of each four ucr one goes to insurance, one to peers, one to the
    /// controller, one to peers, in this order. So every part only ever grows, and the first odd ucr is insurance's.
    fn of_sum(commission: i128) -> Self {
        Self {
            peers: commission / 2,
            controller: (commission + 1) / 4,
            insurance: (commission + 3) / 4,
        }
    }

    /// What a growth of the lane's commission brings each: a difference of sums, so batching does not change it.
    pub fn between(before: Credits, after: Credits) -> Self {
        let (before, after) = (Self::of_sum(before.0), Self::of_sum(after.0));
        Self {
            peers: after.peers - before.peers,
            controller: after.controller - before.controller,
            insurance: after.insurance - before.insurance,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_intervals_hold_exactly_what_was_taken(sequences in prop::collection::vec(0u64..60, 0..80)) {
            let (mut lane, mut taken) = (Lane::default(), BTreeSet::new());
            for sequence in sequences {
                prop_assert_eq!(lane.has_taken(sequence), taken.contains(&sequence));
                if taken.insert(sequence) {
                    lane.take(sequence);
                }
                prop_assert!(lane.taken.iter().all(|(from, to)| from < to));
                prop_assert!(lane.taken.windows(2).all(|pair| pair[0].1 < pair[1].0));
            }
            let listed: Vec<u64> = lane.taken.iter().flat_map(|(from, to)| *from..*to).collect();
            prop_assert_eq!(listed, taken.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn commission_depends_on_the_sum_alone_and_every_part_only_grows(
            prices in prop::collection::vec(0u64..500, 1..60),
            ppm in 0u32..=200_000,
        ) {
            let (mut lane, mut shares) = (Lane::default(), Shares::default());
            for price in &prices {
                let before = lane.commission;
                let due = lane.pay(*price, ppm).expect("small sums");
                prop_assert!(due <= *price);
                let step = Shares::between(before, lane.commission);
                prop_assert!(step.peers >= 0 && step.controller >= 0 && step.insurance >= 0);
                prop_assert_eq!(step.peers + step.controller + step.insurance, i128::from(due));
                shares.peers += step.peers;
                shares.controller += step.controller;
                shares.insurance += step.insurance;
            }
            let sum: i128 = prices.iter().map(|price| i128::from(*price)).sum();
            prop_assert_eq!(lane.commission.0, sum * i128::from(ppm) / 1_000_000);
            prop_assert_eq!(shares, Shares::of_sum(lane.commission.0));
            prop_assert!((shares.peers - lane.commission.0 / 2).abs() <= 1);
        }
    }

    #[test]
    fn the_largest_sequence_below_the_end_can_be_taken() {
        let mut lane = Lane::default();
        lane.take(u64::MAX - 1);
        assert_eq!(lane.taken, [(u64::MAX - 1, u64::MAX)]);
        assert!(lane.has_taken(u64::MAX - 1));
    }
}
