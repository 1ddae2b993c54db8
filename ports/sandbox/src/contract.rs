//! What every backend promises; `conformance` holds them to it.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    num::NonZeroU32,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
pub use piecework_model::BackendName;
use piecework_model::{
    AccountId, Counters, Digest, EgressList, JobId, Language, LeaseId, Limits, Rejection, typescript,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{Inlet, Logs, Outlet};

/// One version of one function, ready to load: what an instance is bound to for life.
#[derive(Clone)]
pub struct Program {
    /// Whose it is, or where that is not known what stands for it: programs of different owners never share a process.
    pub owner: AccountId,
    pub language: Language,
    /// Names the code; two programs of different digests never share an instance.
    pub code: Digest,
    /// The unpacked bundle; only read. Its entry file and whatever lies beside it (packages below `packages/` for Python,
    /// `node_modules/` for JavaScript).
    pub directory: PathBuf,
    /// `file` or `file:function`; by default `main.py:handler` and the default export of `main.mjs`. For a TypeScript file the JavaScript
    /// beside it is loaded ([`typescript::loaded`]).
    pub handler: Option<String>,
    /// The container image that is run in place of code: then language is [`Language::Image`], and the directory has only its
    /// description.
    pub image: Option<Image>,
    /// Plain and secret variables together. Never logged: see `Debug`.
    pub env: BTreeMap<String, String>,
    pub limits: Limits,
    /// What it may reach on the network while a call runs; empty: nothing.
    pub egress: EgressList,
    pub function_name: String,
    pub version: u32,
}

/// A container image, unpacked and ready to be run.
#[derive(Clone, Debug)]
pub struct Image {
    /// Where the layers lie side by side; only read.
    pub layers_in: PathBuf,
    /// The names of the layers' directories there, the lowest first: short, without `:`, `,` and `\`. Whiteouts are as overlayfs
    /// has them: devices of the number 0, and directories with the attribute `user.overlay.opaque`.
    pub layers: Vec<String>,
    /// The program with its arguments.
    pub arguments: Vec<String>,
    /// Where it starts; made if it is not there.
    pub directory: String,
    /// Which user and group the image runs as, inside.
    pub user: (u32, u32),
    /// Whether it is a server, and at which port of 127.0.0.1; else it is run once for each call, with the input on standard
    /// input.
    pub port: Option<u16>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("language", &self.language)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

/// One invocation.
#[derive(Clone, Debug)]
pub struct Call {
    pub job: JobId,
    /// The event as JSON text (UTF-8, already checked).
    pub event: Bytes,
    /// `context.parameters` as JSON text; `null` if none.
    pub parameters: Bytes,
    /// Unix milliseconds; told to the function as `context.deadline_ms`.
    pub deadline_ms: u64,
    /// What is left of the function's timeout for this call; at most `limits.timeout_ms`.
    pub time_left: Duration,
    /// Ends the call early with [`Outcome::Stopped`], its counters and its logs.
    pub stop: CancellationToken,
    /// Counts what this call moves over the network and streams, for whoever cancels it too.
    pub egress: EgressMeter,
    /// The body of the request, where it is too large for the event or its length is not known: `context.body`.
    pub body: Option<Inlet>,
    /// Where the answer goes while the call runs, where the function streams it. From its head on, the call ends with
    /// [`Outcome::Stopped`] as soon as nobody reads any more, also while the function writes nothing; before that only
    /// [`Self::stop`] ends it. Time spent waiting for the reader counts towards the timeout and takes no CPU.
    pub outlet: Outlet,
}

/// Bytes moved so far, over the network and as a streamed answer; clones count together.
#[derive(Clone, Debug, Default)]
pub struct EgressMeter(Arc<Moved>);

#[derive(Debug, Default)]
struct Moved {
    payer: Option<LeaseId>,
    network: AtomicU64,
    streamed: AtomicU64,
}

impl EgressMeter {
    /// Of a call that this lease pays for: what its calls hold of a thing that all share is counted together.
    pub fn of(payer: LeaseId) -> Self {
        Self(Arc::new(Moved {
            payer: Some(payer),
            ..Moved::default()
        }))
    }

    /// None of a call that nobody pays for, like a probe's.
    pub fn payer(&self) -> Option<LeaseId> {
        self.0.payer
    }

    /// All that is billed: over the network, to and fro, and streamed.
    pub fn bytes(&self) -> u64 {
        let network = self.0.network.load(Ordering::Acquire);
        network.saturating_add(self.streamed_bytes())
    }

    pub fn streamed_bytes(&self) -> u64 {
        self.0.streamed.load(Ordering::Acquire)
    }

    /// Counts `bytes` of the network unless their sum would exceed `limit`; whether it counted.
    pub fn take(&self, bytes: u64, limit: u64) -> bool {
        count(&self.0.network, bytes, limit)
    }

    /// Counts `bytes` of a streamed answer unless their sum would exceed `limit`; whether it counted. The network's limit is
    /// apart: a function without a network streams all the same.
    pub fn take_streamed(&self, bytes: u64, limit: u64) -> bool {
        count(&self.0.streamed, bytes, limit)
    }
}

fn count(sum: &AtomicU64, bytes: u64, limit: u64) -> bool {
    sum.fetch_update(Ordering::AcqRel, Ordering::Acquire, |sum| {
        sum.checked_add(bytes).filter(|sum| *sum <= limit)
    })
    .is_ok()
}

/// What stands at the end of logs that were cut.
pub fn logs_cut(limit_bytes: impl fmt::Display, dropped_bytes: u64) -> String {
    format!("\n{LOGS_CUT}{limit_bytes} bytes; {dropped_bytes} more were dropped]\n")
}

/// How the line of [`logs_cut`] begins.
pub const LOGS_CUT: &str = "[the logs were cut at ";

/// How a call ended. Whatever ended badly, the provider lives and its other instances notice nothing.
#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub enum Outcome {
    /// The output as JSON text; `bytes` in Python and `Uint8Array` in JavaScript become `{"$bytes": "<base64>"}`.
    Returned(Bytes),
    /// The handler raised.
    Raised(Raised),
    TimedOut,
    /// Ended from outside, by [`Call::stop`].
    Stopped,
    OutOfMemory,
    /// The process or wasm instance ended by itself: an exit, a signal, a trap.
    Crashed(String),
    /// More than `limits.output_bytes`, or than [`Limits::stream_bytes`] as a stream.
    OutputTooLarge,
    /// Neither JSON nor a stream of chunks under a head, or written to the output channel by hand.
    OutputInvalid(String),
    /// The output went through [`Call::outlet`], all of it.
    Streamed,
    /// The process that several programs of its owner share died, and which of them ended it is not known. Not the call's fault:
    /// it may run again. Never sent to a controller: a provider hands such a job back.
    Lost,
    /// The call touched what this sandbox lacks, or has in another form than the language's usual interpreter, and was ended
    /// there: what it touched, in a few words. Never sent to a controller: see [`FELL_SHORT`].
    FellShort(String),
}

/// The type of the error by which a controller is told of [`Outcome::FellShort`].
pub const FELL_SHORT: &str = "SandboxUnsupported";

/// The type of the error by which the adapter of `fetch` says that a schedule called a module without `scheduled()`.
pub const NO_SCHEDULED: &str = "NoScheduledHandler";

/// How [`Outcome::Crashed`] begins where the function ended itself.
pub const EXITED: &str = "the function exited with code";

/// What an error says of itself (its type, its message, its stack, or how a process ended) is each cut at this length.
pub const ERROR_TEXT_BYTES_MAX: usize = 16 << 10;

impl Outcome {
    /// Cuts what an error says to [`ERROR_TEXT_BYTES_MAX`]: code in a sandbox, or a provider, may have written it by hand.
    pub fn cut_error_text(&mut self) {
        match self {
            Self::Raised(raised) => {
                for text in [&mut raised.kind, &mut raised.message, &mut raised.stack] {
                    cut(text);
                }
            }
            Self::Crashed(text) | Self::OutputInvalid(text) | Self::FellShort(text) => cut(text),
            Self::Returned(_)
            | Self::Streamed
            | Self::TimedOut
            | Self::Stopped
            | Self::OutOfMemory
            | Self::OutputTooLarge
            | Self::Lost => {}
        }
    }
}

fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(ERROR_TEXT_BYTES_MAX));
}

/// An exception as the developer may see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Raised {
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
    /// As the language prints it, without the runner's own frames; at most 16 KiB.
    pub stack: String,
}

impl Raised {
    /// With the names of TypeScript files in place of those that were made of them.
    #[must_use]
    pub fn as_deployed(mut self) -> Self {
        for text in [&mut self.message, &mut self.stack] {
            if let Cow::Owned(shown) = typescript::as_deployed(text) {
                *text = shown;
            }
        }
        self
    }
}

/// The answer to one call.
#[derive(Clone, Debug)]
pub struct Finished {
    pub outcome: Outcome,
    /// Standard output and error in order, cut with a marker at `limits.log_bytes`.
    pub logs: Logs,
    /// The bytes of a streamed answer are among `egress_bytes`, also those of one that ended badly.
    pub counters: Counters,
    pub memory_peak_bytes: u64,
    /// Wall time of the handler.
    pub duration: Duration,
    /// Whether the instance may take another call of the same program.
    pub reusable: bool,
}

/// Why a program does not load. Told at deploy time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, BorshSerialize, BorshDeserialize)]
pub enum LoadError {
    /// The code itself is at fault (`function.syntax_error` with its line, `function.no_handler`, `function.load_failed`);
    /// another backend would say the same.
    #[error("{0}")]
    Code(Rejection),
    /// This backend lacks something that the code needs (a native package, a module); another may have it.
    #[error("{reason}")]
    Unsupported { reason: String },
    /// The world failed; nothing is said about the code.
    #[error("{0}")]
    Failed(String),
}

/// What a probe saw by running something inside a sandbox of this backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Probe {
    pub backend: BackendName,
    pub works: bool,
    /// Languages that ran.
    pub languages: Vec<Language>,
    /// One sentence: the technology and version that answered, or why it does not work and what to install.
    pub detail: String,
    /// Limits of this backend on this machine that differ from the full set (say, no cgroups without root).
    pub weaker: Vec<String>,
    pub cold_us: Option<u64>,
    pub warm_us: Option<u64>,
}

/// One isolation technology on this machine.
#[async_trait]
pub trait Backend: Send + Sync {
    fn name(&self) -> BackendName;

    /// Runs something inside, with a time limit of its own; an open device or a found binary proves nothing.
    async fn probe(&self) -> Probe;

    /// Loads the program: compiles its source, imports its entry module once inside a sandbox, finds the handler.
    /// Module-level code runs under the program's limits.
    async fn load(&self, program: Arc<Program>) -> Result<Arc<dyn Loaded>, LoadError>;

    /// Stops every instance where it is, or lets all go on. Blocks for some milliseconds; a few later nothing of them takes
    /// CPU time. Frozen time is not billed and does not count against timeouts. `false` where this cannot be done
    /// here: nothing has changed then.
    fn freeze(&self, _frozen: bool) -> bool {
        false
    }

    /// What its processes beside this one have used and hold. Nothing where instances run in this process.
    fn beside(&self) -> Beside {
        Beside::default()
    }
}

/// The cost of processes that a backend runs beside its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Since the backend began.
    pub cpu_us: u64,
    pub memory_bytes: u64,
}

/// A program that can be started.
#[async_trait]
pub trait Loaded: Send + Sync {
    /// A fresh instance, with nothing left from any other.
    async fn start(&self) -> Result<Box<dyn Instance>, LoadError>;

    /// What loading has used until now is billed to no call: it was a deploy's, which has a price of its own.
    fn forgive(&self) {}

    /// Bytes that an idle template holds beyond its instances.
    fn memory_bytes(&self) -> u64 {
        0
    }
}

/// One live sandbox, or one of several handles to it. Dropping the last handle kills every process in it and frees what it
/// held.
#[async_trait]
pub trait Instance: Send {
    /// Runs the handler once. Never fails: whatever happens is an [`Outcome`]. Dropping the future kills the instance. Its
    /// counters include what the instance used since its last answer, and for the first call what importing the program took
    /// beyond a small allowance. A moment after the answer, nothing of the instance runs.
    async fn call(&mut self, call: Call) -> Finished;

    /// Bytes that the instance holds at rest.
    fn memory_bytes(&self) -> u64;

    /// Whether it can serve another call: it may end between two of them, by itself or because it left processes behind.
    fn is_alive(&self) -> bool {
        true
    }

    /// How many calls it serves at the same time: one, unless its workload serves several
    /// ([`piecework_model::Workload::serves_at_once`]).
    fn concurrency(&self) -> NonZeroU32 {
        NonZeroU32::MIN
    }

    /// A further handle to the same sandbox, for a call beside those that run. `None` where [`Self::concurrency`] handles
    /// are out.
    fn another(&self) -> Option<Box<dyn Instance>> {
        None
    }
}
