//! Watches versions: one that keeps killing its instances is quarantined, and a canary that fails too often loses its
//! share.
//!
//! What counts towards quarantine is what costs the provider an instance that nobody pays for: a crash, memory beyond
//! the limit, code that no longer loads. An exception is an answer, and a timeout is paid for by whoever set it;
//! neither counts. Nor does what others can bring about: a crash counts only in a call of the function's owner, and only
//! crashes of several different inputs together make a version faulty rather than an input. A start needs no input, so it
//! counts whoever calls. A canary as well is judged by its owner's calls and by its starts alone. Counts are in memory: a restart begins them anew, what was decided stays.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dashmap::DashMap;
use piecework_model::{AnyCode, Code, Digest, FunctionId};
use piecework_store::{Quarantine, Traffic};
use serde_json::json;

use crate::{
    Answer,
    accounts::audit,
    clock::now_ms,
    functions::{
        self, Functions, Live,
        suspects::{Suspect, Suspicion},
    },
};

type Key = (FunctionId, u32);

#[derive(Default)]
pub(crate) struct Watch {
    /// Versions whose last run killed its instance.
    failing: DashMap<Key, Streak>,
    /// Versions that have a share beside the live one.
    trials: DashMap<Key, Trial>,
}

/// So many different inputs have to crash a version before it is the version that is at fault.
const INPUTS_MIN: usize = 3;
/// Versions that are failing at one time; of more, those that fail next are not counted until some have been forgotten.
const STREAKS_MAX: usize = 4_096;
/// Versions on trial at one time; if there are more, all their counts begin anew.
const TRIALS_MAX: usize = 16_384;

/// Failures with no other end between them.
#[derive(Clone, Debug, PartialEq)]
struct Streak {
    starts: u32,
    crashes: u32,
    /// Different inputs that crashed it, at most [`INPUTS_MIN`].
    inputs: Vec<Digest>,
    since: Instant,
}

/// What a version on trial did so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trial {
    since_ms: u64,
    pub(crate) calls: u32,
    pub(crate) errors: u32,
}

/// How a run ended, as far as it says something about the version.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Fine,
    /// It failed in a way that leaves the instance alive, or that is paid for.
    Failed,
    /// It killed its instance: `input`, if this was in a call of the function's owner, with a token of its account; none in
    /// the call of anybody else to whom the function is open.
    Crash {
        code: Code,
        input: Option<Digest>,
    },
    /// No instance could be started.
    NoStart(Code),
    /// Nothing of the version's making.
    Neutral,
}

impl End {
    /// By the code of the refusal, if there was one; `input` is asked for after a crash.
    pub(crate) fn of(code: Option<&AnyCode>, input: impl FnOnce() -> Option<Digest>) -> Self {
        let Some(code) = code else {
            return Self::Fine;
        };
        match code.known() {
            Some(code @ (Code::FunctionCrashed | Code::FunctionOutOfMemory)) => Self::Crash { code, input: input() },
            Some(code @ (Code::FunctionLoadFailed | Code::FunctionNoHandler | Code::FunctionSyntaxError)) => {
                Self::NoStart(code)
            }
            Some(
                Code::FunctionRaised
                | Code::FunctionDiskFull
                | Code::FunctionTooManyFiles
                | Code::FunctionTooManyProcesses
                | Code::FunctionTimedOut
                | Code::FunctionOutputTooLarge
                | Code::FunctionOutputInvalid,
            ) => Self::Failed,
            Some(_) | None => Self::Neutral,
        }
    }
}

impl End {
    /// What it says of a version on trial: of a stranger's call only that it does not start.
    fn of_caller(self, by_owner: bool) -> Self {
        match self {
            Self::NoStart(_) => self,
            Self::Fine | Self::Failed | Self::Crash { .. } | Self::Neutral if by_owner => self,
            Self::Fine | Self::Failed | Self::Crash { .. } | Self::Neutral => Self::Neutral,
        }
    }
}

impl Streak {
    fn new(now: Instant) -> Self {
        Self {
            starts: 0,
            crashes: 0,
            inputs: Vec::new(),
            since: now,
        }
    }

    /// Where it took longer than the window it begins anew.
    fn renew(&mut self, now: Instant, window: Duration) {
        if now.duration_since(self.since) >= window {
            *self = Self::new(now);
        }
    }

    fn note_crash(&mut self, input: Digest) {
        self.crashes += 1;
        if self.inputs.len() < INPUTS_MIN && !self.inputs.contains(&input) {
            self.inputs.push(input);
        }
    }

    /// The failures, if there are `most` or more that no single input explains.
    fn too_many(&self, most: u32) -> Option<u32> {
        let failures = self.starts + self.crashes;
        let is_its_own_fault = self.starts >= most || self.inputs.len() >= INPUTS_MIN;
        (failures >= most && is_its_own_fault).then_some(failures)
    }
}

/// Whether the trial has failed.
fn fails(trial: &Trial, traffic: &Traffic) -> bool {
    trial.calls >= traffic.calls_min
        && u64::from(trial.errors) * 1_000 > u64::from(trial.calls) * u64::from(traffic.errors_permille_max)
}

impl Watch {
    /// The failures in a row, if this one makes it too many.
    fn count(&self, key: Key, end: End, limit: (u32, Duration)) -> Option<u32> {
        match end {
            End::NoStart(_) => self.extend(key, limit, |streak| streak.starts += 1),
            End::Crash { input: Some(input), .. } => self.extend(key, limit, |streak| streak.note_crash(input)),
            // It says something about a stranger's input.
            End::Crash { input: None, .. } => None,
            End::Fine | End::Failed => {
                if !self.failing.is_empty() {
                    self.failing.remove(&key);
                }
                None
            }
            End::Neutral => None,
        }
    }

    fn extend(&self, key: Key, (most, window): (u32, Duration), note: impl FnOnce(&mut Streak)) -> Option<u32> {
        let now = Instant::now();
        if self.failing.len() >= STREAKS_MAX && !self.failing.contains_key(&key) {
            self.failing
                .retain(|_, streak| now.duration_since(streak.since) < window);
            if self.failing.len() >= STREAKS_MAX {
                return None;
            }
        }
        let mut streak = self.failing.entry(key).or_insert_with(|| Streak::new(now));
        streak.renew(now, window);
        note(&mut streak);
        streak.too_many(most)
    }

    fn try_out(&self, key: Key, end: End, traffic: &Traffic) -> Option<Trial> {
        if self.trials.len() >= TRIALS_MAX && !self.trials.contains_key(&key) {
            self.trials.clear();
        }
        let mut trial = self.trials.entry(key).or_default();
        if trial.since_ms != traffic.since_ms {
            *trial = Trial {
                since_ms: traffic.since_ms,
                ..Trial::default()
            };
        }
        match end {
            End::Neutral => return None,
            End::Fine => trial.calls += 1,
            End::Failed | End::Crash { .. } | End::NoStart(_) => {
                trial.calls += 1;
                trial.errors += 1;
            }
        }
        fails(&trial, traffic).then_some(*trial)
    }

    /// What a version did since its share was set.
    pub(crate) fn trial(&self, key: Key, traffic: &Traffic) -> Trial {
        let trial = self.trials.get(&key).map(|trial| *trial);
        trial
            .filter(|trial| trial.since_ms == traffic.since_ms)
            .unwrap_or_default()
    }

    pub(crate) fn forget(&self, function: FunctionId) {
        self.failing.retain(|(of, _), _| *of != function);
        self.trials.retain(|(of, _), _| *of != function);
    }
}

/// Counts how a run ended and acts on it. When it returns, what it decided is in force.
///
/// `by_owner`: with a token of the function's owner.
pub(crate) async fn note(functions: &Functions, live: &Arc<Live>, end: End, by_owner: bool) -> Answer<()> {
    let key = (live.function.id, live.version.version);
    let limit = (
        functions.ground.tuning.quarantine_after,
        functions.ground.tuning.quarantine_window,
    );
    let too_many = functions.watch.count(key, end, limit);
    if let (Some(failures), End::Crash { code, .. } | End::NoStart(code)) = (too_many, end) {
        quarantine(functions, live, code, failures).await?;
    }
    let traffic = live.function.policy.traffic.as_ref();
    if let Some(traffic) = traffic.filter(|_| live.version.version != live.function.live_version)
        && let Some(trial) = functions.watch.try_out(key, end.of_caller(by_owner), traffic)
    {
        withdraw(functions, live, traffic, trial).await?;
    }
    Ok(())
}

async fn quarantine(functions: &Functions, live: &Live, code: Code, failures: u32) -> Answer<()> {
    let (function, version) = (&live.function, live.version.version);
    let news = functions::change_policy(functions, function.id, |policy, _| {
        if policy.quarantined.contains_key(&version) {
            return false;
        }
        let why = Quarantine {
            code: code.into(),
            failures,
            at_ms: now_ms(),
        };
        policy.quarantined.insert(version, why);
        true
    });
    if news.await? {
        let detail = json!({"version": version, "code": code, "failures": failures});
        tracing::warn!(function = %function.id, version, %code, failures, "quarantined a version");
        functions.ground.events.function("quarantine", function, &detail);
        let suspect = Suspect {
            function: function.id,
            suspicion: Suspicion::Quarantine,
        };
        functions.suspects.add(suspect, function.owner);
        let owner = (None, function.owner);
        audit::record(
            &functions.accounts,
            owner,
            ("quarantine", "set"),
            function.name.as_str(),
            detail,
        )
        .await?;
    }
    Ok(())
}

/// Takes a canary's share away; if no other version beside the live one has one, the split ends.
async fn withdraw(functions: &Functions, live: &Live, traffic: &Traffic, trial: Trial) -> Answer<()> {
    let (function, version) = (&live.function, live.version.version);
    let news = functions::change_policy(functions, function.id, |policy, live_version| {
        let Some(now) = policy.traffic.as_mut().filter(|now| now.since_ms == traffic.since_ms) else {
            return false;
        };
        let share = now.weights.remove(&version);
        *now.weights.entry(live_version).or_default() += share.unwrap_or(0);
        if now.weights.keys().all(|other| *other == live_version) {
            policy.traffic = None;
        }
        share.is_some()
    });
    if news.await? {
        let detail = json!({"version": version, "calls": trial.calls, "errors": trial.errors,
            "errors_permille_max": traffic.errors_permille_max});
        tracing::warn!(function = %function.id, version, errors = trial.errors, calls = trial.calls, "rolled back a canary version");
        functions.ground.events.function("traffic", function, &detail);
        let owner = (None, function.owner);
        audit::record(
            &functions.accounts,
            owner,
            ("traffic", "rolled_back"),
            function.name.as_str(),
            detail,
        )
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: (u32, Duration) = (3, Duration::from_secs(60));
    const KEY: Key = (FunctionId([1; 12]), 1);

    /// In a call of the owner's with this input.
    fn of(code: Code, input: u8) -> End {
        End::of(Some(&code.into()), || Some(Digest([input; 32])))
    }

    /// In a call without a token, or with a token of another account.
    fn of_stranger(code: Code) -> End {
        End::of(Some(&code.into()), || None)
    }

    #[test]
    fn only_what_kills_instances_in_a_row_counts() {
        let watch = Watch::default();
        let mut input = 0;
        let mut count = |code: Option<Code>| {
            input += 1;
            let code = code.map(AnyCode::from);
            watch.count(KEY, End::of(code.as_ref(), || Some(Digest([input; 32]))), LIMIT)
        };
        let fatal = Some(Code::FunctionCrashed);
        let raised = Some(Code::FunctionRaised);
        for code in [fatal, fatal, raised, fatal, fatal, None, fatal, fatal] {
            assert_eq!(
                count(code),
                None,
                "a run that did not kill its instance is between them"
            );
        }
        assert_eq!(count(Some(Code::ProviderNone)), None, "says nothing about the version");
        assert_eq!(count(fatal), Some(3));
        let other = (KEY.0, 2);
        assert_eq!(
            watch.count(other, of(Code::FunctionCrashed, 1), LIMIT),
            None,
            "versions are counted apart"
        );
    }

    #[test]
    fn strangers_never_bring_a_version_into_quarantine_and_neither_does_one_input() {
        let watch = Watch::default();
        let code = Code::FunctionOutOfMemory;
        for _ in 0..100 {
            assert_eq!(watch.count(KEY, of_stranger(code), LIMIT), None);
        }
        assert!(watch.failing.is_empty(), "nothing is kept of them");
        for nth in 0..100 {
            assert_eq!(watch.count(KEY, of(code, nth % 2), LIMIT), None, "two inputs");
        }
        assert_eq!(watch.count(KEY, of_stranger(code), LIMIT), None);
        assert_eq!(watch.count(KEY, of(code, 2), LIMIT), Some(101));
    }

    #[test]
    fn a_version_that_does_not_start_needs_no_input_to_be_at_fault() {
        let watch = Watch::default();
        let code = Code::FunctionLoadFailed;
        assert_eq!(watch.count(KEY, of_stranger(code), LIMIT), None);
        assert_eq!(watch.count(KEY, of(code, 1), LIMIT), None);
        assert_eq!(watch.count(KEY, of(code, 1), LIMIT), Some(3));
    }

    #[test]
    fn a_streak_that_takes_too_long_begins_anew() {
        let now = Instant::now();
        let old = Streak {
            starts: 9,
            ..Streak::new(now)
        };
        let after = |passed| {
            let mut streak = old.clone();
            streak.renew(now + passed, LIMIT.1);
            streak.starts
        };
        assert_eq!(after(Duration::from_secs(61)), 0);
        assert_eq!(after(Duration::from_secs(59)), 9);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let watch = Watch::default();
        let key = |number: usize| {
            let mut id = [0; 12];
            id[..8].copy_from_slice(&number.to_le_bytes());
            (FunctionId(id), 1)
        };
        let traffic = Traffic {
            weights: Default::default(),
            errors_permille_max: 100,
            calls_min: 1_000,
            since_ms: 5,
        };
        for number in 0..TRIALS_MAX + 10 {
            assert_eq!(watch.count(key(number), of(Code::FunctionCrashed, 1), LIMIT), None);
            assert!(watch.try_out(key(number), End::Failed, &traffic).is_none());
        }
        assert!(watch.failing.len() <= STREAKS_MAX && watch.trials.len() <= TRIALS_MAX);
        // What failed long ago makes room.
        let at_once = (3, Duration::ZERO);
        assert_eq!(watch.count(KEY, of(Code::FunctionCrashed, 1), at_once), None);
        assert_eq!(watch.failing.len(), 1);
    }

    #[test]
    fn no_stranger_has_a_canary_rolled_back_and_none_keeps_it() {
        let traffic = Traffic {
            weights: [(1, 90), (2, 10)].into(),
            errors_permille_max: 100,
            calls_min: 3,
            since_ms: 5,
        };
        let watch = Watch::default();
        let call = |end: End, by_owner| watch.try_out(KEY, end.of_caller(by_owner), &traffic);
        for _ in 0..50 {
            assert!(call(End::Failed, false).is_none(), "a stranger's bad input");
            assert!(call(of_stranger(Code::FunctionCrashed), false).is_none());
            assert!(call(End::Fine, false).is_none());
        }
        assert!(call(End::Failed, true).is_none());
        assert!(call(End::Fine, true).is_none(), "two calls that count");
        let trial = call(End::Failed, true).expect("however many good calls strangers made");
        assert_eq!((trial.calls, trial.errors), (3, 2));
        let other = Traffic {
            since_ms: 6,
            ..traffic.clone()
        };
        for _ in 0..2 {
            assert!(
                watch
                    .try_out(KEY, End::NoStart(Code::FunctionLoadFailed).of_caller(false), &other)
                    .is_none()
            );
        }
        let start = End::NoStart(Code::FunctionLoadFailed).of_caller(false);
        assert!(
            watch.try_out(KEY, start, &other).is_some(),
            "a failed start counts, whoever called"
        );
    }

    #[test]
    fn a_canary_is_judged_after_enough_calls_by_its_rate() {
        let traffic = Traffic {
            weights: [(1, 90), (2, 10)].into(),
            errors_permille_max: 100,
            calls_min: 10,
            since_ms: 5,
        };
        let watch = Watch::default();
        for _ in 0..9 {
            assert!(watch.try_out(KEY, End::Failed, &traffic).is_none(), "too few calls");
        }
        assert!(watch.try_out(KEY, End::Neutral, &traffic).is_none());
        let trial = watch.try_out(KEY, End::Fine, &traffic).expect("9 of 10 failed");
        assert_eq!((trial.calls, trial.errors), (10, 9));
        let anew = Traffic {
            since_ms: 6,
            ..traffic.clone()
        };
        assert!(
            watch.try_out(KEY, End::Failed, &anew).is_none(),
            "a new split counts anew"
        );
        let even = |errors| Trial {
            since_ms: 5,
            calls: 100,
            errors,
        };
        assert!(!fails(&even(10), &traffic) && fails(&even(11), &traffic));
    }
}
