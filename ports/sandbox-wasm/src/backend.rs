//! The backend as the rest of the system sees it: loads programs, whose instances live in workers.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    thread::{JoinHandle, Thread},
    time::Duration,
};

use async_trait::async_trait;
use piecework_model::Language;
use piecework_sandbox::{Backend, BackendName, Beside, Freeze, LoadError, Loaded, Probe, Program};
use piecework_sandbox_jail::walls::Cgroups;

use crate::{
    Component, Tell,
    crew::{Crew, CrewOptions},
    probe,
    remote::{Hosted, Template},
};

#[derive(Clone)]
pub struct Options {
    /// The component that `runtimes/build.sh` makes; `None`: the language is not offered.
    pub python: Option<Component>,
    pub javascript: Option<Component>,
    /// Where compiled components are kept. What lies there runs as native code: nobody else may write there.
    pub cache: PathBuf,
    /// The executable to start again as a zygote; it calls [`crate::zygote_main`].
    pub zygote: PathBuf,
    /// Live instances of one owner at once, for each language; more are refused. Costs 4 GiB of address space each, no memory.
    pub instances_max: u32,
    /// Cores that one owner's instances may use together, where there are control groups.
    pub cores: u32,
    /// Work as without root: no cgroups, a user namespace around everything. Set by itself where this process is not root.
    pub rootless: bool,
    /// Is told that a component is compiled, which takes up to a minute.
    pub tell: Option<Tell>,
}

#[derive(Debug, thiserror::Error)]
pub enum WasmError {
    #[error("this build of Piecework has no wasm interpreter for {0}")]
    NoComponent(Language),
    #[error("cannot read the component {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot unpack the component inside this executable")]
    Unpack(#[source] std::io::Error),
    #[error("cannot keep the compiled component {path}")]
    Cache { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} holds code that runs as this program, and another user can change it; make it yours alone (chown, chmod go-w), or \
         delete it and let this program make it anew"
    )]
    SharedCache { path: PathBuf },
    #[error("cannot compile the component: {0:#}")]
    Compile(wasmtime::Error),
    #[error("cannot set the engine up: {0:#}")]
    Engine(wasmtime::Error),
    #[error("the zygote of the workers does not start: {0}")]
    Zygote(std::io::Error),
    #[error("a worker does not start: {0}")]
    Worker(std::io::Error),
    #[error("no more workers can be started")]
    TooManyWorkers,
    #[error("cannot start the thread that looks after the workers")]
    Thread(#[source] std::io::Error),
}

/// Functions in wasmtime, in worker processes. Cheap to make: a language's component is compiled, or read from the cache, and
/// its zygote started, when it is first used. Dropping it ends every process that it started.
pub struct Wasm {
    pub(crate) python: Arc<Crew>,
    pub(crate) javascript: Arc<Crew>,
    pub(crate) cgroups: Option<Arc<Cgroups>>,
    pub(crate) weaker: Vec<String>,
    freeze: Freeze,
    _keeper: Keeper,
}

impl Wasm {
    /// Fails only if no thread can be started.
    pub fn new(options: Options) -> Result<Self, WasmError> {
        let root = rustix::process::geteuid().is_root();
        let privileged = root && !options.rootless;
        let found = match privileged {
            true => Cgroups::find(),
            false => Err("this process is not root".to_owned()),
        };
        let (cgroups, weaker) = match found {
            Ok(cgroups) => (Some(cgroups), Vec::new()),
            Err(reason) => (None, vec![without_groups(&reason)]),
        };
        let crew_options = CrewOptions {
            executable: options.zygote,
            cache: options.cache,
            tell: options.tell,
            instances_max: options.instances_max,
            cores: options.cores,
            privileged,
            gives_up_root: root && options.rootless,
        };
        let freeze = Freeze::default();
        let crew = |language, component| {
            let shared = (cgroups.clone(), freeze.clone());
            Arc::new(Crew::new(language, component, crew_options.clone(), shared))
        };
        let python = crew(Language::Python, options.python);
        let javascript = crew(Language::JavaScript, options.javascript);
        let keeper = Keeper::start([&python, &javascript]).map_err(WasmError::Thread)?;
        Ok(Self {
            python,
            javascript,
            cgroups,
            weaker,
            freeze,
            _keeper: keeper,
        })
    }

    /// The languages that have a component.
    pub fn languages(&self) -> Vec<Language> {
        let offered = |language: &Language| self.crew(*language).is_offered();
        Language::ALL.into_iter().filter(offered).collect()
    }

    /// Compiles what is not compiled yet and starts the zygotes: seconds per language at first, blocking. Otherwise the first
    /// program waits for it.
    pub fn precompile(&self) -> Result<(), WasmError> {
        for language in self.languages() {
            self.crew(language).stand()?;
        }
        Ok(())
    }

    fn crew(&self, language: Language) -> &Arc<Crew> {
        match language {
            Language::Python => &self.python,
            Language::JavaScript => &self.javascript,
            Language::Image => unreachable!("no image is loaded here"),
        }
    }

    /// The language's workers, once they can be forked.
    pub(crate) async fn standing(&self, language: Language) -> Result<Arc<Crew>, LoadError> {
        let crew = Arc::clone(self.crew(language));
        if crew.stands() {
            return Ok(crew);
        }
        if !crew.is_offered() {
            return Err(LoadError::Unsupported {
                reason: format!(
                    "this build of Piecework has no wasm interpreter for {language}; run `runtimes/build.sh`, then build it again"
                ),
            });
        }
        let made = tokio::task::spawn_blocking({
            let crew = Arc::clone(&crew);
            move || crew.stand().map(drop)
        });
        let made = made
            .await
            .map_err(|error| LoadError::Failed(format!("compiling was interrupted: {error}")))?;
        made.map_err(|error| LoadError::Failed(error.to_string()))?;
        Ok(crew)
    }
}

fn without_groups(reason: &str) -> String {
    format!(
        "no control groups ({reason}): the memory of an owner's instances is limited one by one and by a generous limit of \
         address space, and their CPU has no quota"
    )
}

#[async_trait]
impl Backend for Wasm {
    fn name(&self) -> BackendName {
        BackendName::Wasm
    }

    async fn probe(&self) -> Probe {
        probe::probe(self).await
    }

    async fn load(&self, program: Arc<Program>) -> Result<Arc<dyn Loaded>, LoadError> {
        if !program.egress.is_empty() {
            let reason = "it has no network, and the function has an allow list".to_owned();
            return Err(LoadError::Unsupported { reason });
        }
        if program.image.is_some() {
            let reason = "it runs no container images".to_owned();
            return Err(LoadError::Unsupported { reason });
        }
        let crew = self.standing(program.language).await?;
        let hosted = Hosted::load(crew, program).await?;
        Ok(Arc::new(Template(hosted)))
    }

    /// Calls stop being polled at their next tick.
    fn freeze(&self, frozen: bool) -> bool {
        if self.freeze.set(frozen) {
            self.python.tell_frozen(frozen);
            self.javascript.tell_frozen(frozen);
        }
        true
    }

    fn beside(&self) -> Beside {
        match &self.cgroups {
            Some(cgroups) => Beside {
                cpu_us: cgroups.cpu_us(),
                memory_bytes: cgroups.memory_bytes(),
            },
            None => Beside {
                cpu_us: self.python.tree_cpu_us() + self.javascript.tree_cpu_us(),
                memory_bytes: 0,
            },
        }
    }
}

/// A thread that looks after the workers now and then.
struct Keeper {
    handle: Thread,
    thread: Option<JoinHandle<()>>,
    stopped: Arc<()>,
}

/// Often enough for memory to come back soon, seldom enough to cost nothing.
const LOOK: Duration = Duration::from_secs(1);

impl Keeper {
    fn start(crews: [&Arc<Crew>; 2]) -> std::io::Result<Self> {
        let crews = crews.map(Arc::downgrade);
        let stopped = Arc::new(());
        let lives = Arc::downgrade(&stopped);
        let thread = std::thread::Builder::new()
            .name("wasm-workers".into())
            .spawn(move || look_on(&crews, &lives))?;
        Ok(Self {
            handle: thread.thread().clone(),
            thread: Some(thread),
            stopped,
        })
    }
}

fn look_on(crews: &[Weak<Crew>], lives: &Weak<()>) {
    while lives.strong_count() > 0 {
        for crew in crews.iter().filter_map(Weak::upgrade) {
            crew.look();
        }
        std::thread::park_timeout(LOOK);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stopped = Arc::new(());
        self.handle.unpark();
        let panicked = self.thread.take().is_some_and(|thread| thread.join().is_err());
        if panicked {
            tracing::error!("the thread that looks after wasm workers panicked");
        }
    }
}
