//! Containers by Docker: made through the Engine API, talked to over three pipes in a directory that both see.
//!
//! Not by attaching: what is printed must lie in its pipe before the answer does, and a daemon in between keeps no such order.

mod api;
mod group;
mod pipes;
mod root;
mod skeleton;

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use api::{Docker, LABEL};
use async_trait::async_trait;
use group::{DockerCage, Group};
use piecework_sandbox::Beside;
use piecework_sandbox_jail::walls::{self, Channel, INVENTED};
use pipes::{CHANNEL, CHANNEL_OF_IMAGES, OPEN_CHANNEL, Pipes, Stage};
use serde_json::{Value, json};
use skeleton::{Rooted, Skeletons};
use tokio::sync::watch;

use crate::{
    config::{FUNCTION, scratch_size, shm_bytes},
    container::{Attendant, Container, Kin},
    oci::seen_directories,
    seccomp,
    yard::{Content, Engine, Mould, Standing},
};

/// Identities of containers on the host, below those of jails and of other containers.
const IDS_FIRST: u32 = 1_500_000_000;
const IDS_EACH: u32 = 2_048;
const AGENTS_MAX: u32 = 1 << 16;

/// A Docker daemon.
pub(crate) struct Daemon {
    docker: Docker,
    version: String,
    /// What the daemon starts containers by.
    runtime: String,
    image: String,
    seen: Vec<PathBuf>,
    stage: Stage,
    skeletons: Skeletons,
    agent: String,
    containers: AtomicU64,
    total_us: Arc<AtomicU64>,
}

impl Daemon {
    /// Fails with a sentence where no daemon answers at the socket.
    pub(crate) async fn open(socket: &Path, scratch: &Path, prefixes: Vec<PathBuf>) -> Result<Self, String> {
        if !is_root() {
            return Err("the agent is not root: it meters and stops containers by their control groups".to_owned());
        }
        let docker = Docker::at(socket.to_owned())?;
        let version = docker.version().await?.version;
        let runtime = docker.default_runtime().await?;
        sweep(&docker).await?;
        skeleton::sweep(&docker).await?;
        let seen = seen_directories(prefixes);
        let image = root::image(&docker, &seen).await?;
        let agent = own_mark();
        let stage = Stage::make(scratch, &agent).map_err(|error| format!("no directory for pipes: {error}"))?;
        Ok(Self {
            docker,
            version,
            runtime,
            image,
            seen,
            stage,
            skeletons: Skeletons::default(),
            agent,
            containers: AtomicU64::new(0),
            total_us: Arc::default(),
        })
    }

    /// What is mounted of the host, and the container's command.
    fn content(&self, mould: &Mould, rooted: Option<&Rooted>, pipes: &Path) -> Value {
        let bind = |source: &Path, target: &str| format!("{}:{target}:ro", source.display());
        let figures = INVENTED.map(|name| bind(&self.stage.figures(name), &format!("/proc/{name}")));
        let scratch = scratch_size(mould.limits.disk_bytes);
        let arguments = mould.arguments.iter().map(String::as_str);
        match (&mould.content, rooted) {
            (Content::Image(_), Some(rooted)) => {
                let command: Vec<&str> = arguments.chain([CHANNEL_OF_IMAGES]).collect();
                let binds: Vec<String> = [bind(pipes, CHANNEL_OF_IMAGES)].into_iter().chain(figures).collect();
                json!({"Image": rooted.image, "WorkingDir": "/", "Entrypoint": command,
                       "HostConfig": {"Binds": binds, "Mounts": rooted.mounts}})
            }
            (Content::Bundle(bundle), _) => {
                let command: Vec<&str> = ["/bin/sh", "-c", OPEN_CHANNEL, "sh"]
                    .into_iter()
                    .chain(arguments)
                    .collect();
                let seen = self.seen.iter().map(|path| bind(path, &path.to_string_lossy()));
                let own = [bind(bundle, FUNCTION), bind(pipes, CHANNEL)];
                let binds: Vec<String> = seen.chain(own).chain(figures).collect();
                let tmpfs = json!({"/tmp": format!("rw,exec,nosuid,nodev,mode=1777,{scratch}")});
                json!({"Image": self.image, "WorkingDir": FUNCTION, "Entrypoint": command,
                       "HostConfig": {"Binds": binds, "Tmpfs": tmpfs}})
            }
            (Content::Image(_), None) => unreachable!("an image's root is mounted before its container is made"),
        }
    }

    /// On the host and inside: nobody else's.
    fn identity(number: u64) -> u32 {
        let agent = std::process::id() % AGENTS_MAX;
        let turn = u32::try_from(number % u64::from(IDS_EACH)).unwrap_or(0);
        IDS_FIRST + agent * IDS_EACH + turn
    }

    fn body(&self, mould: &Mould, identity: u32, content: Value) -> Value {
        let limit = |name: &str, value: u64| json!({"Name": name, "Soft": value, "Hard": value});
        let told = walls::told_of_the_machine().iter().map(|(path, _)| path.as_str());
        let masked: Vec<&str> = told.chain(["/sys"]).collect();
        let is_image = matches!(mould.content, Content::Image(_));
        let mut body = json!({
            "Hostname": "function",
            "User": format!("{identity}:{identity}"),
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            "NetworkDisabled": true,
            "Labels": {LABEL: self.agent},
            "HostConfig": {
                "NetworkMode": "none",
                "IpcMode": "private",
                "CgroupnsMode": "private",
                "ReadonlyRootfs": true,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges", format!("seccomp={}", seccomp::profile(true, is_image))],
                "ShmSize": shm_bytes(mould.limits.disk_bytes).max(4096),
                "Memory": mould.limits.memory_bytes,
                "MemorySwap": mould.limits.memory_bytes,
                "PidsLimit": mould.tasks_max,
                "NanoCpus": u64::from(mould.cores) * 1_000_000_000,
                "OomScoreAdj": 1000,
                "Ulimits": [limit("core", 0), limit("nofile", 1024)],
                "MaskedPaths": masked,
                "ReadonlyPaths": ["/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"],
                "LogConfig": {"Type": "none"},
            },
        });
        add(&mut body, content);
        body
    }

    /// Starts a container that was made; its cage and its end.
    async fn begin(&self, id: &str) -> Result<(DockerCage, OwnedFd, watch::Receiver<Option<i32>>), String> {
        self.docker.start(id).await?;
        let state = self.docker.state(id).await?;
        let handle = walls::handle(state.pid).filter(|_| state.pid > 0);
        let handle = handle.ok_or("its first process is gone")?;
        let group = Group::of(state.pid)?;
        let out_of_memory = Arc::new(AtomicBool::new(state.out_of_memory));
        let ending = self.watch(id.to_owned(), out_of_memory.clone());
        let own = handle.try_clone().map_err(|error| format!("no descriptor: {error}"))?;
        let cage = DockerCage::new(group, own, out_of_memory, self.total_us.clone());
        Ok((cage, handle, ending))
    }

    /// Hears of its end, and removes what is left of it.
    fn watch(&self, id: String, out_of_memory: Arc<AtomicBool>) -> watch::Receiver<Option<i32>> {
        let (ended, ending) = watch::channel(None);
        let docker = self.docker.clone();
        tokio::spawn(async move {
            let waited = docker.wait(&id).await;
            let state = docker.state(&id).await;
            if state.is_ok_and(|state| state.out_of_memory) {
                out_of_memory.store(true, Ordering::Release);
            }
            match waited {
                Ok(status) => drop(ended.send_replace(Some(status_of(status)))),
                // Nobody will tell: whoever waits hears of it by the channel's end.
                Err(reason) => tracing::warn!(reason, "a Docker container's end was not told"),
            }
            remove(&docker, &id).await;
        });
        ending
    }
}

/// Adds fields, and those of objects in it.
fn add(to: &mut Value, more: Value) {
    match (to, more) {
        (Value::Object(to), Value::Object(more)) => {
            for (key, value) in more {
                add(to.entry(key).or_insert(Value::Null), value);
            }
        }
        (to, more) => *to = more,
    }
}

async fn remove(docker: &Docker, id: &str) {
    if let Err(reason) = docker.remove(id).await {
        tracing::warn!(
            reason,
            "a Docker container could not be removed; the next agent removes it"
        );
    }
}

/// As processes have it: an exit code, or a signal as a negative number.
fn status_of(code: i32) -> i32 {
    if code > 128 { 128 - code } else { code }
}

#[allow(unsafe_code)]
fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The agent's process, by its number and the time at which it began: numbers come back.
fn own_mark() -> String {
    let pid = std::process::id();
    format!("{pid}.{}", began(pid).unwrap_or_default())
}

fn began(pid: u32) -> Option<u64> {
    /// In `/proc/PID/stat` after the name, from 0.
    const BEGAN: usize = 19;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(BEGAN)?.parse().ok()
}

fn is_gone(agent: &str) -> bool {
    let Some((pid, then)) = agent.split_once('.') else {
        return true;
    };
    match (pid.parse(), then.parse()) {
        (Ok(pid), Ok(then)) => began(pid) != Some(then),
        _ => true,
    }
}

/// Removes what agents that were killed left at the daemon of this socket, and their directories. Where there is none, or it does not
/// answer, nothing is done: the first container tells.
pub(crate) async fn sweep_at(socket: PathBuf, scratch: PathBuf) {
    if !is_root() || !socket.exists() {
        return;
    }
    let swept = match Docker::at(socket) {
        Ok(docker) => sweep(&docker).await,
        Err(reason) => Err(reason),
    };
    match swept {
        Ok(()) => pipes::sweep(&scratch),
        Err(reason) => tracing::debug!(reason, "what earlier agents left at Docker is not removed yet"),
    }
}

/// Removes what agents that were killed left at this daemon.
async fn sweep(docker: &Docker) -> Result<(), String> {
    for (id, agent) in docker.ours().await? {
        if is_gone(&agent) {
            // What its agent froze does not die before it goes on.
            if let Ok(state) = docker.state(&id).await
                && let Ok(group) = Group::of(state.pid)
            {
                let _ = group.freeze(false);
            }
            docker.remove(&id).await?;
        }
    }
    Ok(())
}

#[async_trait]
impl Engine for Daemon {
    async fn run(&self, mould: &Mould, attendant: &Arc<Attendant>) -> Result<Standing, String> {
        let number = self.containers.fetch_add(1, Ordering::Relaxed);
        let no_pipe = |error: std::io::Error| format!("no pipe: {error}");
        let pipes = Pipes::make(&self.stage, number).map_err(no_pipe)?;
        let held = pipes.hold().map_err(no_pipe)?;
        let (stream, printed) = pipes.open().map_err(no_pipe)?;
        let channel = Channel::over(stream, printed.into(), mould.limits.log_bytes).map_err(no_pipe)?;
        let name = format!("piecework-{}-{}", self.stage.name(), number);
        let identity = Self::identity(number);
        let rooted = match &mould.content {
            Content::Bundle(_) => None,
            Content::Image(image) => {
                let of = (image, identity, mould.limits.disk_bytes);
                let places = (self.stage.top(), self.stage.image(number));
                Some(self.skeletons.root(&self.docker, of, places).await?)
            }
        };
        let content = self.content(mould, rooted.as_ref(), pipes.directory());
        let body = self.body(mould, identity, content);
        let id = self.docker.create(&name, &body).await?;
        let (cage, handle, ending) = match self.begin(&id).await {
            Ok(begun) => begun,
            Err(reason) => {
                remove(&self.docker, &id).await;
                return Err(reason);
            }
        };
        let container = Container::new(
            Box::new(cage),
            Some(handle),
            ending,
            (Kin::of(mould), attendant.clone()),
        );
        Ok(Standing {
            container: Arc::new(container),
            channel,
            until_it_stands: Some(Box::new((held, pipes, rooted.map(|rooted| rooted.mounted)))),
        })
    }

    fn runtime(&self) -> String {
        self.runtime.clone()
    }

    fn describe(&self) -> String {
        format!("Docker {} with {}", self.version, self.runtime)
    }

    fn weaker(&self) -> Vec<String> {
        vec![
            "the daemon holds all power over the machine; file locks and watches below /usr are shared with other containers, and \
             system calls that are newer than the list are not refused"
                .to_owned(),
        ]
    }

    fn beside(&self) -> Beside {
        Beside {
            cpu_us: self.total_us.load(Ordering::Relaxed),
            memory_bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_known_by_its_number_and_its_beginning() {
        assert!(!is_gone(&own_mark()));
        assert!(is_gone(&format!("{}.1", std::process::id())));
        assert!(is_gone("nonsense"));
        assert_eq!((status_of(3), status_of(137)), (3, -9));
    }
}
