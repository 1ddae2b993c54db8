//! Gives a tentative run up where its sandbox falls short, so that another sandbox can have the job.
//!
//! A sandbox without a network has no effect outside but the answer: a run of which nothing went out can be forgotten.

use piecework_model::{Code, Rejection};
use piecework_queue::{Order, Refusal};
use piecework_sandbox::{EXITED, FELL_SHORT, Outcome, Raised};

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

/// A start that was refused because the code does not load: another sandbox may load it.
pub(crate) fn of_start(order: &Order, refused: Refusal) -> Refusal {
    const OF_CODE: [Code; 4] = [
        Code::FunctionLoadFailed,
        Code::FunctionNoHandler,
        Code::FunctionSyntaxError,
        Code::SandboxUnsupported,
    ];
    match order.is_tentative && refused.code.is_one_of(&OF_CODE) {
        true => Rejection::new(Code::SandboxFellShort, refused.message),
        false => refused,
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

#[cfg(test)]
mod tests {
    use super::*;

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
