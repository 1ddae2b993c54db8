//! How much of one provider each developer has had: weighted fair queueing of its slots.
//!
//! A developer's share is measured in slot-seconds divided by weight. The next slot goes to the one that has had the
//! least, so over any time in which calls wait, everyone whose calls wait gets at least the part of the slots that its
//! weight is of all weights. Nothing is counted while nobody waits.

use piecework_model::AccountId;

/// Counted at once for a job that begins, and taken back when it ends: slots that come free in one moment are shared
/// out, too, and do not all go to the one that has had the least until then.
const ADVANCE_S: f64 = 1.0;
/// Counted for each job on top of its time, so that jobs that take no time at all are shared out in turn.
const BEGIN_S: f64 = 1e-4;
/// The most that is held against anyone: this long of all the provider's slots. Without it, whoever filled a provider
/// with long jobs would get nothing there for as long as the others had to wait for them to end.
const DEBT_S_MAX: f64 = 60.0;
/// Below this many developers nobody is forgotten while calls wait.
const REMEMBERED: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Shares {
    /// By developer: of those with jobs here, and while calls wait also of those whose calls wait.
    stakes: Vec<Stake>,
    /// Counts the decisions.
    round: u64,
    contended: bool,
    /// So many developers are looked through for those that can be forgotten.
    crowd: usize,
}

#[derive(Debug)]
struct Stake {
    developer: AccountId,
    weight: f64,
    running: u32,
    /// Slot-seconds by weight since calls began to wait here, up to `at_us`.
    used_s: f64,
    at_us: u64,
    /// The last decision in which its calls waited.
    waited: u64,
    /// The last decision that it was given a slot in.
    served: u64,
}

impl Stake {
    fn settle(&mut self, now_us: u64) {
        let passed_us = now_us.saturating_sub(self.at_us);
        self.used_s += f64::from(self.running) * passed_us as f64 / 1e6 / self.weight;
        self.at_us = self.at_us.max(now_us);
    }

    fn turn(&self) -> f64 {
        self.used_s + f64::from(self.running) * ADVANCE_S / self.weight
    }
}

impl Shares {
    fn place(&self, developer: AccountId) -> Result<usize, usize> {
        self.stakes.binary_search_by_key(&developer, |stake| stake.developer)
    }

    fn stake(&mut self, developer: AccountId, weight: u32, now_us: u64) -> &mut Stake {
        let weight = f64::from(weight.max(1));
        let index = self.place(developer).unwrap_or_else(|index| {
            let stake = Stake {
                developer,
                weight,
                running: 0,
                used_s: 0.0,
                at_us: now_us,
                waited: 0,
                served: 0,
            };
            self.stakes.insert(index, stake);
            index
        });
        let stake = &mut self.stakes[index];
        stake.settle(now_us);
        stake.weight = weight;
        stake
    }

    /// Jobs of the developer that run here.
    pub(super) fn running(&self, developer: AccountId) -> u32 {
        self.place(developer).map_or(0, |index| self.stakes[index].running)
    }

    pub(super) fn begin(&mut self, developer: AccountId, weight: u32, now_us: u64) {
        let round = self.round;
        let stake = self.stake(developer, weight, now_us);
        stake.running += 1;
        stake.used_s += BEGIN_S / stake.weight;
        stake.served = round;
    }

    pub(super) fn end(&mut self, developer: AccountId, now_us: u64) {
        let index = self.place(developer).expect("a job that ends has begun");
        let stake = &mut self.stakes[index];
        stake.settle(now_us);
        stake.running -= 1;
        if stake.running == 0 && !self.contended {
            self.stakes.remove(index);
        }
    }

    /// Nobody waits for this provider.
    pub(super) fn calm(&mut self) {
        if std::mem::take(&mut self.contended) {
            self.stakes.retain(|stake| stake.running > 0);
        }
    }

    /// Whose call gets the next of `slots` slots, among developers that have one waiting, each with its weight; an index
    /// of `waiting`, which is not empty.
    pub(super) fn next(
        &mut self,
        waiting: impl Iterator<Item = (AccountId, u32)> + Clone,
        slots: u32,
        now_us: u64,
    ) -> usize {
        self.round += 1;
        if !std::mem::replace(&mut self.contended, true) {
            for stake in &mut self.stakes {
                (stake.used_s, stake.at_us) = (0.0, now_us);
            }
        }
        let floor = self.floor(waiting.clone(), now_us);
        let round = self.round;
        let mut first: Option<(f64, u64, usize)> = None;
        for (index, (developer, weight)) in waiting.enumerate() {
            let stake = self.stake(developer, weight, now_us);
            if stake.waited + 1 != round {
                // It was away: that is no credit.
                stake.used_s = stake.used_s.max(floor);
            }
            stake.used_s = stake.used_s.min(floor + DEBT_S_MAX * f64::from(slots) / stake.weight);
            stake.waited = round;
            let turn = (stake.turn(), stake.served, index);
            if first.is_none_or(|first| (turn.0, turn.1) < (first.0, first.1)) {
                first = Some(turn);
            }
        }
        self.forget(floor);
        first.expect("somebody waits").2
    }

    /// Drops developers that are gone and have had no more than those that wait.
    fn forget(&mut self, floor: f64) {
        if self.stakes.len() <= self.crowd.max(REMEMBERED) {
            return;
        }
        let round = self.round;
        self.stakes
            .retain(|stake| stake.running > 0 || stake.waited == round || stake.used_s > floor);
        self.crowd = 2 * self.stakes.len();
    }

    /// The least that anybody has had who waited at the last decision, too; where there is none, that anybody has had.
    fn floor(&mut self, waiting: impl Iterator<Item = (AccountId, u32)>, now_us: u64) -> f64 {
        let (mut steady, mut any) = (f64::INFINITY, f64::INFINITY);
        let round = self.round;
        for (developer, weight) in waiting {
            let stake = self.stake(developer, weight, now_us);
            any = any.min(stake.used_s);
            if stake.waited + 1 == round {
                steady = steady.min(stake.used_s);
            }
        }
        if steady.is_finite() { steady } else { any }
    }

    #[cfg(test)]
    pub(super) fn is_clear(&self) -> bool {
        self.stakes.iter().all(|stake| stake.running == 0)
    }
}
