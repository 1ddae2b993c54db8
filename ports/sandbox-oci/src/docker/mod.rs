//! Containers by Docker: made through the Engine API, talked to over three pipes in a directory that both see.
//!
//! Not by attaching: what is printed must lie in its pipe before the answer does, and a daemon in between keeps no such order.

mod api;
mod group;
mod pipes;
mod root;

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
use pipes::{CHANNEL, OPEN_CHANNEL, Pipes, Stage};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    config::{FUNCTION, scratch_size, shm_bytes},
    container::{Attendant, Container},
    oci::seen_directories,
    seccomp,
    yard::{Engine, Mould, Standing},
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
            agent,
            containers: AtomicU64::new(0),
            total_us: Arc::default(),
        })
    }

    fn binds(&self, mould: &Mould, pipes: &Path) -> Vec<String> {
        let bind = |source: &Path, target: &str| format!("{}:{target}:ro", source.display());
        let seen = self.seen.iter().map(|path| bind(path, &path.to_string_lossy()));
        let figures = INVENTED.map(|name| bind(&self.stage.figures(name), &format!("/proc/{name}")));
        let own = [bind(&mould.bundle, FUNCTION), bind(pipes, CHANNEL)];
        seen.chain(own).chain(figures).collect()
    }

    fn body(&self, mould: &Mould, (number, pipes): (u64, &Path)) -> Value {
        let agent = std::process::id() % AGENTS_MAX;
        let turn = u32::try_from(number % u64::from(IDS_EACH)).unwrap_or(0);
        let identity = IDS_FIRST + agent * IDS_EACH + turn;
        let mut command = vec!["/bin/sh", "-c", OPEN_CHANNEL, "sh"];
        command.extend(mould.arguments.iter().map(String::as_str));
        let limit = |name: &str, value: u64| json!({"Name": name, "Soft": value, "Hard": value});
        let told = walls::told_of_the_machine().iter().map(|(path, _)| path.as_str());
        let masked: Vec<&str> = told.chain(["/sys"]).collect();
        let scratch = scratch_size(mould.limits.disk_bytes);
        json!({
            "Image": self.image,
            "Hostname": "function",
            "User": format!("{identity}:{identity}"),
            "WorkingDir": FUNCTION,
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            "Entrypoint": command,
            "NetworkDisabled": true,
            "Labels": {LABEL: self.agent},
            "HostConfig": {
                "NetworkMode": "none",
                "IpcMode": "private",
                "CgroupnsMode": "private",
                "ReadonlyRootfs": true,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges", format!("seccomp={}", seccomp::profile(true))],
                "Binds": self.binds(mould, pipes),
                "Tmpfs": {"/tmp": format!("rw,exec,nosuid,nodev,mode=1777,{scratch}")},
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
        })
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
        let body = self.body(mould, (number, pipes.directory()));
        let id = self.docker.create(&name, &body).await?;
        let (cage, handle, ending) = match self.begin(&id).await {
            Ok(begun) => begun,
            Err(reason) => {
                remove(&self.docker, &id).await;
                return Err(reason);
            }
        };
        let container = Container::new(Box::new(cage), Some(handle), ending, attendant.clone());
        Ok(Standing {
            container: Arc::new(container),
            channel,
            until_it_stands: Some(Box::new((held, pipes))),
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
