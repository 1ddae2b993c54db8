//! Makes jailed processes: a zygote's child for Python, an executed process for JavaScript. Freezes them all.

use std::{
    collections::HashMap,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStringExt,
    },
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use piecework_egress::{Egress, Relay};
use piecework_model::{EgressList, Language, Limits};
use piecework_sandbox::{
    Beside, Freeze, Image, Program,
    instances::{node_heap, tasks_max},
};

use crate::{
    bundle,
    cgroup::{Cgroups, GroupLimits, Slot},
    channel::Channel,
    interpreter::Interpreter,
    landlock,
    plan::{
        self, NAMESPACES,
        image::{ImageRoot, RUNNER_INSIDE},
    },
    process::{Kin, Process},
    rest::Rest,
    spawner::{Launcher, Zygote},
    wire::Order,
};

/// How long a jail may take to stand; Node on a busy machine takes a tenth of it.
const STANDING_WAIT: Duration = Duration::from_secs(10);
/// Without cgroups: what the interpreter maps beyond what a function uses.
const PYTHON_SPACE_BYTES: u64 = 48 << 20;
const NODE_SPACE_BYTES: u64 = 512 << 20;
/// A stack or two, and the runner's.
const IMAGE_SPACE_BYTES: u64 = 32 << 20;

/// A standing jail whose runner waits for a program.
pub(crate) struct Cell {
    pub(crate) process: Arc<Process>,
    pub(crate) channel: Channel,
    /// The way out, where the function has an allow list.
    pub(crate) relay: Option<Relay>,
}

/// Everything that makes cells on this machine.
pub(crate) struct Yard {
    pub(crate) launcher: Launcher,
    pub(crate) cgroups: Option<Arc<Cgroups>>,
    pub(crate) python: Option<Interpreter>,
    pub(crate) node: Option<Interpreter>,
    /// The identity of jails on the host where they have no control groups, and so none of their own; none without root.
    pub(crate) host_id: Option<u32>,
    pub(crate) cores: u32,
    pub(crate) egress: Option<Arc<Egress>>,
    /// A zygote for the next Python program: started ahead.
    pub(crate) spare_zygote: Mutex<Option<Arc<Zygote>>>,
    /// Standing Node jails without a bundle, by their limits and whether they may have sockets: for whichever program comes
    /// next.
    pub(crate) blanks: Mutex<HashMap<BlankKey, Cell>>,
    pub(crate) freeze: Freeze,
    /// Every jail that stands, whatever it is for.
    pub(crate) standing: Mutex<Vec<Weak<Process>>>,
    /// Looks after those that serve programs.
    pub(crate) rest: Arc<Rest>,
}

impl Drop for Yard {
    /// Before the launcher is told to end: it ends when everything in its namespace has, and what is frozen does not end.
    fn drop(&mut self) {
        for process in self
            .standing
            .get_mut()
            .drain(..)
            .filter_map(|process| process.upgrade())
        {
            process.kill();
        }
    }
}

type BlankKey = (Limits, bool);

/// Different limits for which a blank is kept; each holds an idle Node.
const BLANKS_MAX: usize = 4;

pub(crate) const PYTHON_RUNNER: &str = "/runner/python.py";
pub(crate) const NODE_RUNNER: &str = "/runner/node.cjs";

/// What cells of one program are made from.
pub(crate) struct Mould {
    language: Language,
    /// Python's template: of this program alone, so that no other shares its address layout and hash seed.
    zygote: Option<Arc<Zygote>>,
    arguments: Vec<String>,
    jail: plan::Jail,
    limits: Limits,
    egress: EgressList,
    /// The bundle on the host.
    bundle: Vec<u8>,
}

impl Yard {
    pub(crate) fn interpreter(&self, language: Language) -> Option<&Interpreter> {
        match language {
            Language::Python => self.python.as_ref(),
            Language::JavaScript => self.node.as_ref(),
            Language::Image => None,
        }
    }

    pub(crate) async fn mould(&self, program: &Program) -> Result<Mould, String> {
        if let Some(image) = &program.image {
            return self.image_mould(program, image);
        }
        let bundle = bundle::open_to_jails(program, self.host_id.is_some())
            .map_err(|error| format!("the bundle cannot be opened: {error}"))?
            .into_os_string()
            .into_vec();
        match program.language {
            Language::Python => {
                let zygote = self.zygote().await?;
                Ok(Mould {
                    language: Language::Python,
                    zygote: Some(zygote),
                    arguments: Vec::new(),
                    jail: plan::Jail {
                        egress: !program.egress.is_empty(),
                        ..self.plan(Language::Python, &program.limits, Some(bundle.clone()))
                    },
                    egress: program.egress.clone(),
                    limits: program.limits,
                    bundle,
                })
            }
            Language::JavaScript => Ok(Mould {
                egress: program.egress.clone(),
                bundle,
                ..self.blank_mould(program.limits, !program.egress.is_empty())?
            }),
            Language::Image => Err("the image is not unpacked".to_owned()),
        }
    }

    fn image_mould(&self, program: &Program, image: &Image) -> Result<Mould, String> {
        let layers_in = image.layers_in.canonicalize();
        let layers_in = layers_in.map_err(|error| format!("the layers cannot be opened: {error}"))?;
        let root = ImageRoot {
            layers_in: layers_in.into_os_string().into_vec(),
            layers: image.layers.clone(),
            user: image.user,
        };
        Ok(Mould {
            language: Language::Image,
            zygote: None,
            arguments: vec![RUNNER_INSIDE.to_owned(), plan::CHANNEL_FD.to_string()],
            jail: plan::Jail {
                egress: !program.egress.is_empty(),
                image: Some(root),
                ..self.plan(Language::Image, &program.limits, None)
            },
            limits: program.limits,
            egress: program.egress.clone(),
            bundle: Vec::new(),
        })
    }

    fn blank_mould(&self, limits: Limits, egress: bool) -> Result<Mould, String> {
        let node = self.node.as_ref().ok_or("no interpreter of javascript is here")?;
        Ok(Mould {
            language: Language::JavaScript,
            zygote: None,
            arguments: node_arguments(node, &limits),
            jail: plan::Jail {
                egress,
                ..self.plan(Language::JavaScript, &limits, None)
            },
            limits,
            egress: EgressList::default(),
            bundle: Vec::new(),
        })
    }

    fn plan(&self, language: Language, limits: &Limits, bundle: Option<Vec<u8>>) -> plan::Jail {
        let by_rlimit = self.cgroups.is_none().then_some(match language {
            Language::Python => (libc::RLIMIT_AS.into(), limits.memory_bytes + PYTHON_SPACE_BYTES),
            Language::JavaScript => (libc::RLIMIT_DATA.into(), limits.memory_bytes + NODE_SPACE_BYTES),
            Language::Image => (libc::RLIMIT_DATA.into(), limits.memory_bytes + IMAGE_SPACE_BYTES),
        });
        plan::Jail {
            bundle,
            disk_bytes: limits.disk_bytes,
            tasks_max: tasks_max(language, limits),
            memory_rlimit: by_rlimit,
            cgroups: self.cgroups.as_ref().map_or(0, |cgroups| cgroups.entries()),
            host_id: self.host_id,
            landlock_abi: landlock::abi(),
            egress: false,
            image: None,
        }
    }

    /// Takes the zygote that was started ahead, or starts one.
    async fn zygote(&self) -> Result<Arc<Zygote>, String> {
        let ahead = self.spare_zygote.lock().take().filter(|zygote| zygote.alive());
        match ahead {
            Some(zygote) => Ok(zygote),
            None => Ok(Arc::new(self.new_zygote().await?)),
        }
    }

    /// Starts what the next program will need, unless it waits already.
    pub(crate) async fn prepare(&self, language: Language, limits: &Limits, egress: bool) {
        let prepared = match language {
            Language::Python if self.python.is_some() => self.prepare_zygote().await,
            Language::JavaScript if self.node.is_some() => self.prepare_blank(limits, egress).await,
            Language::Python | Language::JavaScript | Language::Image => Ok(()),
        };
        if let Err(reason) = prepared {
            tracing::warn!(reason, %language, "starting an instance ahead of calls failed");
        }
    }

    async fn prepare_zygote(&self) -> Result<(), String> {
        if self.spare_zygote.lock().as_ref().is_some_and(|zygote| zygote.alive()) {
            return Ok(());
        }
        let zygote = Arc::new(self.new_zygote().await?);
        *self.spare_zygote.lock() = Some(zygote);
        Ok(())
    }

    async fn prepare_blank(&self, limits: &Limits, egress: bool) -> Result<(), String> {
        let key = (blank_key(limits), egress);
        if self.blanks.lock().contains_key(&key) {
            return Ok(());
        }
        let cell = self.new_cell(&self.blank_mould(key.0, egress)?).await?;
        let mut blanks = self.blanks.lock();
        if blanks.len() >= BLANKS_MAX
            && let Some(oldest) = blanks.keys().next().copied()
        {
            blanks.remove(&oldest);
        }
        blanks.insert(key, cell);
        Ok(())
    }

    async fn new_zygote(&self) -> Result<Zygote, String> {
        let python = self.python.as_ref().ok_or("no interpreter of python is here")?;
        let path = python.path.to_string_lossy().into_owned();
        let arguments = [&path, "-I", "-S", "-B", PYTHON_RUNNER].map(str::to_owned).to_vec();
        Zygote::start(&self.launcher, arguments).await
    }

    /// A standing jail with the program's bundle. Not cancel safe: run it in a task of its own.
    pub(crate) async fn cell(&self, mould: &Mould) -> Result<Cell, String> {
        let mut cell = self.bundled_cell(mould).await?;
        if let (false, Some(egress)) = (mould.egress.is_empty(), &self.egress) {
            let ports = mould.egress.ports().into_iter().collect();
            let doors = self.launcher.listen(ports, cell.process.handle()).await?;
            let relay = Relay::start(egress.clone(), mould.egress.clone(), doors);
            cell.relay = Some(relay.map_err(|error| error.to_string())?);
        }
        Ok(cell)
    }

    async fn bundled_cell(&self, mould: &Mould) -> Result<Cell, String> {
        if mould.zygote.is_some() || mould.jail.image.is_some() {
            return self.new_cell(mould).await;
        }
        let blank = self
            .blanks
            .lock()
            .remove(&(blank_key(&mould.limits), !mould.egress.is_empty()))
            .filter(|cell| cell.process.usable());
        let cell = match blank {
            Some(cell) => cell,
            None => self.new_cell(mould).await?,
        };
        self.launcher.bind(mould.bundle.clone(), cell.process.handle()).await?;
        Ok(cell)
    }

    async fn new_cell(&self, mould: &Mould) -> Result<Cell, String> {
        let slot = match &self.cgroups {
            Some(cgroups) => Some(Arc::new(acquire(cgroups, mould, self.cores)?)),
            None => None,
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(|error| error.to_string())?;
        let (printed, printing) = std::io::pipe().map_err(|error| error.to_string())?;
        let mut fds: Vec<BorrowedFd<'_>> = vec![theirs.as_fd(), printing.as_fd()];
        fds.extend(slot.iter().flat_map(|slot| slot.entries()));
        let steps = plan::steps(&plan::Jail {
            host_id: self
                .host_id
                .map(|shared| slot.as_ref().map_or(shared, |slot| slot.host_id())),
            ..mould.jail.clone()
        });
        let born = match &mould.zygote {
            Some(zygote) => zygote.fork(NAMESPACES, &steps, &fds).await,
            None => self.launcher.make(&mould.order(steps), &fds).await,
        };
        drop(fds);
        let (pid, pidfd) = born?;
        let ending = self.launcher.watch(pid, slot.clone());
        let process =
            Process::new((pidfd, mould.kin()), ending, slot, self.rest.clone()).map_err(|error| error.to_string())?;
        drop((theirs, printing));
        let channel = Channel::open(ours, printed.into(), mould.limits.log_bytes).map_err(|error| error.to_string())?;
        let cell = standing(Cell {
            process: Arc::new(process),
            channel,
            relay: None,
        })
        .await?;
        self.enlist(&cell.process);
        Ok(cell)
    }

    /// From now on it is frozen with the others; at once where they are.
    fn enlist(&self, process: &Arc<Process>) {
        let mut standing = self.standing.lock();
        standing.retain(|process| process.strong_count() > 0);
        standing.push(Arc::downgrade(process));
        if self.freeze.is_frozen() {
            process.freeze(true);
        }
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        let standing = self.standing.lock();
        self.freeze.set(frozen);
        for process in standing.iter().filter_map(Weak::upgrade) {
            process.freeze(frozen);
        }
    }

    /// Of the launcher and all that it started.
    pub(crate) fn beside(&self) -> Beside {
        match &self.cgroups {
            Some(cgroups) => Beside {
                cpu_us: cgroups.cpu_us(),
                memory_bytes: cgroups.memory_bytes(),
            },
            None => {
                let standing: Vec<_> = self.standing.lock().iter().filter_map(Weak::upgrade).collect();
                Beside {
                    cpu_us: self.launcher.tree_cpu_us(),
                    memory_bytes: standing.iter().map(|process| process.resident_bytes()).sum(),
                }
            }
        }
    }
}

fn acquire(cgroups: &Arc<Cgroups>, mould: &Mould, cores: u32) -> Result<Slot, String> {
    let limits = GroupLimits {
        memory_bytes: mould.limits.memory_bytes,
        tasks: tasks_max(mould.language, &mould.limits),
        cores,
    };
    cgroups
        .acquire(limits)
        .map_err(|error| format!("no control group: {error}"))
}

/// Limits without those that matter only to the agent.
fn blank_key(limits: &Limits) -> Limits {
    Limits {
        timeout_ms: 0,
        output_bytes: 0,
        egress_bytes: 0,
        ..*limits
    }
}

fn node_arguments(node: &Interpreter, limits: &Limits) -> Vec<String> {
    let path = node.path.to_string_lossy().into_owned();
    vec![
        path,
        node_heap(limits),
        "--no-warnings".to_owned(),
        NODE_RUNNER.to_owned(),
    ]
}

impl Mould {
    fn order(&self, steps: Vec<plan::Step>) -> Order {
        Order::Execute {
            arguments: self.arguments.clone(),
            flags: NAMESPACES,
            steps,
        }
    }

    /// A server of an image stays where its runner is; functions leave nothing.
    fn kin(&self) -> Kin {
        match self.jail.image.as_ref() {
            Some(_) => Kin::Stays,
            None => Kin::IsLeft,
        }
    }

    /// What the template holds at rest.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.zygote.as_ref().map_or(0, |zygote| zygote.memory_bytes())
    }
}

async fn standing(mut cell: Cell) -> Result<Cell, String> {
    let reason = match tokio::time::timeout(STANDING_WAIT, cell.channel.greeting()).await {
        Ok(Ok(())) => return Ok(cell),
        Ok(Err(reason)) => reason,
        Err(_) => "it took too long to start".to_owned(),
    };
    let told = cell.channel.logs().take().text;
    let hint = if cell.process.hit_memory_limit() {
        " (the memory limit is too small for the interpreter)"
    } else {
        ""
    };
    Err(format!("no jail: {reason}{hint}: {}", told.trim()))
}
