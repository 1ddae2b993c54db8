//! When this computer may run jobs: its owner's work comes first. A decision with hysteresis, of readings alone.
//!
//! ```text
//!          others' load, battery, the owner's word               hours, memory
//!   open ----------------------------------------> frozen   open -------------> closed
//!    ^------ QUIET_FOR without any of them ----------'       ^------ at once -----'
//! ```
//! Frozen: sandboxes stand still and nothing new begins. Closed: nothing new begins, what runs goes on.

use std::{collections::VecDeque, fmt, str::FromStr, time::Duration};

use piecework_model::{Code, Rejection};
use serde::{Deserialize, Serialize};

/// Others' CPU is measured over this long: short enough to give way within 100 ms, long enough that the kernel's ticks
/// of
/// 10 ms say something.
const WINDOW: Duration = Duration::from_millis(60);
/// Half a core within the window: somebody works here. In thousandths of a core.
const BUSY_MCORES: u64 = 500;
/// For each core of the machine, on large ones: ticks are rounded on each core.
const BUSY_MCORES_PER_CORE: u64 = 50;
/// As much counts where the owner's load is known by itself and no core is idle: whoever works there gets only a share.
const CROWDED_MCORES: u64 = 150;
/// No core is idle: less than a twentieth of the machine.
const IDLE_SHARE: u64 = 20;
/// Quiet is half as much as busy, so that load around the limit does not flutter.
const QUIET_SHARE: u64 = 2;
/// Nothing for this long, and sandboxes go on.
const QUIET_FOR: Duration = Duration::from_secs(3);

/// What its owner allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Give way while other programs are busy.
    pub when_idle: bool,
    /// Give way while the computer runs on battery.
    pub on_mains: bool,
    /// Begin jobs only then, in local time.
    pub hours: Option<Hours>,
    /// Begin no job while this provider holds more.
    pub memory_bytes: Option<u64>,
}

impl Rules {
    /// Whether anything must be looked at at all.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// A time of each day, in minutes from midnight; may pass midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    from: u16,
    to: u16,
}

impl Hours {
    pub fn include(self, minute: u16) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl FromStr for Hours {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Rejection> {
        let parsed = text
            .split_once('-')
            .and_then(|(from, to)| Some((minute(from)?, minute(to)?)));
        match parsed {
            Some((from, to)) if from != to => Ok(Self { from, to }),
            Some(_) | None => Err(
                Rejection::new(Code::ProviderBadHours, format!("`{text}` is not a range of hours"))
                    .hint("use the form 22:00-07:00"),
            ),
        }
    }
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    let (hour, minute): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (two(hours) && two(minutes) && hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        write!(f, "{}-{}", clock(self.from), clock(self.to))
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

impl TryFrom<String> for Hours {
    type Error = Rejection;

    fn try_from(text: String) -> Result<Self, Rejection> {
        text.parse()
    }
}

/// One look at the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// On a clock that never goes back.
    pub at: Duration,
    /// CPU time of all others so far.
    pub others_us: u64,
    /// Time that cores were idle so far, all together.
    pub idle_us: u64,
    /// Cores that both are counted over; 0 where that is not known.
    pub cores: u32,
    pub on_battery: bool,
    /// Of the day, local.
    pub minute: u16,
    /// Memory of this provider with its sandboxes.
    pub held_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    #[default]
    Open,
    Closed,
    Frozen,
}

/// Why it holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The owner said so.
    Told,
    /// Others use so much.
    Busy {
        mcores: u64,
        cores: u64,
    },
    /// It was busy a moment ago.
    Settling,
    OnBattery,
    OutsideHours(Hours),
    MemoryFull,
    /// What is left of the disk is for the papers of jobs that ran.
    DiskFull,
}

impl Hold {
    fn standing(self) -> Standing {
        match self {
            Self::Told | Self::Busy { .. } | Self::Settling | Self::OnBattery => Standing::Frozen,
            Self::OutsideHours(_) | Self::MemoryFull | Self::DiskFull => Standing::Closed,
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFull => f.write_str("this computer's disk is nearly full; jobs continue when there is room"),
            Self::Told => f.write_str("paused by the owner; end that with `piecework provider resume`"),
            Self::Busy { mcores, cores } => write!(
                f,
                "other programs use {}.{} of this computer's {cores} cores; jobs are frozen until they are done",
                mcores / 1_000,
                mcores % 1_000 / 100
            ),
            Self::Settling => write!(
                f,
                "the owner used the computer a moment ago; jobs continue after {} s of quiet",
                QUIET_FOR.as_secs()
            ),
            Self::OnBattery => f.write_str("the computer runs on battery"),
            Self::OutsideHours(hours) => write!(f, "it is not between {hours}"),
            Self::MemoryFull => f.write_str("it uses all the memory it may"),
        }
    }
}

/// What follows from a reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub standing: Standing,
    pub holds: Vec<Hold>,
}

impl Verdict {
    /// The same with one more reason.
    pub(crate) fn add(&mut self, hold: Hold) {
        self.standing = self.standing.max(hold.standing());
        self.holds.push(hold);
    }
}

/// What the load is measured from.
struct Seen {
    at: Duration,
    others_us: u64,
    idle_us: u64,
}

/// In thousandths of a core, over the window.
struct Used {
    others: u64,
    idle: u64,
}

/// Looks on, and remembers what hysteresis needs.
pub struct Watch {
    cores: u64,
    busy_mcores: u64,
    /// Where no core is idle.
    crowded_mcores: u64,
    recent: VecDeque<Seen>,
    /// When it was last needed, while that still counts.
    stirred: Option<Duration>,
    memory_full: bool,
}

impl Watch {
    /// `owner_alone`: readings of load are the owner's, not that of whatever else runs here.
    pub fn new(cores: u32, owner_alone: bool) -> Self {
        let busy_mcores = BUSY_MCORES.max(BUSY_MCORES_PER_CORE * u64::from(cores));
        Self {
            cores: u64::from(cores),
            busy_mcores,
            crowded_mcores: if owner_alone { CROWDED_MCORES } else { busy_mcores },
            recent: VecDeque::new(),
            stirred: None,
            memory_full: false,
        }
    }

    /// `told`: whether the owner paused it by hand.
    pub fn look(&mut self, rules: &Rules, told: bool, reading: &Reading) -> Verdict {
        let mut holds = Vec::new();
        if told {
            holds.push(Hold::Told);
        }
        holds.extend(self.needed(rules, reading));
        if let Some(hours) = rules.hours.filter(|hours| !hours.include(reading.minute)) {
            holds.push(Hold::OutsideHours(hours));
        }
        self.memory_full = self.is_memory_full(rules, reading.held_bytes);
        if self.memory_full {
            holds.push(Hold::MemoryFull);
        }
        let standing = holds.iter().map(|hold| hold.standing()).max().unwrap_or_default();
        Verdict { standing, holds }
    }

    fn needed(&mut self, rules: &Rules, reading: &Reading) -> Option<Hold> {
        let used = self.used(reading);
        let mcores = used.others;
        let limit = if self.stirred.is_some() {
            self.crowded_mcores / QUIET_SHARE
        } else if used.idle * IDLE_SHARE < self.cores * 1_000 {
            self.crowded_mcores
        } else {
            self.busy_mcores
        };
        let hold = if rules.on_mains && reading.on_battery {
            Some(Hold::OnBattery)
        } else if rules.when_idle && mcores >= limit {
            let cores = if reading.cores > 0 {
                reading.cores.into()
            } else {
                self.cores
            };
            Some(Hold::Busy {
                // Ticks are rounded: no more than there is.
                mcores: mcores.min(cores * 1_000),
                cores,
            })
        } else {
            None
        };
        if hold.is_some() {
            self.stirred = Some(reading.at);
            return hold;
        }
        let quiet = self.stirred.map(|at| reading.at.saturating_sub(at))?;
        if quiet >= QUIET_FOR || !(rules.when_idle || rules.on_mains) {
            self.stirred = None;
            return None;
        }
        Some(Hold::Settling)
    }

    /// Over the window, or over the time since the last look where that is longer.
    fn used(&mut self, reading: &Reading) -> Used {
        self.recent.push_back(Seen {
            at: reading.at,
            others_us: reading.others_us,
            idle_us: reading.idle_us,
        });
        while let Some(second) = self.recent.get(1)
            && reading.at.saturating_sub(second.at) >= WINDOW
        {
            self.recent.pop_front();
        }
        let before = self.recent.front().expect("one was added");
        let passed = reading.at.saturating_sub(before.at).max(WINDOW);
        let mcores = |now_us: u64, before_us: u64| {
            let used_us = u128::from(now_us.saturating_sub(before_us));
            u64::try_from(used_us * 1_000 / passed.as_micros()).unwrap_or(u64::MAX)
        };
        Used {
            others: mcores(reading.others_us, before.others_us),
            idle: mcores(reading.idle_us, before.idle_us),
        }
    }

    /// Full at the limit, and again open an eighth below it.
    fn is_memory_full(&self, rules: &Rules, held_bytes: u64) -> bool {
        rules.memory_bytes.is_some_and(|limit| {
            let limit = if self.memory_full { limit - limit / 8 } else { limit };
            held_bytes >= limit
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Rules = Rules {
        when_idle: true,
        on_mains: false,
        hours: None,
        memory_bytes: None,
    };

    /// Readings 20 ms apart while others use so many thousandths of a core; the first verdict that is not `was`.
    struct Clock {
        watch: Watch,
        reading: Reading,
        idle_mcores: u64,
    }

    impl Clock {
        fn new(cores: u32) -> Self {
            Self {
                watch: Watch::new(cores, false),
                reading: Reading::default(),
                idle_mcores: 0,
            }
        }

        /// Only the owner's load is read.
        fn of_the_owner() -> Self {
            Self {
                watch: Watch::new(2, true),
                ..Self::new(2)
            }
        }

        fn step(&mut self, mcores: u64) -> Standing {
            const STEP_MS: u64 = 20;
            self.reading.at += Duration::from_millis(STEP_MS);
            self.reading.others_us += mcores * STEP_MS;
            self.reading.idle_us += self.idle_mcores * STEP_MS;
            self.watch.look(&IDLE, false, &self.reading).standing
        }

        /// Milliseconds until the standing is this one, at most `limit_ms`.
        fn until(&mut self, standing: Standing, mcores: u64, limit_ms: u64) -> Option<u64> {
            (1..=limit_ms / 20)
                .find(|_| self.step(mcores) == standing)
                .map(|steps| steps * 20)
        }
    }

    #[test]
    fn a_busy_core_is_given_way_to_within_100_ms() {
        let mut clock = Clock::new(4);
        assert_eq!(clock.until(Standing::Frozen, 0, 1_000), None);
        let after = clock.until(Standing::Frozen, 1_000, 1_000).expect("frozen");
        assert!(after <= 60, "{after}");
    }

    #[test]
    fn load_by_cores_and_verdict() {
        let frozen = |cores, mcores| Clock::new(cores).until(Standing::Frozen, mcores, 2_000).is_some();
        let table = [
            (2, 490, false),
            (2, 500, true),
            (16, 700, false),
            (16, 800, true),
            (64, 3_000, false),
        ];
        for (cores, mcores, expected) in table {
            assert_eq!(frozen(cores, mcores), expected, "{cores} cores, {mcores}");
        }
    }

    #[test]
    fn it_goes_on_after_quiet_and_not_at_the_first_lull() {
        let mut clock = Clock::new(2);
        clock.until(Standing::Frozen, 1_000, 200).expect("frozen");
        assert_eq!(clock.until(Standing::Open, 0, 2_000), None, "too early");
        assert_eq!(clock.step(2_000), Standing::Frozen);
        let after = clock.until(Standing::Open, 0, 10_000).expect("open");
        assert!((3_000..3_200).contains(&after), "{after}");
    }

    #[test]
    fn load_between_quiet_and_busy_changes_nothing() {
        let mut clock = Clock::new(2);
        assert_eq!(clock.until(Standing::Frozen, 400, 10_000), None, "was open");
        clock.until(Standing::Frozen, 1_000, 200).expect("frozen");
        assert_eq!(clock.until(Standing::Open, 400, 10_000), None, "was frozen");
    }

    /// An owner's program amid many jobs gets a share of a core only, and more once they stand still.
    #[test]
    fn a_share_of_a_crowded_machine_counts_where_it_is_the_owners() {
        let mut clock = Clock::of_the_owner();
        let after = clock.until(Standing::Frozen, 200, 1_000).expect("frozen");
        assert!(after <= 100, "{after}");
        assert_eq!(clock.until(Standing::Open, 100, 5_000), None, "still at work");
        clock.until(Standing::Open, 50, 5_000).expect("at rest");
        let mut roomy = Clock::of_the_owner();
        roomy.idle_mcores = 1_000;
        assert_eq!(roomy.until(Standing::Frozen, 200, 1_000), None, "a core is idle");
        assert_eq!(
            Clock::new(2).until(Standing::Frozen, 200, 1_000),
            None,
            "anybody's load"
        );
    }

    #[test]
    fn a_short_stir_is_no_work() {
        let mut clock = Clock::new(2);
        for _ in 0..100 {
            assert_eq!(clock.step(1_000), Standing::Open);
            for _ in 0..4 {
                assert_eq!(clock.step(0), Standing::Open);
            }
        }
    }

    #[test]
    fn what_may_be_by_rule() {
        let hours: Hours = "22:00-07:00".parse().expect("hours");
        let look = |rules: Rules, told, reading: Reading| Watch::new(2, false).look(&rules, told, &reading);
        let at = |minute| Reading {
            minute,
            ..Reading::default()
        };
        let on_battery = Reading {
            on_battery: true,
            ..Reading::default()
        };
        let holds = |bytes| Reading {
            held_bytes: bytes,
            ..Reading::default()
        };
        let none = Rules::default();
        let nightly = Rules {
            hours: Some(hours),
            ..none.clone()
        };
        let plugged = Rules {
            on_mains: true,
            ..none.clone()
        };
        let small = Rules {
            memory_bytes: Some(100),
            ..none.clone()
        };
        let table = [
            (none.clone(), false, on_battery, Standing::Open, None),
            (none, true, at(0), Standing::Frozen, Some(Hold::Told)),
            (nightly.clone(), false, at(23 * 60), Standing::Open, None),
            (nightly.clone(), false, at(6 * 60 + 59), Standing::Open, None),
            (
                nightly,
                false,
                at(7 * 60),
                Standing::Closed,
                Some(Hold::OutsideHours(hours)),
            ),
            (
                plugged.clone(),
                false,
                on_battery,
                Standing::Frozen,
                Some(Hold::OnBattery),
            ),
            (plugged, false, at(0), Standing::Open, None),
            (small.clone(), false, holds(99), Standing::Open, None),
            (small, false, holds(100), Standing::Closed, Some(Hold::MemoryFull)),
        ];
        for (rules, told, reading, standing, hold) in table {
            let verdict = look(rules.clone(), told, reading);
            assert_eq!(
                (verdict.standing, verdict.holds.first().copied()),
                (standing, hold),
                "{rules:?}"
            );
        }
    }

    #[test]
    fn memory_reopens_an_eighth_below() {
        let rules = Rules {
            memory_bytes: Some(800),
            ..Rules::default()
        };
        let mut watch = Watch::new(2, false);
        let mut look = |held_bytes| {
            watch
                .look(
                    &rules,
                    false,
                    &Reading {
                        held_bytes,
                        ..Reading::default()
                    },
                )
                .standing
        };
        assert_eq!([look(800), look(750), look(699), look(750)], {
            [Standing::Closed, Standing::Closed, Standing::Open, Standing::Open]
        });
    }

    #[test]
    fn hours_are_read_strictly() {
        for bad in [
            "",
            "22-07",
            "24:00-01:00",
            "10:60-11:00",
            "9:00-10:00",
            "08:00-08:00",
            "08:00",
        ] {
            assert_eq!(bad.parse::<Hours>().expect_err(bad).code, Code::ProviderBadHours);
        }
        let day: Hours = "08:30-17:00".parse().expect("hours");
        assert!(day.include(510) && !day.include(509) && !day.include(17 * 60));
        assert_eq!(day.to_string(), "08:30-17:00");
    }
}
