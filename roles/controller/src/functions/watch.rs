//! Watches versions: one that keeps killing its instances is quarantined, and a canary that fails too often loses its
//! share.
//!
//! What counts towards quarantine is what costs the provider an instance that nobody pays for: a crash, memory beyond
//! the limit, code that no longer loads. An exception is an answer, and a timeout is paid for by whoever set it;
//! neither counts. Counts are in memory: a restart begins them anew, what was decided stays.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dashmap::DashMap;
use piecework_model::{AnyCode, Code, FunctionId};
use piecework_store::{Quarantine, Traffic};
use serde_json::json;

use crate::{
    Answer,
    accounts::audit,
    clock::now_ms,
    functions::{self, Functions, Live},
};

type Key = (FunctionId, u32);

#[derive(Default)]
pub(crate) struct Watch {
    /// Versions whose last run killed its instance.
    failing: DashMap<Key, Streak>,
    /// Versions that have a share beside the live one.
    trials: DashMap<Key, Trial>,
}

/// Failures with no other end between them.
#[derive(Clone, Copy)]
struct Streak {
    failures: u32,
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
    /// It killed its instance, or found no way to start one.
    Fatal(Code),
    /// Nothing of the version's making.
    Neutral,
}

impl End {
    /// By the code of the refusal, if there was one.
    pub(crate) fn of(code: Option<&AnyCode>) -> Self {
        let Some(code) = code else {
            return Self::Fine;
        };
        match code.known() {
            Some(
                code @ (Code::FunctionCrashed
                | Code::FunctionOutOfMemory
                | Code::FunctionLoadFailed
                | Code::FunctionNoHandler
                | Code::FunctionSyntaxError),
            ) => Self::Fatal(code),
            Some(
                Code::FunctionRaised
                | Code::FunctionTimedOut
                | Code::FunctionOutputTooLarge
                | Code::FunctionOutputInvalid,
            ) => Self::Failed,
            Some(_) | None => Self::Neutral,
        }
    }
}

impl Streak {
    /// One more; a streak that took longer than the window begins anew.
    fn extended(before: Option<Self>, now: Instant, window: Duration) -> Self {
        match before {
            Some(streak) if now.duration_since(streak.since) < window => Self {
                failures: streak.failures + 1,
                ..streak
            },
            Some(_) | None => Self {
                failures: 1,
                since: now,
            },
        }
    }
}

/// Whether the trial has failed.
fn fails(trial: &Trial, traffic: &Traffic) -> bool {
    trial.calls >= traffic.calls_min
        && u64::from(trial.errors) * 1_000 > u64::from(trial.calls) * u64::from(traffic.errors_permille_max)
}

impl Watch {
    /// The failures in a row, if this one makes it too many.
    fn count(&self, key: Key, end: End, (most, window): (u32, Duration)) -> Option<u32> {
        match end {
            End::Fatal(_) => {
                let before = self.failing.get(&key).map(|streak| *streak);
                let streak = Streak::extended(before, Instant::now(), window);
                self.failing.insert(key, streak);
                (streak.failures >= most).then_some(streak.failures)
            }
            End::Fine | End::Failed => {
                if !self.failing.is_empty() {
                    self.failing.remove(&key);
                }
                None
            }
            End::Neutral => None,
        }
    }

    fn try_out(&self, key: Key, end: End, traffic: &Traffic) -> Option<Trial> {
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
            End::Failed | End::Fatal(_) => {
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
pub(crate) async fn note(functions: &Functions, live: &Arc<Live>, end: End) -> Answer<()> {
    let key = (live.function.id, live.version.version);
    let limit = (
        functions.ground.tuning.quarantine_after,
        functions.ground.tuning.quarantine_window,
    );
    let too_many = functions.watch.count(key, end, limit);
    if let (Some(failures), End::Fatal(code)) = (too_many, end) {
        quarantine(functions, live, code, failures).await?;
    }
    let traffic = live.function.policy.traffic.as_ref();
    if let Some(traffic) = traffic.filter(|_| live.version.version != live.function.live_version)
        && let Some(trial) = functions.watch.try_out(key, end, traffic)
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

    #[test]
    fn only_what_kills_instances_in_a_row_counts() {
        let watch = Watch::default();
        let end = |code: Code| End::of(Some(&code.into()));
        let fatal = || end(Code::FunctionCrashed);
        let count = |end| watch.count(KEY, end, LIMIT);
        for end in [
            fatal(),
            fatal(),
            end(Code::FunctionRaised),
            fatal(),
            fatal(),
            End::of(None),
            fatal(),
            fatal(),
        ] {
            assert_eq!(count(end), None, "a run that did not kill its instance is between them");
        }
        assert_eq!(count(end(Code::ProviderNone)), None, "says nothing about the version");
        assert_eq!(count(fatal()), Some(3));
        assert_eq!(
            watch.count((KEY.0, 2), fatal(), LIMIT),
            None,
            "versions are counted apart"
        );
    }

    #[test]
    fn a_streak_that_takes_too_long_begins_anew() {
        let now = Instant::now();
        let old = Streak {
            failures: 9,
            since: now,
        };
        let later = now + Duration::from_secs(61);
        assert_eq!(Streak::extended(Some(old), later, LIMIT.1).failures, 1);
        assert_eq!(Streak::extended(Some(old), now, LIMIT.1).failures, 10);
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
