//! A function's usual resource use on one class of machine, and which claims are outliers.

use std::collections::{BTreeMap, VecDeque};

use piecework_model::{AccountId, Counters};
use serde::{Deserialize, Serialize};

/// Machines whose cores take about as long for the reference job: the power of two, in half steps, of its CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MachineClass {
    Unmeasured,
    HalfOctave(u32),
}

impl MachineClass {
    pub fn of(cpu_us_per_unit: Option<u32>) -> Self {
        match cpu_us_per_unit {
            None | Some(0) => Self::Unmeasured,
            Some(us) => Self::HalfOctave((u64::from(us) * u64::from(us)).ilog2()),
        }
    }
}

/// The samples of one version, by class of machine.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    classes: BTreeMap<MachineClass, VecDeque<Sample>>,
}

/// What one receipt claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub provider: AccountId,
    pub counters: Counters,
}

/// A claim far above anything seen from the function on such machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlier {
    pub counter: Counter,
    pub claimed: u64,
    /// The most of the jobs that it was compared with.
    pub usual_max: u64,
    pub compared_with: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counter {
    CpuUs,
    MemoryByteMs,
    EgressBytes,
}

/// Remembered of a class: enough to have seen the dear inputs of most functions.
const SAMPLES_MAX: usize = 128;
/// Fewer samples say nothing about usual values.
pub const SAMPLES_MIN: usize = 20;
/// A claim may be so many times the highest before: inputs differ.
const TIMES_MAX: u64 = 4;

impl Counter {
    const ALL: [Self; 3] = [Self::CpuUs, Self::MemoryByteMs, Self::EgressBytes];

    fn of(self, counters: &Counters) -> u64 {
        match self {
            Self::CpuUs => counters.cpu_us,
            Self::MemoryByteMs => counters.memory_byte_ms,
            Self::EgressBytes => counters.egress_bytes,
        }
    }

    /// Below this no claim is worth a question: a cold cache or a page of the kernel's makes as much.
    fn floor(self) -> u64 {
        match self {
            Self::CpuUs => 50_000,
            Self::MemoryByteMs => (128 << 20) * 50,
            Self::EgressBytes => 1 << 20,
        }
    }
}

impl Usage {
    /// The claim of `sample` that stands out, if one does. What other providers claimed counts, where there is enough
    /// of it: a provider's own past is no witness for it.
    pub fn outlier(&self, class: MachineClass, sample: &Sample) -> Option<Outlier> {
        let seen = self.classes.get(&class)?;
        let others: Vec<&Sample> = seen.iter().filter(|seen| seen.provider != sample.provider).collect();
        let compared = match others.len() >= SAMPLES_MIN {
            true => others,
            false => seen.iter().collect(),
        };
        if compared.len() < SAMPLES_MIN {
            return None;
        }
        Counter::ALL.into_iter().find_map(|counter| {
            let claimed = counter.of(&sample.counters);
            let usual_max = compared.iter().map(|seen| counter.of(&seen.counters)).max()?;
            let stands_out = claimed > counter.floor() && claimed > usual_max.saturating_mul(TIMES_MAX);
            stands_out.then_some(Outlier {
                counter,
                claimed,
                usual_max,
                compared_with: u32::try_from(compared.len()).unwrap_or(u32::MAX),
            })
        })
    }

    /// Adds an accepted claim to the usual values.
    pub fn learn(&mut self, class: MachineClass, sample: Sample) {
        let seen = self.classes.entry(class).or_default();
        if seen.len() == SAMPLES_MAX {
            seen.pop_front();
        }
        seen.push_back(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: MachineClass = MachineClass::Unmeasured;

    fn sample(provider: u8, cpu_us: u64) -> Sample {
        Sample {
            provider: AccountId([provider; 20]),
            counters: Counters {
                cpu_us,
                memory_byte_ms: 1_000,
                egress_bytes: 0,
            },
        }
    }

    fn usual(claims: impl IntoIterator<Item = (u8, u64)>) -> Usage {
        let mut usage = Usage::default();
        for (provider, cpu_us) in claims {
            usage.learn(CLASS, sample(provider, cpu_us));
        }
        usage
    }

    fn many(provider: u8, cpu_us: u64) -> impl Iterator<Item = (u8, u64)> {
        std::iter::repeat_n((provider, cpu_us), SAMPLES_MIN)
    }

    #[test]
    fn a_claim_far_above_all_before_stands_out() {
        let usage = usual(many(1, 100_000));
        assert_eq!(usage.outlier(CLASS, &sample(2, 400_000)), None);
        let found = usage.outlier(CLASS, &sample(2, 400_001)).expect("stands out");
        assert_eq!((found.counter, found.usual_max), (Counter::CpuUs, 100_000));
        let mut memory = sample(2, 1_000);
        memory.counters.memory_byte_ms = 1 << 40;
        let found = usage.outlier(CLASS, &memory).expect("stands out");
        assert_eq!(found.counter, Counter::MemoryByteMs);
    }

    #[test]
    fn too_little_is_known_of_a_new_function_and_of_another_class() {
        let usage = usual(many(1, 100).skip(1));
        assert_eq!(usage.outlier(CLASS, &sample(2, u64::MAX)), None);
        let usage = usual(many(1, 100));
        let other = MachineClass::of(Some(1_000));
        assert_eq!(usage.outlier(other, &sample(2, u64::MAX)), None);
    }

    #[test]
    fn small_claims_never_stand_out() {
        let usage = usual(many(1, 10));
        assert_eq!(usage.outlier(CLASS, &sample(2, 50_000)), None);
    }

    #[test]
    fn who_raised_his_own_claims_step_by_step_is_measured_by_the_others() {
        let slowly = [100_000, 300_000, 900_000, 2_700_000].map(|cpu_us| (2, cpu_us));
        let usage = usual(many(1, 100_000).chain(slowly));
        assert!(usage.outlier(CLASS, &sample(2, 2_700_000)).is_some());
    }

    #[test]
    fn what_is_usual_changes_with_what_is_accepted() {
        let mut usage = usual(many(1, 100_000));
        for _ in 0..SAMPLES_MAX {
            usage.learn(CLASS, sample(1, 1_000_000));
        }
        assert_eq!(usage.outlier(CLASS, &sample(2, 4_000_000)), None);
    }

    #[test]
    fn classes_are_half_octaves() {
        assert_eq!(MachineClass::of(None), MachineClass::Unmeasured);
        assert_eq!(MachineClass::of(Some(1_024)), MachineClass::of(Some(1_400)));
        assert_ne!(MachineClass::of(Some(1_024)), MachineClass::of(Some(1_500)));
        assert_eq!(MachineClass::of(Some(u32::MAX)), MachineClass::HalfOctave(63));
    }
}
