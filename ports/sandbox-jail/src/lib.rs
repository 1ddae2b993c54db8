//! The jail backend: a zygote that forks interpreters into namespaces, with seccomp, landlock and cgroups. Linux only.
//!
//! ```text
//! agent --order--> launcher (first of its pid namespace, single-threaded)
//!                     |-- zygote of one program (warm Python, never runs user code)
//!                     |      `-- fork + steps --> jail: its runner reads the program
//!                     `-- clone + steps + exec --> jail: Node with its runner
//! ```
//! The steps (`plan`) are decided in one place and run by whoever made the process. Metering and limits are outside of the
//! jail. An executable that uses this backend calls [`init_main`] first when its first argument is [`INIT_ARGUMENT`].
#![cfg(target_os = "linux")]

mod bundle;
mod cell;
mod cgroup;
mod channel;
mod doors;
mod interpreter;
mod landlock;
mod launcher;
mod lookup;
mod plan;
mod probe;
mod process;
mod program;
mod rest;
mod root;
mod seccomp;
mod servant;
mod spawner;
mod standing;
mod stop;
mod wire;

/// What another backend builds walls of its own from.
pub mod walls {
    pub use crate::{
        bundle::open_to_others,
        cgroup::{Cgroups, GroupLimits, Slot},
        channel::Channel,
        interpreter::{Interpreter, find},
        landlock::read_only,
        launcher::enter_user_namespace,
        plan::{INVENTED, told_of_the_machine},
        root::{AUTHORITIES, LINKS, bind_at, enter_empty, invented, let_go_of_the_host, unbind_at},
        runners,
        servant::{CONTROL_FD, Line, Servant, options},
        stop::{handle, signal, tree_cpu_us},
        wire::{packet_pair, receive, send},
    };
}

use std::{ffi::OsString, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use cell::Yard;
use cgroup::Cgroups;
use launcher::LauncherOptions;
pub use launcher::{INIT_ARGUMENT, init_main};
pub use lookup::look_up_without_plugins;
use parking_lot::Mutex;
use piecework_egress::Egress;
use piecework_model::{EgressList, Language, Limits};
use piecework_sandbox::{
    Backend, BackendName, Beside, Freeze, LoadError, Loaded, Probe, Program, runner::image_runner,
};
use rest::Rest;
use root::Root;
use spawner::Launcher;
pub use standing::all_ended;

/// Who runs the jails on the host when the agent is root: an identity that owns nothing.
const HOST_ID_DEFAULT: u32 = 61_907;

/// What is weaker where there is no root.
const ONE_USER: &str = "all jails are one user of this computer: together they can use up what the kernel counts for each user, as descriptors on their way between processes; run the provider as root, or for your own functions only (`--mine`)";

/// How to make jails on this machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// The executable to start again as the launcher; it calls [`init_main`].
    pub init: PathBuf,
    /// More directories with interpreters, written as in `PATH`; `/usr/bin` is searched first.
    pub search: OsString,
    /// Work as without root: no cgroups, a user namespace around everything. Set by itself where the agent is not root.
    pub rootless: bool,
    /// Where the probe writes its small bundles; must exist.
    pub scratch: PathBuf,
    /// Cores that one jail may use.
    pub cores: u32,
    /// Where functions with an allow list may go; none: they do not load here.
    pub egress: Option<Arc<Egress>>,
    /// Whether interpreters wait for programs that may come: some MiB each, for a quicker first start.
    pub ahead: bool,
}

impl Options {
    pub fn new(init: impl Into<PathBuf>) -> Self {
        Self {
            init: init.into(),
            search: OsString::new(),
            rootless: false,
            scratch: "/tmp".into(),
            cores: 1,
            egress: None,
            ahead: true,
        }
    }
}

/// Why there is no jail here.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    #[error("no interpreter was found: install python3 or node")]
    NoInterpreter,
    #[error("the launcher does not start")]
    Launcher(#[source] std::io::Error),
}

/// The backend. Dropping it ends every process that it started.
pub struct Jail {
    yard: Arc<Yard>,
    scratch: PathBuf,
    weaker: Vec<String>,
}

impl Jail {
    /// Starts the launcher. Must be called within a tokio runtime; asks the interpreters for their versions, which blocks for
    /// about 50 ms.
    pub fn new(options: Options) -> Result<Self, JailError> {
        let python = interpreter::find(Language::Python, &options.search);
        let node = interpreter::find(Language::JavaScript, &options.search);
        if python.is_none() && node.is_none() {
            return Err(JailError::NoInterpreter);
        }
        let root = is_root();
        let rootless = options.rootless || !root;
        let prefixes = [&python, &node]
            .into_iter()
            .flatten()
            .filter_map(|found| found.prefix.clone())
            .collect();
        let launcher_options = LauncherOptions {
            root: Root {
                prefixes,
                runners: runners(),
            },
            rootless,
            become_id: (options.rootless && root).then_some(HOST_ID_DEFAULT),
        };
        let (cgroups, mut weaker) = cgroups(rootless);
        if rootless {
            weaker.push(ONE_USER.to_owned());
        }
        let group = cgroups.as_ref().and_then(|cgroups| cgroups.launcher_entry().ok());
        let launcher = Launcher::start(&options.init, &launcher_options, group).map_err(JailError::Launcher)?;
        let yard = Arc::new(Yard {
            launcher,
            cgroups,
            python,
            node,
            host_id: (!rootless).then_some(HOST_ID_DEFAULT),
            cores: options.cores,
            egress: options.egress,
            spare_zygote: Mutex::default(),
            blanks: Mutex::default(),
            freeze: Freeze::default(),
            standing: Mutex::default(),
            rest: Rest::start().map_err(JailError::Launcher)?,
        });
        if options.ahead {
            let ahead = Arc::downgrade(&yard);
            tokio::spawn(async move {
                for language in Language::ALL {
                    if let Some(yard) = ahead.upgrade() {
                        yard.prepare(language, &Limits::DEFAULT, false).await;
                    }
                }
            });
        }
        Ok(Self {
            yard,
            scratch: options.scratch,
            weaker,
        })
    }

    /// Languages whose interpreter was found.
    pub fn languages(&self) -> Vec<Language> {
        Language::ALL
            .into_iter()
            .filter(|language| self.yard.interpreter(*language).is_some())
            .collect()
    }
}

impl Jail {
    fn cannot_reach(&self, list: &EgressList) -> Option<String> {
        match &self.yard.egress {
            _ if list.is_empty() => None,
            None => Some("this provider runs no function that reaches the network".to_owned()),
            Some(egress) => {
                let address = egress.policy().forbidden(list)?;
                Some(format!("this provider lets no function reach {address}"))
            }
        }
    }
}

/// A file of `runtimes/jail`, where the runners expect it.
macro_rules! runner {
    ($path:literal) => {
        (
            concat!("/runner/", $path).into(),
            include_bytes!(concat!("../../../runtimes/jail/", $path)).to_vec(),
        )
    };
}

/// Path and content of each file that the interpreters of sandboxes run.
pub fn runners() -> Vec<(PathBuf, Vec<u8>)> {
    vec![
        runner!("python.py"),
        runner!("node.cjs"),
        (
            "/runner/warm.py".into(),
            b"def handler(event, context):\n    return event\n".to_vec(),
        ),
        (
            "/runner/warm.mjs".into(),
            b"export default (event) => event;\n".to_vec(),
        ),
        runner!("contracts/__init__.py"),
        runner!("contracts/request.py"),
        runner!("contracts/asgi.py"),
        runner!("contracts/wsgi.py"),
        runner!("contracts/aws.py"),
        runner!("contracts/framework.py"),
        runner!("contracts/openfaas.py"),
        runner!("contracts/contracts.cjs"),
        runner!("contracts/request.cjs"),
        runner!("contracts/fetch.cjs"),
        runner!("contracts/node_http.cjs"),
        runner!("contracts/aws.cjs"),
        (plan::image::RUNNER.into(), image_runner()),
    ]
}

fn cgroups(rootless: bool) -> (Option<Arc<Cgroups>>, Vec<String>) {
    let found = if rootless {
        Err("the agent is not root".to_owned())
    } else {
        Cgroups::find()
    };
    match found {
        Ok(cgroups) => (Some(cgroups), Vec::new()),
        Err(reason) => {
            let weaker = format!(
                "no control groups ({reason}): memory is limited for each process, CPU has no quota, and children that were not waited for are not metered"
            );
            (None, vec![weaker])
        }
    }
}

#[allow(unsafe_code)]
fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[async_trait]
impl Backend for Jail {
    fn name(&self) -> BackendName {
        BackendName::Jail
    }

    async fn probe(&self) -> Probe {
        probe::probe(self).await
    }

    async fn load(&self, program: Arc<Program>) -> Result<Arc<dyn Loaded>, LoadError> {
        if program.image.is_none() && self.yard.interpreter(program.language).is_none() {
            let reason = format!("no interpreter of {} is installed here", program.language);
            return Err(LoadError::Unsupported { reason });
        }
        if let Some(reason) = self.cannot_reach(&program.egress) {
            return Err(LoadError::Unsupported { reason });
        }
        let loaded = program::JailedProgram::load(self.yard.clone(), program).await?;
        Ok(Arc::new(loaded))
    }

    fn freeze(&self, frozen: bool) -> bool {
        self.yard.freeze(frozen);
        true
    }

    fn beside(&self) -> Beside {
        self.yard.beside()
    }
}
