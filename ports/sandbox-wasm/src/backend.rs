//! The backend as the rest of the system sees it: loads programs, and starts their instances.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use piecework_model::{AccountId, Digest, JobId, Language, Limits, Rejection};
use piecework_sandbox::{
    Backend, BackendName, Call, CancellationToken, Instance, LoadError, Loaded, Outcome, Probe, Program, Raised,
};

use crate::{
    answer::{Answer, Syntax},
    host::Files,
    instance::{Broken, WasmInstance},
    logs::Logs,
    modules::Modules,
    program::{self, no_handler},
    runtime::Runtime,
    ticker::Ticker,
};

#[derive(Clone, Debug)]
pub struct Options {
    /// The component that `runtimes/build.sh` makes; `None`: the language is not offered.
    pub python: Option<PathBuf>,
    pub javascript: Option<PathBuf>,
    /// Where compiled components are kept. What lies there runs as native code: nobody else may write there.
    pub cache: PathBuf,
    /// Live instances at once, for each language; more are refused. Costs 4 GiB of address space each, no memory.
    pub instances_max: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum WasmError {
    #[error("cannot read the component {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot keep the compiled component {path}")]
    Cache { path: PathBuf, source: std::io::Error },
    #[error("cannot compile the component: {0:#}")]
    Compile(wasmtime::Error),
    #[error("cannot set the engine up: {0:#}")]
    Engine(wasmtime::Error),
    #[error("cannot start the ticker")]
    Ticker(#[source] std::io::Error),
}

impl WasmError {
    pub(crate) fn compile(error: wasmtime::Error) -> Self {
        Self::Compile(error)
    }

    pub(crate) fn engine(error: wasmtime::Error) -> Self {
        Self::Engine(error)
    }
}

/// Functions in wasmtime. Cheap to make: a language's component is compiled, or read from the cache, when it is first used.
pub struct Wasm {
    python: Slot,
    javascript: Slot,
}

impl Wasm {
    /// Fails only if no thread can be started.
    pub fn new(options: Options) -> Result<Self, WasmError> {
        let ticker = Ticker::start().map_err(WasmError::Ticker)?;
        let slot = |language, wasm| Slot::new(language, wasm, &options, &ticker);
        Ok(Self {
            python: slot(Language::Python, options.python.clone()),
            javascript: slot(Language::JavaScript, options.javascript.clone()),
        })
    }

    /// The languages that have a component on disk.
    pub fn languages(&self) -> Vec<Language> {
        let has = |language: &Language| self.slot(*language).wasm.as_deref().is_some_and(Path::is_file);
        Language::ALL.into_iter().filter(has).collect()
    }

    /// Compiles what is not compiled yet: seconds per language, blocking. Otherwise the first program waits for it.
    pub fn precompile(&self) -> Result<(), WasmError> {
        for language in self.languages() {
            self.slot(language).runtime()?;
        }
        Ok(())
    }

    fn slot(&self, language: Language) -> &Slot {
        match language {
            Language::Python => &self.python,
            Language::JavaScript => &self.javascript,
        }
    }

    async fn runtime(&self, language: Language) -> Result<Arc<Runtime>, LoadError> {
        let slot = self.slot(language);
        if let Some(runtime) = slot.ready() {
            return Ok(runtime);
        }
        if !slot.wasm.as_deref().is_some_and(Path::is_file) {
            return Err(LoadError::Unsupported {
                reason: format!("the wasm component of {language} is not installed; `runtimes/build.sh` makes it"),
            });
        }
        let slot = slot.clone();
        let made = tokio::task::spawn_blocking(move || slot.runtime()).await;
        let made = made.map_err(|error| LoadError::Failed(format!("compiling was interrupted: {error}")))?;
        made.map_err(|error| LoadError::Failed(error.to_string()))
    }
}

/// A language's runtime, made at its first use.
#[derive(Clone)]
struct Slot {
    language: Language,
    wasm: Option<PathBuf>,
    cache: PathBuf,
    instances_max: u32,
    ticker: Arc<Ticker>,
    made: Arc<Mutex<Option<Arc<Runtime>>>>,
}

impl Slot {
    fn new(language: Language, wasm: Option<PathBuf>, options: &Options, ticker: &Arc<Ticker>) -> Self {
        Self {
            language,
            wasm,
            cache: options.cache.clone(),
            instances_max: options.instances_max,
            ticker: Arc::clone(ticker),
            made: Arc::default(),
        }
    }

    /// The runtime if it exists and nobody is making it.
    fn ready(&self) -> Option<Arc<Runtime>> {
        self.made.try_lock()?.clone()
    }

    /// Blocks for seconds at first; a failure is tried again the next time.
    fn runtime(&self) -> Result<Arc<Runtime>, WasmError> {
        let mut made = self.made.lock();
        if let Some(runtime) = &*made {
            return Ok(Arc::clone(runtime));
        }
        let wasm = self.wasm.as_deref().unwrap_or(Path::new(""));
        let runtime = Runtime::new(self.language, wasm, &self.cache, self.instances_max, &self.ticker)?;
        Ok(Arc::clone(made.insert(Arc::new(runtime))))
    }
}

#[async_trait]
impl Backend for Wasm {
    fn name(&self) -> BackendName {
        BackendName::Wasm
    }

    async fn probe(&self) -> Probe {
        let mut probe = Probe {
            backend: BackendName::Wasm,
            works: false,
            languages: Vec::new(),
            detail: String::new(),
            weaker: vec!["no scratch space below /tmp, no threads, no processes, no network at all".to_owned()],
            cold_us: None,
            warm_us: None,
        };
        let mut failures = Vec::new();
        for language in Language::ALL {
            match self.try_out(language).await {
                Ok((cold, warm)) => {
                    probe.languages.push(language);
                    probe.cold_us = probe.cold_us.max(Some(micros(cold)));
                    probe.warm_us = probe.warm_us.max(Some(micros(warm)));
                }
                Err(reason) => failures.push(format!("{language}: {reason}")),
            }
        }
        probe.works = !probe.languages.is_empty();
        probe.detail = if failures.is_empty() {
            "wasmtime 48 ran QuickJS and CPython components".to_owned()
        } else {
            failures.join("; ")
        };
        probe
    }

    async fn load(&self, program: Arc<Program>) -> Result<Arc<dyn Loaded>, LoadError> {
        if !program.egress.is_empty() {
            let reason = "it has no network, and the function has an allow list".to_owned();
            return Err(LoadError::Unsupported { reason });
        }
        let runtime = self.runtime(program.language).await?;
        let template = Template::new(runtime, program)?;
        Ok(Arc::new(template.checked().await?))
    }

    /// Calls stop being polled at their next tick.
    fn freeze(&self, frozen: bool) -> bool {
        self.python.ticker.freeze.set(frozen);
        true
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What a probe runs, and how long it may take once the component is compiled.
const PROBE_TIMEOUT_MS: u32 = 5_000;
const PROBE_PYTHON: &str = "def handler(event, context):\n    return {'hello': event}\n";
const PROBE_JAVASCRIPT: &str = "export default (event) => ({ hello: event });\n";

impl Wasm {
    /// Cold and warm time of a small function, or why it did not answer.
    async fn try_out(&self, language: Language) -> Result<(Duration, Duration), String> {
        let directory = ProbeBundle::new(language).map_err(|error| format!("cannot write a bundle: {error}"))?;
        let limits = Limits {
            timeout_ms: PROBE_TIMEOUT_MS,
            ..Limits::DEFAULT
        };
        let program = directory.program(language, limits);
        let loaded = self.load(Arc::new(program)).await.map_err(|error| error.to_string())?;
        let mut times = Vec::new();
        let begun = Instant::now();
        let mut instance = loaded.start().await.map_err(|error| error.to_string())?;
        for _ in 0..2 {
            let begun = if times.is_empty() { begun } else { Instant::now() };
            let finished = instance.call(probe_call(limits)).await;
            times.push(begun.elapsed());
            if finished.outcome != Outcome::Returned(r#"{"hello":"probe"}"#.into()) {
                return Err(format!("the probe ended as {:?}", finished.outcome));
            }
        }
        Ok((times[0], times[1]))
    }
}

fn probe_call(limits: Limits) -> Call {
    Call {
        job: JobId([0; 16]),
        event: "\"probe\"".into(),
        parameters: "null".into(),
        deadline_ms: 0,
        time_left: Duration::from_millis(limits.timeout_ms.into()),
        stop: CancellationToken::new(),
        egress: piecework_sandbox::EgressMeter::default(),
        body: None,
        outlet: piecework_sandbox::Outlet::nowhere(),
    }
}

/// A directory of one file, removed when dropped.
struct ProbeBundle(PathBuf);

impl ProbeBundle {
    fn new(language: Language) -> std::io::Result<Self> {
        let source = match language {
            Language::Python => PROBE_PYTHON,
            Language::JavaScript => PROBE_JAVASCRIPT,
        };
        let name = format!("piecework-probe-{language}-{}-{:p}", std::process::id(), &source);
        let bundle = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&bundle.0)?;
        std::fs::write(bundle.0.join(language.entry_file()), source)?;
        Ok(bundle)
    }

    fn program(&self, language: Language, limits: Limits) -> Program {
        Program {
            owner: AccountId([1; 20]),
            language,
            code: Digest::of(b"probe"),
            directory: self.0.clone(),
            handler: None,
            env: std::collections::BTreeMap::new(),
            limits,
            egress: piecework_model::EgressList::default(),
            function_name: "probe".to_owned(),
            version: 1,
        }
    }
}

impl Drop for ProbeBundle {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "removing a probe's bundle failed");
        }
    }
}

/// A program on its runtime.
struct Template {
    runtime: Arc<Runtime>,
    program: Arc<Program>,
    setup: String,
    sources: Sources,
}

/// What instances are loaded from.
enum Sources {
    /// The compiled modules of the first instance; empty until then.
    Python(Vec<u8>),
    JavaScript(Arc<Modules>),
}

impl Template {
    fn new(runtime: Arc<Runtime>, program: Arc<Program>) -> Result<Self, LoadError> {
        let setup = program::setup_of(&program)?;
        let sources = match program.language {
            Language::Python => Sources::Python(Vec::new()),
            Language::JavaScript => {
                let modules = Modules::new(&program.directory);
                Sources::JavaScript(Arc::new(modules.map_err(|error| failed(&error))?))
            }
        };
        Ok(Self {
            runtime,
            program,
            setup,
            sources,
        })
    }

    /// Runs the program's module-level code once, and keeps what it compiled to.
    async fn checked(mut self) -> Result<Self, LoadError> {
        let mut instance = self.instance().await?;
        let compiled = instance.compiled().await.map_err(|broken| self.refused(broken))?;
        if let Sources::Python(code) = &mut self.sources {
            *code = compiled;
        }
        Ok(self)
    }

    async fn instance(&self) -> Result<WasmInstance, LoadError> {
        let logs = Logs::new(self.program.limits.log_bytes);
        let (files, code) = match &self.sources {
            Sources::Python(code) => (Files::Directory(&self.program.directory), code.clone()),
            Sources::JavaScript(modules) => (Files::Modules(Arc::clone(modules)), Vec::new()),
        };
        let store = self.runtime.store(logs, files).map_err(|error| failed(&error))?;
        let guest = self.runtime.guest(store).await.map_err(|error| failed(&error))?;
        let mut instance = WasmInstance::new(guest, Arc::clone(&self.runtime), self.program.limits);
        let answer = instance
            .load(self.setup.clone(), code)
            .await
            .map_err(|broken| self.refused(broken))?;
        match loaded(answer, instance.missing()) {
            Ok(()) => Ok(instance),
            Err(error) => {
                tracing::debug!(logs = instance.logs().text, "a program did not load");
                Err(error)
            }
        }
    }

    fn refused(&self, broken: Broken) -> LoadError {
        let limits = self.program.limits;
        load_failed(match broken {
            // Nothing stops a load.
            Broken::OutOfTime | Broken::Stopped => {
                format!("the module's own code took longer than {} ms", limits.timeout_ms)
            }
            Broken::OutOfMemory => format!(
                "the module's own code needs more than {} MiB",
                limits.memory_bytes >> 20
            ),
            Broken::Died(reason) | Broken::Invalid(reason) => {
                format!("the module's own code ended the instance: {reason}")
            }
            Broken::TooMuchStreamed => "the module's own code streamed".to_owned(),
        })
    }
}

#[async_trait]
impl Loaded for Template {
    async fn start(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(self.instance().await?))
    }

    fn memory_bytes(&self) -> u64 {
        match &self.sources {
            Sources::Python(code) => code.len() as u64,
            Sources::JavaScript(modules) => modules.memory_bytes(),
        }
    }
}

fn failed(error: &dyn std::fmt::Display) -> LoadError {
    LoadError::Failed(format!("{error:#}"))
}

fn load_failed(message: String) -> LoadError {
    LoadError::Code(Rejection::new("function.load_failed", message))
}

fn loaded(answer: Answer, missing: Option<&str>) -> Result<(), LoadError> {
    match answer {
        Answer::Done(_) => Ok(()),
        Answer::Raised(raised) => Err(match unsupported(&raised, missing) {
            Some(reason) => LoadError::Unsupported { reason },
            None => load_failed(format!("{}: {}\n{}", raised.kind, raised.message, raised.stack)),
        }),
        Answer::Syntax(Syntax { message, file, line }) => Err(LoadError::Code(Rejection::new(
            "function.syntax_error",
            format!("{file}, line {line}: {}", without_place(&message, &file, line)),
        ))),
        Answer::NoHandler(message) => Err(no_handler(message)),
        Answer::Unsupported(reason) => Err(LoadError::Unsupported { reason }),
        Answer::Exited(code) => Err(load_failed(format!("the module exited with code {code}"))),
        Answer::Invalid(reason) => Err(LoadError::Failed(reason)),
        Answer::Streamed => Err(load_failed("the module's own code streamed".to_owned())),
        Answer::NoMemory => Err(load_failed("the module's own code ran out of memory".to_owned())),
    }
}

/// Python says a syntax error's place at its end as well.
fn without_place<'a>(message: &'a str, file: &str, line: u32) -> &'a str {
    let name = file.rsplit('/').next().unwrap_or(file);
    message
        .strip_suffix(&format!(" ({name}, line {line})"))
        .unwrap_or(message)
}

/// Globals of Node and browsers that code for another sandbox may count on.
const FOREIGN_GLOBALS: [&str; 11] = [
    "fetch",
    "require",
    "module",
    "exports",
    "__dirname",
    "__filename",
    "Worker",
    "WebSocket",
    "Blob",
    "AbortController",
    "WebAssembly",
];

/// Why a module that failed at load may well load in another sandbox.
fn unsupported(raised: &Raised, missing: Option<&str>) -> Option<String> {
    if raised.kind != "ReferenceError" {
        return None;
    }
    if let Some(missing) = missing.filter(|name| raised.message.contains(*name)) {
        return Some(format!(
            "the module `{missing}` is not in the bundle and does not exist in WebAssembly"
        ));
    }
    let name = FOREIGN_GLOBALS
        .iter()
        .find(|name| raised.message == format!("{name} is not defined"))?;
    Some(format!("`{name}` does not exist in WebAssembly"))
}
