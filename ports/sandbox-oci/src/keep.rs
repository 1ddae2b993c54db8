//! The agent's side of the keeper: starts it, sends orders, hears of deaths.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use piecework_sandbox_jail::walls::{Line, Servant};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::keeper::{Event, KEEPER_ARGUMENT, KeeperOptions, Order};

/// How long a keeper may take to end with all that it started.
const END_WAIT: Duration = Duration::from_secs(2);
const STAGE_PREFIX: &str = "piecework-oci-";

/// Hears when a container has ended: its exit code, or its signal as a negative number.
pub(crate) type Ending = watch::Receiver<Option<i32>>;

struct Awaited {
    started: Option<oneshot::Sender<Result<OwnedFd, String>>>,
    ended: watch::Sender<Option<i32>>,
}

#[derive(Default)]
struct State {
    awaited: Mutex<HashMap<String, Awaited>>,
    broken: Mutex<Option<String>>,
}

pub(crate) struct Keep {
    sending: tokio::sync::Mutex<()>,
    state: Arc<State>,
    listener: JoinHandle<()>,
    servant: Servant,
    _place: StagePlace,
    /// Where the keeper's tmpfs lies; empty to all others.
    pub(crate) stage: PathBuf,
}

impl Keep {
    /// Starts `executable` as the keeper, in the control group that `group` leads into. Must be called within a tokio runtime.
    pub(crate) fn start(
        executable: &Path,
        scratch: &Path,
        (seen, python): (Vec<PathBuf>, Option<PathBuf>),
        group: Option<fs::File>,
    ) -> io::Result<Self> {
        for place in [
            scratch,
            Path::new("/sys/fs/cgroup/devices"),
            Path::new("/sys/fs/cgroup/systemd"),
        ] {
            sweep(place);
        }
        let stage = make_stage(scratch)?;
        let options = KeeperOptions {
            stage: stage.clone(),
            seen,
            python,
        };
        let servant = Servant::start((executable, KEEPER_ARGUMENT), &options, group, END_WAIT)?;
        let state = Arc::new(State::default());
        let listener = tokio::spawn(listen(servant.line().clone(), state.clone()));
        Ok(Self {
            sending: tokio::sync::Mutex::default(),
            state,
            listener,
            servant,
            _place: StagePlace(stage.clone()),
            stage,
        })
    }

    /// Runs a container: a handle of its first process, and its end. Not cancel safe: run it in a task of its own.
    pub(crate) async fn run(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<(OwnedFd, Ending), String> {
        let Order::Run { name, .. } = order;
        let packet = serde_json::to_vec(order).map_err(|error| error.to_string())?;
        let (started, answer) = oneshot::channel();
        let (ended, ending) = watch::channel(None);
        let awaited = Awaited {
            started: Some(started),
            ended,
        };
        {
            let _one_at_a_time = self.sending.lock().await;
            if let Some(reason) = self.state.broken.lock().clone() {
                return Err(reason);
            }
            self.state.awaited.lock().insert(name.clone(), awaited);
            let sent = self.servant.line().send(&packet, fds).await;
            sent.map_err(|error| format!("the keeper: {error}"))?;
        }
        let handle = answer.await.unwrap_or_else(|_| Err(self.reason()))?;
        Ok((handle, ending))
    }

    fn reason(&self) -> String {
        let broken = self.state.broken.lock().clone();
        broken.unwrap_or_else(|| "the keeper of containers ended".to_owned())
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// The empty directory, which goes after the keeper.
struct StagePlace(PathBuf);

impl Drop for StagePlace {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn make_stage(scratch: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let stage = scratch.join(format!("{STAGE_PREFIX}{}-{number}", std::process::id()));
    fs::create_dir(&stage)?;
    stage.canonicalize()
}

/// Removes what agents that were killed left here: empty directories, since what was in them went with their keeper, and groups of runc's.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(STAGE_PREFIX)?.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // One that is not empty is none of ours.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

async fn listen(line: Line, state: Arc<State>) {
    loop {
        match line.receive().await {
            Ok((packet, fds)) if !packet.is_empty() => match serde_json::from_slice(&packet) {
                Ok(event) => state.hear(event, fds),
                Err(error) => {
                    *state.broken.lock() = Some(format!("the keeper sent an invalid answer: {error}"));
                    break;
                }
            },
            Ok(_) | Err(_) => break,
        }
    }
    let mut broken = state.broken.lock();
    broken.get_or_insert_with(|| "the keeper of containers ended".to_owned());
    drop(broken);
    // Whoever waits for a start or an end hears that nobody will tell.
    state.awaited.lock().clear();
}

impl State {
    fn hear(&self, event: Event, mut fds: Vec<OwnedFd>) {
        match event {
            Event::Ready => {}
            Event::Started { name } => {
                let mut awaited = self.awaited.lock();
                if let (Some(awaited), Some(handle)) = (awaited.get_mut(&name), fds.pop())
                    && let Some(started) = awaited.started.take()
                {
                    // Whoever asked may have gone; its control group is killed then.
                    let _ = started.send(Ok(handle));
                }
            }
            Event::Failed { name, reason } => self.end(&name, reason, None),
            Event::Exited { name, status } => {
                self.end(&name, "it ended at its start".to_owned(), Some(status));
            }
            Event::Broken { reason } => *self.broken.lock() = Some(reason),
        }
    }

    fn end(&self, name: &str, reason: String, status: Option<i32>) {
        let Some(mut awaited) = self.awaited.lock().remove(name) else {
            return;
        };
        if let Some(started) = awaited.started.take() {
            let _ = started.send(Err(reason));
        }
        if let Some(status) = status {
            awaited.ended.send_replace(Some(status));
        }
    }
}
