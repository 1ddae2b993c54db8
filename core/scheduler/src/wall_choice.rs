//! Which of two walls a version's calls take: short calls stay where they start soonest, and those that compute go where they cost
//! their developer less.
//!
//! ```text
//! usual, watching --its runs compute--> usual, trying the other --dearer--> usual, looking at the other now and then
//!                                           `--cheaper--> other, looking at the usual one now and then --dearer--> usual
//! ```
//! If what the runs use changes much, the other wall is tried anew. Only what runs have cost is compared, each wall with its own last
//! runs.

use std::collections::VecDeque;

/// A wall that a version's calls can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    /// Where they go by themselves: its cold starts are the cheapest.
    Usual,
    Other,
}

/// What one run came to that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub cpu_us: u64,
    pub price_ucr: u64,
    pub duration_us: u64,
    pub cold: bool,
}

/// The middle of what some runs cost, each figure for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Middle {
    pub cpu_us: u64,
    pub price_ucr: u64,
    pub duration_us: u64,
}

/// Both walls side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    pub usual: Middle,
    pub other: Middle,
}

/// The calls go to the other of the two walls from now on, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    pub to: Wall,
    pub by: Comparison,
}

/// Half of a version's runs use at least so much CPU: below, a start costs more than another wall can save.
pub const COMPUTES_US: u64 = 5_000;
/// Runs of each wall that are remembered.
const WINDOW: usize = 15;
/// Fewer runs say nothing.
const RUNS_MIN: usize = 8;
/// Of the calls, one in so many goes to a wall that was not compared yet.
const TRIES_EVERY: u64 = 4;
/// And one in so many to the wall that was dearer, in case that has changed.
const LOOKS_EVERY: u64 = 50;
/// Warm runs that are enough to compare warm runs.
const WARM_MIN: usize = 4;
/// After so many runs those that there are have to do, warm or not.
const RUNS_ENOUGH: u32 = 24;
/// Calls until a wall that could not run a call is tried again.
const BARRED: u32 = 1_000;
/// A wall is cheaper below this share of the other's price, in percent; and quicker, of equal prices, likewise.
const CHEAPER_PERCENT: u64 = 90;
const QUICKER_PERCENT: u64 = 80;

/// The last runs in one wall.
#[derive(Clone, Debug, Default)]
struct Seen {
    last: VecDeque<Cost>,
    noted: u32,
}

/// Of one version.
#[derive(Clone, Debug)]
pub struct WallChoice {
    on: Wall,
    usual: Seen,
    other: Seen,
    /// CPU of the runs in the wall that is on, when both were compared.
    compared_us: Option<u64>,
    /// Whether the walls were compared, by this or by an earlier process.
    is_settled: bool,
    barred: u32,
}

impl Seen {
    fn note(&mut self, cost: Cost) {
        if self.last.len() == WINDOW {
            self.last.pop_front();
        }
        self.last.push_back(cost);
        self.noted = self.noted.saturating_add(1);
    }

    fn is_warm(&self) -> bool {
        self.warm() * 2 >= self.last.len()
    }

    fn warm(&self) -> usize {
        self.last.iter().filter(|cost| !cost.cold).count()
    }

    /// Of all, or of the warm ones alone; `None` of none.
    fn middle(&self, warm_alone: bool) -> Option<Middle> {
        let of = |figure: fn(&Cost) -> u64| {
            let runs = self.last.iter().filter(|cost| !(warm_alone && cost.cold));
            let mut all: Vec<u64> = runs.map(figure).collect();
            all.sort_unstable();
            all.get(all.len() / 2).copied()
        };
        Some(Middle {
            cpu_us: of(|cost| cost.cpu_us)?,
            price_ucr: of(|cost| cost.price_ucr)?,
            duration_us: of(|cost| cost.duration_us)?,
        })
    }

    fn cpu_us(&self) -> u64 {
        self.middle(false).map_or(0, |middle| middle.cpu_us)
    }
}

/// Whether `it` is below the share of `that`.
fn is_below(it: u64, that: u64, percent: u64) -> bool {
    u128::from(it) * 100 < u128::from(that) * u128::from(percent)
}

impl Middle {
    /// By price; where the prices are about the same, by time.
    fn beats(&self, that: &Self) -> bool {
        if is_below(self.price_ucr, that.price_ucr, CHEAPER_PERCENT) {
            return true;
        }
        !is_below(that.price_ucr, self.price_ucr, CHEAPER_PERCENT)
            && is_below(self.duration_us, that.duration_us, QUICKER_PERCENT)
    }
}

impl WallChoice {
    /// Of a version whose calls take this wall. If that is the other one, an earlier choice put them there.
    pub fn new(on: Wall) -> Self {
        Self {
            on,
            usual: Seen::default(),
            other: Seen::default(),
            compared_us: None,
            is_settled: on == Wall::Other,
            barred: 0,
        }
    }

    pub fn on(&self) -> Wall {
        self.on
    }

    /// Both, once enough is known of both.
    pub fn comparison(&self) -> Option<Comparison> {
        let (here, there) = (self.seen(self.on), self.seen(self.on.opposite()));
        if here.last.len() < RUNS_MIN || there.last.len() < RUNS_MIN {
            return None;
        }
        if here.is_warm() && there.warm() < WARM_MIN && there.noted < RUNS_ENOUGH {
            return None;
        }
        // A trial has cold starts that it would not have if all calls were there.
        let have_warm = here.warm() >= WARM_MIN && there.warm() >= WARM_MIN;
        let warm_alone = have_warm && (here.is_warm() || there.is_warm());
        Some(Comparison {
            usual: self.usual.middle(warm_alone)?,
            other: self.other.middle(warm_alone)?,
        })
    }

    /// The wall of the next call. `draw`: any number; over many calls, evenly spread.
    pub fn next(&mut self, draw: u64) -> Wall {
        if self.barred > 0 {
            self.barred -= 1;
            return self.on;
        }
        let here = self.seen(self.on);
        let is_short = self.on == Wall::Usual && here.cpu_us() < COMPUTES_US;
        if here.last.len() < RUNS_MIN || is_short {
            return self.on;
        }
        let every = match self.is_settled {
            true => LOOKS_EVERY,
            false => TRIES_EVERY,
        };
        match draw.is_multiple_of(every) {
            true => self.on.opposite(),
            false => self.on,
        }
    }

    /// Takes in what a run has cost there; the move that follows from it, if one does.
    pub fn note(&mut self, wall: Wall, cost: Cost) -> Option<Move> {
        self.seen_mut(wall).note(cost);
        if self.has_changed() {
            let there = self.on.opposite();
            *self.seen_mut(there) = Seen::default();
            self.is_settled = false;
            self.compared_us = None;
            return None;
        }
        let by = self.comparison()?;
        self.is_settled = true;
        let goes = match self.on {
            Wall::Usual => by.usual.cpu_us >= COMPUTES_US && by.other.beats(&by.usual),
            // Short calls go back, unless they are dearer there.
            Wall::Other => {
                let is_short = by.usual.cpu_us < COMPUTES_US && !by.other.beats(&by.usual);
                is_short || by.usual.beats(&by.other)
            }
        };
        if goes {
            self.on = self.on.opposite();
        }
        if goes || self.compared_us.is_none() {
            self.compared_us = Some(self.seen(self.on).cpu_us());
        }
        goes.then_some(Move { to: self.on, by })
    }

    /// The wall beside the one that is on could not run a call, or the one that is on, where it is not the usual one.
    pub fn bar(&mut self) {
        self.barred = BARRED;
    }

    /// Whether the runs use much more or much less than when the walls were compared.
    fn has_changed(&self) -> bool {
        let here = self.seen(self.on);
        let now = here.cpu_us();
        here.last.len() == WINDOW && self.compared_us.is_some_and(|then| now > 2 * then || 2 * now < then)
    }

    fn seen(&self, wall: Wall) -> &Seen {
        match wall {
            Wall::Usual => &self.usual,
            Wall::Other => &self.other,
        }
    }

    fn seen_mut(&mut self, wall: Wall) -> &mut Seen {
        match wall {
            Wall::Usual => &mut self.usual,
            Wall::Other => &mut self.other,
        }
    }
}

impl Wall {
    pub fn opposite(self) -> Self {
        match self {
            Self::Usual => Self::Other,
            Self::Other => Self::Usual,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What runs came to on a quiet machine, in wasm and in the jail; prices as of an offer of 200 ucr for a CPU second and 1 for a start.
    mod recorded {
        pub(super) const FIB: [u64; 2] = [30_000, 1_600];
        pub(super) const JSON: [u64; 2] = [117_000, 27_000];
        pub(super) const PYTHON: [u64; 2] = [22_000, 9_000];
        pub(super) const SHORT: [u64; 2] = [180, 250];
        /// What a start adds: an instance of QuickJS, and Node in a jail.
        pub(super) const COLD: [u64; 2] = [1_300, 28_000];
    }

    fn cost([usual_us, other_us]: [u64; 2], wall: Wall, cold: bool) -> Cost {
        let at = usize::from(wall == Wall::Other);
        let cpu_us = [usual_us, other_us][at] + if cold { recorded::COLD[at] } else { 0 };
        Cost {
            cpu_us,
            price_ucr: 1 + cpu_us / 5,
            duration_us: cpu_us + 100,
            cold,
        }
    }

    /// Calls with this workload; how many went to the other wall, and where the moves led.
    fn play(choice: &mut WallChoice, calls: u64, cost: impl Fn(Wall, u64) -> Cost) -> (u64, Vec<Wall>) {
        let (mut there, mut moves) = (0, Vec::new());
        let mut draw = 7_u64;
        for number in 0..calls {
            draw = draw
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let wall = choice.next(draw >> 33);
            there += u64::from(wall == Wall::Other);
            let cost = cost(wall, number);
            moves.extend(choice.note(wall, cost).map(|made| made.to));
        }
        (there, moves)
    }

    #[test]
    fn short_calls_are_never_tried_elsewhere() {
        let mut choice = WallChoice::new(Wall::Usual);
        let (there, moves) = play(&mut choice, 10_000, |wall, _| cost(recorded::SHORT, wall, false));
        assert_eq!((there, moves), (0, vec![]));
        // Nor those of which a few compute.
        let mut choice = WallChoice::new(Wall::Usual);
        let mixed = |wall, number: u64| match number.is_multiple_of(5) {
            true => cost(recorded::JSON, wall, false),
            false => cost(recorded::SHORT, wall, false),
        };
        assert_eq!(play(&mut choice, 10_000, mixed).0, 0);
    }

    #[test]
    fn what_computes_moves_once_and_stays() {
        for workload in [recorded::FIB, recorded::JSON, recorded::PYTHON] {
            let mut choice = WallChoice::new(Wall::Usual);
            let (_, moves) = play(&mut choice, 100, |wall, _| cost(workload, wall, false));
            assert_eq!(moves, [Wall::Other], "{workload:?}");
            let (there, moves) = play(&mut choice, 5_000, |wall, _| cost(workload, wall, false));
            assert!(moves.is_empty() && there > 4_800, "{there} of 5000, {moves:?}");
        }
    }

    #[test]
    fn a_wall_that_is_dearer_costs_a_bounded_share() {
        let mut choice = WallChoice::new(Wall::Usual);
        let dearer = |wall, _| cost([10_000, 40_000], wall, false);
        let (there, moves) = play(&mut choice, 200, dearer);
        assert!(moves.is_empty() && there < 24, "{there} of the first 200");
        let (there, _) = play(&mut choice, 10_000, dearer);
        assert!((100..300).contains(&there), "{there} of 10000");
    }

    #[test]
    fn calls_that_mostly_start_stay_where_starts_are_cheap() {
        let mut choice = WallChoice::new(Wall::Usual);
        let rare = |wall, _| cost(recorded::PYTHON, wall, true);
        assert_eq!(play(&mut choice, 5_000, rare).1, []);
        // A trial's own cold starts are not held against it where calls find instances.
        let mut choice = WallChoice::new(Wall::Usual);
        let starts = |wall, number: u64| cost(recorded::PYTHON, wall, wall == Wall::Other && number < 30);
        assert_eq!(play(&mut choice, 200, starts).1, [Wall::Other]);
        // One that never finds an instance there is judged by that in the end.
        let mut choice = WallChoice::new(Wall::Usual);
        let never = |wall, _| cost(recorded::PYTHON, wall, wall == Wall::Other);
        let (there, moves) = play(&mut choice, 2_000, never);
        assert!(moves.is_empty() && there < 120, "{there}, {moves:?}");
    }

    #[test]
    fn it_moves_back_when_the_figures_change() {
        let mut choice = WallChoice::new(Wall::Usual);
        play(&mut choice, 200, |wall, _| cost(recorded::JSON, wall, false));
        assert_eq!(choice.on(), Wall::Other);
        // The inputs become short ones.
        let (_, moves) = play(&mut choice, 200, |wall, _| cost(recorded::SHORT, wall, false));
        assert_eq!(moves, [Wall::Usual]);
        // And long again.
        let (_, moves) = play(&mut choice, 200, |wall, _| cost(recorded::JSON, wall, false));
        assert_eq!(moves, [Wall::Other]);
        // The price there rises, with the same use: seen by the looks.
        let risen = |wall, _| {
            let cost = cost(recorded::JSON, wall, false);
            let times = if wall == Wall::Other { 9 } else { 1 };
            Cost {
                price_ucr: cost.price_ucr * times,
                ..cost
            }
        };
        let (_, moves) = play(&mut choice, 2_000, risen);
        assert_eq!(moves, [Wall::Usual]);
    }

    #[test]
    fn figures_that_differ_little_move_nothing() {
        let mut choice = WallChoice::new(Wall::Usual);
        let noisy = |wall, number: u64| {
            let jitter = number.wrapping_mul(2_654_435_761) % 1_000;
            cost([20_000 + jitter, 19_500 + jitter], wall, false)
        };
        assert_eq!(play(&mut choice, 20_000, noisy).1, []);
        // Prices alike, and one of them quicker.
        let mut choice = WallChoice::new(Wall::Usual);
        let quicker = |wall, _| Cost {
            duration_us: if wall == Wall::Other { 10_000 } else { 30_000 },
            ..cost([20_000, 20_000], wall, false)
        };
        assert_eq!(play(&mut choice, 200, quicker).1, [Wall::Other]);
    }

    #[test]
    fn after_a_restart_it_goes_on_where_it_was() {
        let mut choice = WallChoice::new(Wall::Other);
        let (there, moves) = play(&mut choice, 300, |wall, _| cost(recorded::FIB, wall, false));
        assert!(moves.is_empty() && there > 280, "{there} of 300");
    }

    #[test]
    fn a_wall_that_could_not_run_a_call_is_left_alone_for_a_while() {
        let mut choice = WallChoice::new(Wall::Usual);
        for _ in 0..RUNS_MIN {
            choice.note(Wall::Usual, cost(recorded::JSON, Wall::Usual, false));
        }
        assert_eq!(choice.next(0), Wall::Other);
        choice.bar();
        assert!((0..BARRED).all(|_| choice.next(0) == Wall::Usual));
        assert_eq!(choice.next(0), Wall::Other);
    }
}
