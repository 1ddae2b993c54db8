//! Gives a tentative run up where its sandbox falls short, so that another sandbox can have the job.
//!
//! A sandbox without a network has no effect outside but the answer: a run of which nothing went out can be forgotten.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use piecework_model::{AccountId, Code, Counters, Limits, Rejection};
use piecework_queue::{Order, Refusal};
use piecework_sandbox::{EXITED, FELL_SHORT, Finished, Logs, Outcome, Raised};

/// What a run is given up for: what its sandbox lacks, a trap of its interpreter, or memory that another might not need.
pub(crate) fn of_run(outcome: &Outcome) -> Option<Refusal> {
    match outcome {
        Outcome::FellShort(what) => Some(Rejection::new(
            Code::SandboxFellShort,
            format!("it does not have {what}"),
        )),
        // An exit is an exit anywhere.
        Outcome::Crashed(how) if how.starts_with(EXITED) => None,
        Outcome::Crashed(how) => Some(Rejection::new(Code::FunctionCrashed, how.clone())),
        Outcome::OutOfMemory => Some(Rejection::new(Code::FunctionOutOfMemory, "it ran out of memory")),
        Outcome::Returned(_)
        | Outcome::Streamed
        | Outcome::Raised(_)
        | Outcome::TimedOut
        | Outcome::Stopped
        | Outcome::OutputTooLarge
        | Outcome::OutputInvalid(_)
        | Outcome::Lost => None,
    }
}

/// Whether a start was refused because of the code, which had its turn to run.
pub(crate) fn is_of_code(refused: &Refusal) -> bool {
    const OF_CODE: [Code; 4] = [
        Code::FunctionLoadFailed,
        Code::FunctionNoHandler,
        Code::FunctionSyntaxError,
        Code::SandboxUnsupported,
    ];
    refused.code.is_one_of(&OF_CODE)
}

/// A start that was refused because the code does not load: another sandbox may load it.
pub(crate) fn of_start(order: &Order, refused: Refusal) -> Refusal {
    match order.is_tentative && is_of_code(&refused) {
        true => Rejection::new(Code::SandboxFellShort, refused.message),
        false => refused,
    }
}

/// A start that failed because of the code, as a run that is paid for: one core and all of its memory for as long as it took.
pub(crate) fn billed(limits: &Limits, refused: &Refusal, took: Duration) -> Finished {
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    Finished {
        outcome: Outcome::Crashed(format!("its code did not load: {}", refused.message)),
        logs: Logs::default(),
        counters: Counters {
            cpu_us: took_us,
            memory_byte_ms: limits.memory_bytes.saturating_mul(took_us.div_ceil(1_000)),
            egress_bytes: 0,
        },
        memory_peak_bytes: 0,
        duration: took,
        reusable: false,
    }
}

/// As a controller is told of a run that was not given up.
pub(crate) fn put_into_words(outcome: &mut Outcome) {
    if let Outcome::FellShort(what) = outcome {
        let message = std::mem::take(what);
        *outcome = Outcome::Raised(Raised {
            kind: FELL_SHORT.to_owned(),
            message,
            stack: String::new(),
        });
    }
}

/// What the runs of each developer took that were given up, or whose code did not load: nobody pays for them.
#[derive(Default)]
pub(crate) struct GivenUp(Mutex<HashMap<AccountId, Spent>>);

struct Spent {
    since: Instant,
    took: Duration,
}

/// Once a developer's runs have taken this long in a day, no more of them are given up, and starts that fail are paid for: a second
/// for each of sixty that began at once.
const FREE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
/// Developers that are remembered; beyond them those whose day is over are forgotten.
const DEVELOPERS: usize = 10_000;

impl GivenUp {
    /// Counts a run that is to be given up; whether it may be. It does not matter which version or function it is of: a new one
    /// costs nothing to make.
    pub(crate) fn takes(&self, developer: AccountId, took: Duration, now: Instant) -> bool {
        let mut all = self.0.lock();
        let is_over = |spent: &Spent| now.duration_since(spent.since) >= DAY;
        if all.len() >= DEVELOPERS {
            all.retain(|_, spent| !is_over(spent));
        }
        let fresh = || Spent {
            since: now,
            took: Duration::ZERO,
        };
        let spent = all.entry(developer).or_insert_with(fresh);
        if is_over(spent) {
            *spent = fresh();
        }
        let may = spent.took < FREE;
        if may {
            spent.took += took;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_developer_has_for_nothing_is_bounded_by_the_day() {
        let (given_up, now) = (GivenUp::default(), Instant::now());
        let (one, other) = (AccountId([1; 20]), AccountId([2; 20]));
        let second = Duration::from_secs(1);
        let free = (0..100).filter(|_| given_up.takes(one, second, now)).count();
        assert_eq!(free, 60);
        assert!(given_up.takes(other, 900 * second, now), "each has its own");
        assert!(!given_up.takes(other, second, now), "a long one is the last");
        assert!(given_up.takes(one, second, now + DAY));
    }

    #[test]
    fn a_run_is_given_up_for_its_sandbox_and_not_for_its_code() {
        let crashed = |how: &str| Outcome::Crashed(how.to_owned());
        let table = [
            (Outcome::FellShort("`Intl`".to_owned()), Some(Code::SandboxFellShort)),
            (crashed("wasm trap: call stack exhausted"), Some(Code::FunctionCrashed)),
            (Outcome::OutOfMemory, Some(Code::FunctionOutOfMemory)),
            (crashed("the function exited with code 3"), None),
            (Outcome::TimedOut, None),
            (Outcome::OutputTooLarge, None),
        ];
        for (outcome, code) in table {
            let gives_up = of_run(&outcome);
            assert_eq!(
                gives_up.as_ref().and_then(|refusal| refusal.code.known()),
                code,
                "{outcome:?}"
            );
            assert!(
                gives_up.is_none_or(|refusal| piecework_queue::gave_up(&refusal)),
                "{outcome:?}"
            );
        }
    }
}
