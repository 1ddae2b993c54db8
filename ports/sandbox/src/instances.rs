//! What backends whose instances are processes of this machine do alike: how many processes one may have, what loading costs nobody,
//! and what is said of an instance that ended.

use std::time::Duration;

use piecework_model::{Counters, Language, Limits};

use crate::{
    Finished, LoadError, Logs, Outcome, Printed, Program,
    runner::{NotLoaded, load_failed},
};

/// CPU time of loading that nobody is billed: what the interpreter itself takes to import a small module.
pub const LOAD_FREE_US: u64 = 10_000;
/// Threads that Node itself has at rest, beyond the one that the function sees.
const NODE_THREADS: u64 = 7;
/// Of the runner of images while it serves a call.
const IMAGE_RUNNER_THREADS: u64 = 4;
/// V8 aborts at its own limit, a little below the sandbox's.
const V8_LAST_WORDS: &[u8] = b"JavaScript heap out of memory";
const SIGKILL: i32 = 9;

/// Processes and threads of one instance: the function's, and those that its runner needs itself.
pub fn tasks_max(language: Language, limits: &Limits) -> u64 {
    let own = match language {
        Language::Python => 0,
        Language::JavaScript => NODE_THREADS,
        Language::Image => IMAGE_RUNNER_THREADS,
    };
    u64::from(limits.processes.max(1)) + own
}

/// Node's option that bounds its heap. V8 collects harder near its own limit; the rest is for what lies outside its heap.
pub fn node_heap(limits: &Limits) -> String {
    let heap_mib = (limits.memory_bytes >> 20) * 3 / 4;
    format!("--max-old-space-size={}", heap_mib.max(16))
}

/// Peak times wall time, rounded up once.
pub fn byte_ms(bytes: u64, duration: Duration) -> u64 {
    let product = u128::from(bytes) * duration.as_micros();
    u64::try_from(product.div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// Of a call that found its instance gone.
pub fn had_ended() -> Finished {
    Finished {
        outcome: Outcome::Crashed("the instance had ended before this call".to_owned()),
        logs: Logs::default(),
        counters: Counters::default(),
        memory_peak_bytes: 0,
        duration: Duration::ZERO,
        reusable: false,
    }
}

/// How an instance ended whose runner closed its channel: `status` is its exit code, or its signal as a negative number.
pub fn why_it_ended(status: Option<i32>, hit_memory_limit: bool, printed: &Printed) -> Outcome {
    if hit_memory_limit || printed.contains(V8_LAST_WORDS) {
        return Outcome::OutOfMemory;
    }
    Outcome::Crashed(match status {
        Some(code) if code >= 0 => format!("the process exited with code {code}"),
        Some(signal) => format!("the process was ended by signal {}", -signal),
        None => "the process closed its output channel".to_owned(),
    })
}

/// Whether the program of an image that is run once for each call was ended by the kernel for its memory: its runner saw a signal.
pub fn ended_for_memory(outcome: &Outcome, hit_memory_limit: bool) -> bool {
    match outcome {
        Outcome::Raised(raised) => {
            hit_memory_limit && raised.kind == "ProgramExited" && raised.message.ends_with(&format!("signal {SIGKILL}"))
        }
        Outcome::Returned(_)
        | Outcome::Streamed
        | Outcome::TimedOut
        | Outcome::Stopped
        | Outcome::OutOfMemory
        | Outcome::Crashed(_)
        | Outcome::OutputTooLarge
        | Outcome::OutputInvalid(_)
        | Outcome::FellShort(_)
        | Outcome::Lost => false,
    }
}

/// How a load ended that gave no instance.
#[derive(Debug)]
pub enum LoadEnd {
    NotLoaded(NotLoaded),
    /// The channel closed; how the instance ended.
    Ended(Outcome),
    OutOfTime(Duration),
    OutOfMemory,
}

/// What its developer is told.
pub fn not_loaded(program: &Program, end: LoadEnd) -> LoadError {
    let failed = |message: String| LoadError::Code(load_failed(message));
    let moment = match program.image.as_ref().map(|image| image.port) {
        None => "while the module was imported".to_owned(),
        Some(None) => "while the image was made ready".to_owned(),
        Some(Some(port)) => format!("before the image accepted connections at port {port}"),
    };
    match end {
        LoadEnd::NotLoaded(NotLoaded::Refused(rejection)) => LoadError::Code(rejection),
        LoadEnd::NotLoaded(NotLoaded::ByHand) => failed("the module wrote to the output channel by hand".to_owned()),
        LoadEnd::NotLoaded(NotLoaded::Closed) => failed(format!("{moment}, the process closed its channel")),
        LoadEnd::Ended(Outcome::OutOfMemory) | LoadEnd::OutOfMemory => {
            failed(format!("the memory limit was hit {moment}"))
        }
        LoadEnd::Ended(Outcome::Crashed(reason)) => failed(format!("{moment}, {reason}")),
        LoadEnd::Ended(other) => failed(format!("{other:?}")),
        LoadEnd::OutOfTime(within) if program.image.is_some() => {
            failed(format!("the time limit of {within:?} passed {moment}"))
        }
        LoadEnd::OutOfTime(within) => failed(format!("importing the module took longer than {within:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Raised;

    #[test]
    fn the_runners_own_threads_are_not_the_functions() {
        let limits = Limits {
            processes: 8,
            ..Limits::DEFAULT
        };
        let all = [Language::Python, Language::JavaScript, Language::Image];
        assert_eq!(all.map(|language| tasks_max(language, &limits)), [8, 15, 12]);
    }

    #[test]
    fn memory_times_time_is_rounded_up() {
        assert_eq!(byte_ms(3, Duration::from_micros(1_500)), 5);
        assert_eq!(byte_ms(u64::MAX, Duration::from_secs(10)), u64::MAX);
    }

    #[test]
    fn an_end_is_told_by_its_code_its_signal_or_its_memory() {
        let printed = Printed::new(100);
        let said = |status, hit| format!("{:?}", why_it_ended(status, hit, &printed));
        assert!(said(Some(3), false).contains("code 3"));
        assert!(said(Some(-9), false).contains("signal 9"));
        assert_eq!(said(Some(-9), true), "OutOfMemory");
    }

    #[test]
    fn a_program_that_was_killed_is_out_of_memory_only_where_the_limit_was_hit() {
        let raised = |message: &str| {
            Outcome::Raised(Raised {
                kind: "ProgramExited".to_owned(),
                message: message.to_owned(),
                stack: String::new(),
            })
        };
        let killed = raised("the program was ended by signal 9");
        assert!(ended_for_memory(&killed, true) && !ended_for_memory(&killed, false));
        assert!(!ended_for_memory(&raised("the program exited with code 9"), true));
    }
}
