//! The container backends: a function in a container of crun or runc, of gVisor's runsc, or of Docker. Linux only.
//!
//! ```text
//! agent --order--> keeper (first of its pid namespace)        agent --HTTP--> dockerd
//!                     `-- crun | runc | runsc: container                        `-- container
//! ```
//! One path from a bundle to an instance: a container is kept between calls and serves one program; what is dropped is killed, and
//! nothing of it is left. The runner inside is the jail's, with its channel over two pipes. Limits and meters are control groups
//! outside. An executable that uses this crate calls [`keeper_main`] first when its first argument is [`KEEPER_ARGUMENT`].
#![cfg(target_os = "linux")]

mod cage;
mod config;
mod container;
mod docker;
mod image;
mod instance;
mod keep;
mod keeper;
mod oci;
mod probe;
mod runtime;
mod seccomp;
mod yard;

use std::{
    ffi::OsString,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
pub use keeper::{KEEPER_ARGUMENT, keeper_main};
use parking_lot::Mutex;
use piecework_model::Language;
use piecework_sandbox::{Backend, BackendName, Beside, Freeze, LoadError, Loaded, Probe, Program, look::Bundle};
use piecework_sandbox_jail::walls;
pub use runtime::Kind;
use tokio::sync::OnceCell;

use crate::{
    container::Attendant,
    docker::Daemon,
    oci::Oci,
    runtime::Runtime,
    yard::{Engine, Interpreters, Yard},
};

/// How to make containers on this machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// The executable to start again as the keeper; it calls [`keeper_main`].
    pub keeper: PathBuf,
    /// More directories with interpreters, written as in `PATH`; `/usr/bin` is searched first.
    pub search: OsString,
    /// Where the keeper's tmpfs lies and the probe writes its small bundles; must exist.
    pub scratch: PathBuf,
    /// Cores that one container may use.
    pub cores: u32,
}

impl Options {
    pub fn new(keeper: impl Into<PathBuf>) -> Self {
        Self {
            keeper: keeper.into(),
            search: OsString::new(),
            scratch: "/tmp".into(),
            cores: 1,
        }
    }
}

/// What runs the containers.
#[derive(Clone, Debug)]
enum Technology {
    Runtime(Vec<Kind>),
    /// The daemon at this socket.
    Docker(PathBuf),
}

impl Technology {
    /// Fails at once where what it needs is not installed.
    fn look(&self) -> Result<(), String> {
        match self {
            Self::Runtime(kinds) if Runtime::candidates(kinds).next().is_none() => Err(missing(kinds)),
            Self::Docker(socket) if !socket.exists() => Err(format!(
                "no Docker daemon listens at {}; on Debian: apt install docker.io",
                socket.display()
            )),
            Self::Runtime(_) | Self::Docker(_) => Ok(()),
        }
    }
}

/// One of the container backends. Nothing of it runs before the first probe or program. Dropping it ends every container.
pub struct Containers {
    name: BackendName,
    technology: Technology,
    options: Options,
    freeze: Freeze,
    yard: OnceCell<Result<Arc<Yard>, String>>,
}

impl Containers {
    /// By crun, or by runc where that is missing.
    pub fn oci(options: Options) -> Self {
        Self::of(
            BackendName::Oci,
            Technology::Runtime(vec![Kind::Crun, Kind::Runc]),
            options,
        )
    }

    /// By this runtime alone.
    pub fn of_runtime(kind: Kind, options: Options) -> Self {
        let name = match kind {
            Kind::Crun | Kind::Runc => BackendName::Oci,
            Kind::Runsc => BackendName::Gvisor,
        };
        Self::of(name, Technology::Runtime(vec![kind]), options)
    }

    /// By gVisor's runsc.
    pub fn gvisor(options: Options) -> Self {
        Self::of_runtime(Kind::Runsc, options)
    }

    /// By the Docker daemon at this socket.
    pub fn docker(options: Options, socket: impl Into<PathBuf>) -> Self {
        Self::of(BackendName::Docker, Technology::Docker(socket.into()), options)
    }

    fn of(name: BackendName, technology: Technology, options: Options) -> Self {
        Self {
            name,
            technology,
            options,
            freeze: Freeze::default(),
            yard: OnceCell::new(),
        }
    }

    /// Languages whose interpreter was found; none where there is no engine.
    pub async fn languages(&self) -> Vec<Language> {
        let Ok(yard) = self.yard().await else { return Vec::new() };
        let has = |language: &Language| yard.interpreters.of(*language).is_some();
        Language::ALL.into_iter().filter(has).collect()
    }

    /// What starts its containers: `crun`, `runc`, `runsc`. Docker's is the runtime that its daemon uses.
    pub async fn runtime(&self) -> Result<String, String> {
        Ok(self.yard().await?.engine.runtime())
    }

    /// How long the bare interpreter takes to say a word in a container, with nothing of ours in it.
    pub async fn bare_start(&self, language: Language) -> Result<Duration, String> {
        let yard = self.yard().await?;
        let bundle = Bundle::new(language, &self.options.scratch).map_err(|error| error.to_string())?;
        let mould = yard.bare_mould(&bundle.program())?;
        let begun = Instant::now();
        let standing = yard.make(&mould).await?;
        let took = begun.elapsed();
        drop(standing);
        Ok(took)
    }

    /// Removes what agents that were killed left of such containers, without starting anything: of those of runtimes, what stays goes with
    /// the agent's control groups. It holds nothing of this value.
    pub fn sweep(&self) -> impl Future<Output = ()> + Send + use<> {
        let (technology, scratch) = (self.technology.clone(), self.options.scratch.clone());
        async move {
            match technology {
                Technology::Docker(socket) => docker::sweep_at(socket, scratch).await,
                Technology::Runtime(_) => {}
            }
        }
    }

    async fn yard(&self) -> Result<Arc<Yard>, String> {
        self.yard.get_or_init(|| self.open()).await.clone()
    }

    async fn open(&self) -> Result<Arc<Yard>, String> {
        // First: asking the interpreters takes longer.
        self.technology.look()?;
        let search = self.options.search.clone();
        let interpreters = tokio::task::spawn_blocking(move || Interpreters {
            python: walls::find(Language::Python, &search),
            node: walls::find(Language::JavaScript, &search),
        });
        let interpreters = interpreters.await.map_err(|error| error.to_string())?;
        let engine = self.engine(&interpreters).await?;
        let attendant = Attendant::start().map_err(|error| format!("no thread can be started: {error}"))?;
        Ok(Arc::new(Yard {
            engine,
            interpreters,
            freeze: self.freeze.clone(),
            cores: self.options.cores,
            attendant,
            standing: Mutex::default(),
        }))
    }

    async fn engine(&self, interpreters: &Interpreters) -> Result<Box<dyn Engine>, String> {
        match &self.technology {
            Technology::Docker(socket) => {
                let daemon = Daemon::open(socket, &self.options.scratch, interpreters.prefixes()).await?;
                Ok(Box::new(daemon))
            }
            Technology::Runtime(kinds) => {
                let wanted = kinds.clone();
                let found = tokio::task::spawn_blocking(move || Runtime::find(&wanted));
                let found = found.await.map_err(|error| error.to_string())?;
                let runtime = found.ok_or_else(|| missing(kinds))?;
                let places = (&*self.options.keeper, &*self.options.scratch);
                // Here and not on a thread that ends: the keeper dies with the thread that started it.
                Ok(Box::new(Oci::start(runtime, places, interpreters)?))
            }
        }
    }
}

fn missing(kinds: &[Kind]) -> String {
    let names: Vec<_> = kinds.iter().map(|kind| kind.program()).collect();
    let first = names.first().copied().unwrap_or_default();
    format!(
        "{} is not installed; on Debian: apt install {first}",
        names.join(" or ")
    )
}

#[async_trait]
impl Backend for Containers {
    fn name(&self) -> BackendName {
        self.name
    }

    async fn probe(&self) -> Probe {
        probe::probe(self).await
    }

    async fn load(&self, program: Arc<Program>) -> Result<Arc<dyn Loaded>, LoadError> {
        let yard = self.yard().await.map_err(LoadError::Failed)?;
        let unsupported = |reason: String| Err(LoadError::Unsupported { reason });
        if program.image.is_none() && yard.interpreters.of(program.language).is_none() {
            return unsupported(format!("no interpreter of {} is installed here", program.language));
        }
        if !program.egress.is_empty() {
            return unsupported(format!(
                "`{}` gives functions no network; remove the allow list, or use the jail",
                self.name
            ));
        }
        Ok(Arc::new(instance::LoadedProgram::load(yard, program).await?))
    }

    fn freeze(&self, frozen: bool) -> bool {
        self.freeze.set(frozen);
        if let Some(Ok(yard)) = self.yard.get() {
            yard.hold(frozen);
        }
        true
    }

    fn beside(&self) -> Beside {
        match self.yard.get() {
            Some(Ok(yard)) => yard.engine.beside(),
            Some(Err(_)) | None => Beside::default(),
        }
    }
}
