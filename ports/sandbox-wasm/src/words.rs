//! What this process, the zygotes and the workers say to each other.
//!
//! ```text
//! host --Order--> zygote: fork a worker, show it a bundle          packets of JSON, with descriptors
//! host --Errand--> worker: serve an instance on this stream, ...   packets of borsh, with a descriptor
//! host <--Ask, Said--> one instance's thread in a worker           a byte stream: length (u32, little-endian), then borsh
//!
//! Ask::Start           -->  <-- Started
//! Ask::Call            -->  <-- (Yielded) (Part | WantsPart)* Finished
//! Ask::Part, Ask::End, Ask::Stop  -->                   while a call runs
//! ```
//! A worker is not trusted with this: code that broke out of the engine may say anything in its name.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use piecework_model::{Counters, JobId, Limits};
use piecework_sandbox::{LoadError, Logs, Outcome, Sent};
use serde::{Deserialize, Serialize};

/// What a zygote is asked, and how it answers. One at a time.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Fork a worker; its control socket comes along, then the `cgroup.procs` files of its group.
    Fork(Forking),
    /// Bind a bundle of the host into the worker whose pidfd comes along.
    Bind { place: u32, bundle: Vec<u8> },
    /// Take it away again.
    Unbind { place: u32 },
}

/// What one worker is to be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Forking {
    /// The identity to take; none without root.
    pub(crate) id: Option<u32>,
    /// Private memory in all, where no control group limits it.
    pub(crate) memory_bytes: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The zygote stands.
    Ready,
    /// The worker's pidfd comes along.
    Forked,
    Done,
    Failed(String),
}

/// Where a worker sees its bundles.
pub(crate) fn place(number: u32) -> String {
    format!("/b/{number}")
}

/// Bundles that one worker sees at once.
pub(crate) const PLACES: u32 = 256;

/// What a worker is asked as a whole.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum Errand {
    /// Serve one instance on the stream that comes along.
    Serve,
    /// Let go of what is kept for a program.
    Forget(u64),
    Freeze(bool),
    /// Try what the walls must refuse, and say what they let through.
    Prove,
}

/// The answer to [`Errand::Prove`].
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Proof {
    /// What went through, each by its name.
    pub(crate) open: Vec<String>,
    /// Whether Landlock stands as well.
    pub(crate) landlock: bool,
}

#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum Ask {
    Start(Start),
    Call(Asked),
    /// A part of the request's body, as wanted.
    Part(Bytes),
    /// The end of the body.
    End,
    Stop,
}

#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Start {
    /// The program's number: what is kept of it is kept under that.
    pub(crate) number: u64,
    /// Where its bundle lies.
    pub(crate) place: u32,
    pub(crate) setup: String,
    pub(crate) limits: Limits,
}

#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Asked {
    pub(crate) job: JobId,
    pub(crate) event: Bytes,
    pub(crate) parameters: Bytes,
    pub(crate) deadline_ms: u64,
    pub(crate) time_left_us: u64,
    pub(crate) has_body: bool,
}

#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum Said {
    Started(Result<Standing, LoadError>),
    /// The call takes longer than its first moment.
    Yielded,
    Part(Sent),
    WantsPart,
    Finished(Ended),
}

#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Standing {
    /// Of the instance, at rest.
    pub(crate) memory_bytes: u64,
    /// Of what is kept for the program.
    pub(crate) kept_bytes: u64,
}

#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) logs: Logs,
    pub(crate) counters: Counters,
    pub(crate) memory_peak_bytes: u64,
    pub(crate) duration_us: u64,
    pub(crate) reusable: bool,
    /// Of the instance, at rest.
    pub(crate) memory_bytes: u64,
}

/// Told to the runner once, at load.
#[derive(Serialize)]
pub(crate) struct Setup<'a> {
    pub(crate) entry: &'a str,
    /// Empty: the default export.
    pub(crate) function: &'a str,
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) function_name: &'a str,
    pub(crate) version: u32,
}

/// What a frame may be longer than output and logs together: an error with its stack, and the rest of what is said.
const SLACK_BYTES: u64 = 256 << 10;
/// What a byte of logs takes at most: a line of its own, with level and time.
const LOG_BYTES_EACH: u64 = 12;

/// The longest frame that a worker may send about a program with these limits.
pub(crate) fn said_bytes_max(limits: &Limits) -> usize {
    let bytes = limits
        .output_bytes
        .saturating_add(limits.log_bytes.saturating_mul(LOG_BYTES_EACH))
        .saturating_add(SLACK_BYTES);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
