//! The workbench of one case: makes programs, starts them, calls them, and looks at what came back.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use piecework_model::{AccountId, Digest, EgressList, JobId, Language, Limits};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use piecework_sandbox::{
    Backend, BackendName, Call, EgressMeter, Finished, Instance, LoadError, Loaded, Outcome, Outlet, Program,
};

/// A case passes, or says why not.
pub(super) type Check = Result<(), String>;

/// Fails the case with a sentence unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($sentence:tt)+) => {
        if !$condition {
            return Err(format!($($sentence)+));
        }
    };
}
pub(super) use ensure;

/// [`Outcome`] without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Returned,
    Streamed,
    Raised,
    TimedOut,
    Stopped,
    OutOfMemory,
    Crashed,
    OutputTooLarge,
    OutputInvalid,
    Lost,
    FellShort,
}

impl Kind {
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Returned(_) => Self::Returned,
            Outcome::Streamed => Self::Streamed,
            Outcome::Raised(_) => Self::Raised,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Stopped => Self::Stopped,
            Outcome::OutOfMemory => Self::OutOfMemory,
            Outcome::Crashed(_) => Self::Crashed,
            Outcome::OutputTooLarge => Self::OutputTooLarge,
            Outcome::OutputInvalid(_) => Self::OutputInvalid,
            Outcome::Lost => Self::Lost,
            Outcome::FellShort(_) => Self::FellShort,
        }
    }
}

/// What the machine may take beyond a timeout to kill and to answer.
pub(super) const TIMEOUT_SLACK: Duration = Duration::from_secs(1);

pub(super) struct Bench {
    backend: Arc<dyn Backend>,
    pub(super) language: Language,
    accepted: &'static [Kind],
    /// Bundles live as long as the case.
    bundles: Mutex<Vec<TempDir>>,
}

/// Limits of a case unless it sets its own: small enough to be hit quickly, large enough for a busy machine.
pub(super) const LIMITS: Limits = Limits {
    timeout_ms: 10_000,
    memory_bytes: 128 << 20,
    processes: 32,
    disk_bytes: 8 << 20,
    output_bytes: 1 << 20,
    log_bytes: 32 << 10,
    egress_bytes: 0,
};

impl Bench {
    pub(super) fn new(backend: Arc<dyn Backend>, language: Language, accepted: &'static [Kind]) -> Self {
        Self {
            backend,
            language,
            accepted,
            bundles: Mutex::default(),
        }
    }

    /// A program of one file, in the language of the case.
    pub(super) fn program(&self, python: &str, javascript: &str) -> Program {
        let source = match self.language {
            Language::Image => unreachable!("images have tests of their own"),
            Language::Python => python,
            Language::JavaScript => javascript,
        };
        self.bundle(&[(self.language.entry_file(), source)])
    }

    pub(super) fn bundle(&self, files: &[(&str, &str)]) -> Program {
        let directory = readable_directory();
        let mut text = String::new();
        for (name, source) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().expect("inside the bundle")).expect("a directory of the bundle");
            fs::write(&path, source).expect("a file of the bundle");
            text.push_str(&format!("{name}\0{source}\0"));
        }
        let program = Program {
            owner: AccountId([8; 20]),
            language: self.language,
            code: Digest::of(text.as_bytes()),
            directory: directory.path().to_owned(),
            handler: None,
            image: None,
            env: BTreeMap::new(),
            limits: LIMITS,
            egress: EgressList::default(),
            function_name: "conformance".to_owned(),
            version: 7,
        };
        self.bundles.lock().expect("no panic holds it").push(directory);
        program
    }

    pub(super) fn name(&self) -> BackendName {
        self.backend.name()
    }

    /// Whether the backend can do it; one that cannot has its jobs given back instead.
    pub(super) fn freeze(&self, frozen: bool) -> bool {
        self.backend.freeze(frozen)
    }

    pub(super) async fn load(&self, program: Program) -> Result<Arc<dyn Loaded>, LoadError> {
        self.backend.load(Arc::new(program)).await
    }

    pub(super) async fn start(&self, program: Program) -> Result<Running, String> {
        let limits = program.limits;
        let loaded = self
            .load(program)
            .await
            .map_err(|error| format!("did not load: {error}"))?;
        Running::of(loaded, limits).await
    }

    /// Loads, starts and calls once.
    pub(super) async fn once(&self, program: Program, event: &str) -> Result<Finished, String> {
        Ok(self.start(program).await?.call(event).await)
    }

    /// Loads, starts and calls once; the output is what matters.
    pub(super) async fn output(&self, program: Program, event: &str) -> Result<Value, String> {
        output(&self.once(program, event).await?)
    }

    /// Whether the outcome is the promised one, or one that the backend declared instead.
    pub(super) fn expect(&self, finished: &Finished, promised: &[Kind]) -> Check {
        let kind = Kind::of(&finished.outcome);
        ensure!(
            promised.contains(&kind) || self.accepted.contains(&kind),
            "expected {promised:?}, got {}",
            Told(finished)
        );
        Ok(())
    }

    /// The provider lives and serves others after an attack.
    pub(super) async fn still_serves(&self) -> Check {
        let echo = self.program(
            "def handler(event, context):\n    return event\n",
            "export default (event) => event;\n",
        );
        let said = self.output(echo, "\"alive\"").await?;
        ensure!(said == "alive", "after the attack another function returned {said}");
        Ok(())
    }
}

/// A loaded program with one live instance.
pub(super) struct Running {
    pub(super) loaded: Arc<dyn Loaded>,
    pub(super) instance: Box<dyn Instance>,
    limits: Limits,
}

impl Running {
    pub(super) async fn of(loaded: Arc<dyn Loaded>, limits: Limits) -> Result<Self, String> {
        let instance = start(&loaded).await?;
        Ok(Self {
            loaded,
            instance,
            limits,
        })
    }

    pub(super) async fn call(&mut self, event: &str) -> Finished {
        self.instance.call(call(event, &self.limits)).await
    }

    pub(super) fn a_call(&self, event: &str) -> Call {
        call(event, &self.limits)
    }

    /// Replaces the instance by a fresh one if it may not be used again.
    pub(super) async fn renew(&mut self, reusable: bool) -> Check {
        if !reusable {
            self.instance = start(&self.loaded).await?;
        }
        Ok(())
    }
}

pub(super) async fn start(loaded: &Arc<dyn Loaded>) -> Result<Box<dyn Instance>, String> {
    loaded.start().await.map_err(|error| format!("did not start: {error}"))
}

pub(super) fn call(event: &str, limits: &Limits) -> Call {
    let time_left = Duration::from_millis(limits.timeout_ms.into());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Call {
        job: JobId([7; 16]),
        event: Bytes::copy_from_slice(event.as_bytes()),
        parameters: Bytes::from_static(b"null"),
        deadline_ms: u64::try_from((now + time_left).as_millis()).expect("fits for ages"),
        time_left,
        stop: CancellationToken::new(),
        egress: EgressMeter::default(),
        body: None,
        outlet: Outlet::nowhere(),
    }
}

pub(super) fn output(finished: &Finished) -> Result<Value, String> {
    match &finished.outcome {
        Outcome::Returned(json) => serde_json::from_slice(json).map_err(|error| format!("not JSON: {error}")),
        Outcome::Streamed
        | Outcome::Raised(_)
        | Outcome::TimedOut
        | Outcome::Stopped
        | Outcome::OutOfMemory
        | Outcome::Crashed(_)
        | Outcome::OutputTooLarge
        | Outcome::OutputInvalid(_)
        | Outcome::FellShort(_)
        | Outcome::Lost => Err(format!("expected an output, got {}", Told(finished))),
    }
}

/// A call's end in one line, for a failure's reason.
pub(super) struct Told<'a>(pub(super) &'a Finished);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome: String = format!("{:?}", self.0.outcome).chars().take(600).collect();
        let logs: String = self.0.logs.text.chars().take(600).collect();
        write!(
            f,
            "{outcome} after {:?}, reusable {}, logs {logs:?}",
            self.0.duration, self.0.reusable
        )
    }
}

/// A mark for the command lines of an attack's processes, which no other test uses.
pub(super) fn mark() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    format!("pw-mark-{}-{}", std::process::id(), now.as_nanos())
}

/// Processes of this machine whose command line holds the mark; none where there is no `/proc`.
pub(super) fn marked_processes(mark: &str) -> usize {
    let Ok(entries) = fs::read_dir("/proc") else {
        return 0;
    };
    entries
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| line.windows(mark.len()).any(|window| window == mark.as_bytes()))
        .count()
}

/// Waits until the number of marked processes satisfies `wanted`, within a deadline.
pub(super) async fn wait_for_marked(mark: &str, wanted: fn(usize) -> bool, within: Duration) -> Check {
    let begun = Instant::now();
    loop {
        let count = marked_processes(mark);
        if wanted(count) {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < within,
            "after {within:?} there are {count} processes of the attack"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn readable_directory() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("bundle-")
        .tempdir()
        .expect("a temporary directory");
    open_to_all(directory.path());
    directory
}

#[cfg(unix)]
fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own directory");
}

#[cfg(not(unix))]
fn open_to_all(_: &Path) {}
