//! Containers by an OCI runtime: a bundle in the keeper's tmpfs, limits and meters by a control group of the agent's own.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use piecework_sandbox::Beside;
use piecework_sandbox_jail::walls::{Cgroups, Channel, GroupLimits, Slot};
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::{
    cage::{Cage, SlotCage},
    config::{self, Root, Shape, TOLD},
    container::{Attendant, Container, Kin},
    image::{ImageRoot, ROOTFS},
    keep::Keep,
    keeper::{COMPILED_RUNNER, FIGURES, Order, image_place},
    runtime::{Kind, ROOT, Runtime},
    yard::{Content, Engine, Interpreters, Mould, PYTHON_RUNNER, STANDING_WAIT, Standing},
};

/// The jail's identities are others; both count from the number of the control group.
const BELOW_THE_JAILS: u32 = 200_000_000;
/// And the roots of user namespaces, which own nothing and run nothing once a container stands.
const ROOTS_BELOW_THE_JAILS: u32 = 600_000_000;
/// Inside of a kernel of its own there is nobody else.
const INSIDE_ID: u32 = 1000;
/// Threads of the runtime itself while it makes a container.
const STARTING_TASKS: u64 = 128;

/// An OCI runtime with its keeper.
pub(crate) struct Oci {
    runtime: Runtime,
    keep: Keep,
    cgroups: Arc<Cgroups>,
    seen: Vec<PathBuf>,
    /// Where the keeper mounts the roots of images.
    images: PathBuf,
    containers: AtomicU64,
}

impl Oci {
    /// Must be called within a tokio runtime.
    pub(crate) fn start(
        runtime: Runtime,
        (keeper, scratch): (&Path, &Path),
        interpreters: &Interpreters,
    ) -> Result<Self, String> {
        let cgroups = Cgroups::find()
            .map_err(|reason| format!("containers need control groups, and the agent has none ({reason})"))?;
        let trial = GroupLimits {
            memory_bytes: 64 << 20,
            tasks: 16,
            cores: 1,
        };
        if !cgroups.acquire(trial).is_ok_and(|slot| slot.has_freezer()) {
            return Err("containers need control groups with a freezer, and none is mounted here".to_owned());
        }
        let seen = seen_directories(interpreters.prefixes());
        let python = interpreters.python.as_ref().map(|found| found.path.clone());
        let group = cgroups.launcher_entry().ok();
        let keep = Keep::start(keeper, scratch, (seen.clone(), python), group)
            .map_err(|error| format!("the keeper of containers does not start: {error}"))?;
        Ok(Self {
            images: image_place(&keep.stage),
            runtime,
            keep,
            cgroups,
            seen,
            containers: AtomicU64::new(0),
        })
    }

    fn name(&self) -> String {
        let number = self.containers.fetch_add(1, Ordering::Relaxed);
        format!(
            "piecework-oci-{}-{number}-{}",
            std::process::id(),
            self.runtime.kind.program()
        )
    }

    fn shape(&self, mould: &Mould, name: &str, slot: &Slot) -> Shape {
        let manner = self.runtime.kind.manner();
        let identity = slot.host_id() - BELOW_THE_JAILS;
        let (root, figures) = match &mould.content {
            Content::Bundle(bundle) => {
                let path = self.keep.stage.join(ROOT);
                let figures = path.join(TOLD.trim_start_matches('/'));
                let root = Root::Shared {
                    path,
                    seen: self.seen.clone(),
                    bundle: bundle.clone(),
                    identity: if manner.is_host_kernel { identity } else { INSIDE_ID },
                };
                (root, figures)
            }
            Content::Image(image) => {
                let roots = slot.host_id() - ROOTS_BELOW_THE_JAILS;
                let root = Root::Image {
                    path: self.images.join(name).join(ROOTFS),
                    user: image.user,
                    identities: manner.is_host_kernel.then_some((identity, roots)),
                };
                (root, self.images.join(FIGURES))
            }
        };
        Shape {
            manner,
            root,
            figures,
            arguments: mould.arguments.iter().map(|argument| compiled(argument)).collect(),
            disk_bytes: mould.limits.disk_bytes,
            tasks_max: mould.tasks_max,
            cgroup: self.runtime.cgroup(name),
        }
    }

    /// What the keeper mounts for it.
    fn image(&self, mould: &Mould, slot: &Slot) -> Option<ImageRoot> {
        let Content::Image(image) = &mould.content else {
            return None;
        };
        let identity = slot.host_id() - BELOW_THE_JAILS;
        let owner = match self.runtime.kind.manner().is_host_kernel {
            true => (identity, identity),
            // Its own kernel tells its users what the host says of files.
            false => image.user,
        };
        Some(ImageRoot::of(image, owner, mould.limits.disk_bytes))
    }

    fn cage(&self, mould: &Mould) -> Result<SlotCage, String> {
        let beside = Own::of(self.runtime.kind);
        let limits = GroupLimits {
            memory_bytes: mould.limits.memory_bytes + beside.memory_bytes_max,
            tasks: mould.tasks_max + beside.tasks + STARTING_TASKS,
            cores: mould.cores,
        };
        let slot = self
            .cgroups
            .acquire(limits)
            .map_err(|error| format!("no control group: {error}"))?;
        let tasks = mould.tasks_max + beside.tasks;
        Ok(SlotCage::new(
            slot,
            (beside.memory_bytes, mould.limits.memory_bytes),
            tasks,
            !self.runtime.kind.manner().is_host_kernel,
        ))
    }
}

/// The runner as the keeper has compiled it.
fn compiled(argument: &str) -> String {
    match argument {
        PYTHON_RUNNER => COMPILED_RUNNER.to_owned(),
        other => other.to_owned(),
    }
}

/// What a runtime itself takes of the group that it shares with its container.
struct Own {
    memory_bytes: u64,
    memory_bytes_max: u64,
    tasks: u64,
}

impl Own {
    /// Of runsc as measured with Debian's: its kernel and file server idle at 30 to 45 MiB, and each thread inside is one outside,
    /// beside those of its own and of its language's runtime.
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Crun | Kind::Runc => Self {
                memory_bytes: 0,
                memory_bytes_max: 0,
                tasks: 0,
            },
            Kind::Runsc => Self {
                memory_bytes: 12 << 20,
                memory_bytes_max: 64 << 20,
                tasks: 256,
            },
        }
    }
}

/// The host's programs, and interpreters that lie elsewhere.
pub(crate) fn seen_directories(prefixes: Vec<PathBuf>) -> Vec<PathBuf> {
    let links = piecework_sandbox_jail::walls::LINKS.map(|name| Path::new("/").join(name));
    let directories = links.into_iter().filter(|path| path.is_dir() && !path.is_symlink());
    let mut seen = vec![PathBuf::from("/usr")];
    seen.extend(directories);
    seen.extend(prefixes);
    seen
}

/// Both ends of the three pipes of a container.
struct Pipes {
    ours: (Receiver, Sender, OwnedFd),
    theirs: [OwnedFd; 3],
}

impl Pipes {
    fn open() -> io::Result<Self> {
        let (from_container, writes) = io::pipe()?;
        let (reads, to_container) = io::pipe()?;
        let (printed, prints) = io::pipe()?;
        Ok(Self {
            ours: (
                Receiver::from_owned_fd(from_container.into())?,
                Sender::from_owned_fd(to_container.into())?,
                printed.into(),
            ),
            theirs: [reads.into(), writes.into(), prints.into()],
        })
    }
}

#[async_trait]
impl Engine for Oci {
    async fn run(&self, mould: &Mould, attendant: &Arc<Attendant>) -> Result<Standing, String> {
        let cage = self.cage(mould)?;
        let name = self.name();
        let config = config::config(&self.shape(mould, &name, cage.slot()));
        let order = Order::Run {
            command: self.runtime.command(&self.keep.stage, &name),
            passes_descriptors: self.runtime.kind.manner().passes_descriptors,
            config: config.to_string(),
            image: self.image(mould, cage.slot()),
            name,
        };
        let pipes = Pipes::open().map_err(|error| format!("no pipe: {error}"))?;
        let (receiver, sender, printed) = pipes.ours;
        let mut channel = Channel::over(tokio::io::join(receiver, sender), printed, mould.limits.log_bytes)
            .map_err(|error| format!("no channel: {error}"))?;
        let begun = {
            let mut fds: Vec<BorrowedFd<'_>> = pipes.theirs.iter().map(|fd| fd.as_fd()).collect();
            fds.extend(cage.slot().entries());
            let running = self.keep.run(&order, &fds);
            tokio::time::timeout(STANDING_WAIT, running).await
        };
        drop(pipes.theirs);
        let reason = match begun {
            Ok(Ok((handle, ending))) => {
                let container = Container::new(
                    Box::new(cage),
                    Some(handle),
                    ending,
                    (Kin::of(mould), attendant.clone()),
                );
                return Ok(Standing {
                    container: Arc::new(container),
                    channel,
                    until_it_stands: None,
                });
            }
            Ok(Err(reason)) => reason,
            Err(_) => format!("{} took longer than {STANDING_WAIT:?}", self.runtime.kind.program()),
        };
        let memory = match cage.hit_memory_limit() {
            true => " (the memory limit is too small for the interpreter)",
            false => "",
        };
        cage.kill();
        attendant.bury(Box::new(cage));
        channel.late_logs();
        let told = channel.logs().take().text;
        Err(format!("no container: {reason}{memory}: {}", told.trim()))
    }

    fn runtime(&self) -> String {
        self.runtime.kind.program().to_owned()
    }

    fn describe(&self) -> String {
        format!("{} and {}", self.runtime.version, self.cgroups.describe())
    }

    fn weaker(&self) -> Vec<String> {
        let said: &[&str] = match self.runtime.kind {
            Kind::Crun | Kind::Runc => &[
                "file locks and watches below /usr are shared with other containers, and system calls that are newer than the list are not refused",
            ],
            Kind::Runsc => &[
                "memory is limited together with gVisor's own 64 MiB, and processes by memory and by the threads of the sandbox",
            ],
        };
        said.iter().map(|text| (*text).to_owned()).collect()
    }

    fn beside(&self) -> Beside {
        Beside {
            cpu_us: self.cgroups.cpu_us(),
            memory_bytes: self.cgroups.memory_bytes(),
        }
    }
}
