//! The agent's side of the launcher: starts it, sends orders, hears of deaths.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
    net::TcpListener,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use piecework_egress::Doors;
use tokio::{
    io::unix::AsyncFd,
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::{
    cgroup::Slot,
    launcher::{INIT_ARGUMENT, LauncherOptions},
    plan::Step,
    servant::{Line, Servant, receive, register, send, set_nonblocking},
    stop,
    wire::{self, Event, Fork, Order},
};

/// How long a launcher may take to end with all that it started.
const END_WAIT: Duration = Duration::from_secs(1);

/// A process as its maker announced it: its number in the launcher's namespace and a handle that never means another one.
pub(crate) type Born = (i32, OwnedFd);

/// Hears when a process has ended: its exit code, or its signal as a negative number.
pub(crate) type Ending = watch::Receiver<Option<i32>>;

/// Whoever waits for a process's end, and what is held until then.
type Awaited = (watch::Sender<Option<i32>>, Option<Arc<Slot>>);

/// What an order made.
enum Made {
    Process(Born),
    Doors(Vec<OwnedFd>),
    Nothing,
}

/// Whoever waits for an order's answer.
type Reply = oneshot::Sender<Result<Made, String>>;

#[derive(Default)]
struct Deaths {
    awaited: HashMap<i32, Awaited>,
    /// Deaths that came before their announcement.
    early: HashMap<i32, i32>,
}

#[derive(Default)]
struct State {
    replies: Mutex<VecDeque<Reply>>,
    deaths: Mutex<Deaths>,
    broken: Mutex<Option<String>>,
}

pub(crate) struct Launcher {
    servant: Servant,
    sending: tokio::sync::Mutex<()>,
    state: Arc<State>,
    listener: JoinHandle<()>,
}

impl Launcher {
    /// Starts `executable` as the launcher, in the control group that `group` leads into. Must be called within a tokio runtime.
    pub(crate) fn start(executable: &Path, options: &LauncherOptions, group: Option<File>) -> io::Result<Self> {
        let servant = Servant::start((executable, INIT_ARGUMENT), options, group, END_WAIT)?;
        let state = Arc::new(State::default());
        let listener = tokio::spawn(listen(servant.line().clone(), state.clone()));
        Ok(Self {
            servant,
            sending: tokio::sync::Mutex::default(),
            state,
            listener,
        })
    }

    /// CPU time of it and of all that it started.
    pub(crate) fn tree_cpu_us(&self) -> u64 {
        i32::try_from(self.servant.id()).map_or(0, stop::tree_cpu_us)
    }

    /// Makes a process. Not cancel safe: a process that nobody takes dies when its channel closes.
    pub(crate) async fn make(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<Born, String> {
        match self.order(order, fds).await? {
            Made::Process(born) => Ok(born),
            Made::Doors(_) | Made::Nothing => Err("the launcher made no process".to_owned()),
        }
    }

    /// Binds a bundle into a standing jail.
    pub(crate) async fn bind(&self, bundle: Vec<u8>, jail: BorrowedFd<'_>) -> Result<(), String> {
        self.order(&Order::Bind { bundle }, &[jail]).await.map(drop)
    }

    /// Opens the doors of a standing jail.
    pub(crate) async fn listen(&self, ports: Vec<u16>, jail: BorrowedFd<'_>) -> Result<Doors, String> {
        let wanted = ports.len();
        match self.order(&Order::Listen { ports }, &[jail]).await? {
            Made::Doors(sockets) if sockets.len() == wanted + 1 => {
                let mut sockets = sockets.into_iter();
                let names = sockets.next().ok_or("no socket for names")?;
                Ok(Doors {
                    names: names.into(),
                    ports: sockets.map(TcpListener::from).collect(),
                })
            }
            Made::Doors(_) | Made::Process(_) | Made::Nothing => Err("the launcher opened no doors".to_owned()),
        }
    }

    async fn order(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<Made, String> {
        let packet = serde_json::to_vec(order).map_err(|error| error.to_string())?;
        let (reply, answer) = oneshot::channel();
        {
            let _one_at_a_time = self.sending.lock().await;
            if let Some(reason) = self.state.broken.lock().clone() {
                return Err(reason);
            }
            self.state.replies.lock().push_back(reply);
            let sent = self.servant.line().send(&packet, fds).await;
            sent.map_err(|error| format!("the launcher: {error}"))?;
        }
        answer.await.unwrap_or_else(|_| Err(self.reason()))
    }

    fn reason(&self) -> String {
        self.state
            .broken
            .lock()
            .clone()
            .unwrap_or_else(|| "the launcher ended".to_owned())
    }

    /// Watches a process; `slot` is held until it has ended.
    pub(crate) fn watch(&self, pid: i32, slot: Option<Arc<Slot>>) -> Ending {
        let mut deaths = self.state.deaths.lock();
        let early = deaths.early.remove(&pid);
        let (sender, receiver) = watch::channel(early);
        if early.is_none() {
            deaths.awaited.insert(pid, (sender, slot));
        }
        receiver
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn listen(line: Line, state: Arc<State>) {
    loop {
        let heard = match line.receive().await {
            Ok((packet, fds)) if !packet.is_empty() => serde_json::from_slice(&packet).map(|event| (event, fds)),
            Ok(_) | Err(_) => break,
        };
        match heard {
            Ok((event, fds)) => state.hear(event, fds),
            Err(error) => {
                *state.broken.lock() = Some(format!("the launcher said nonsense: {error}"));
                break;
            }
        }
    }
    state
        .broken
        .lock()
        .get_or_insert_with(|| "the launcher ended".to_owned());
    state.replies.lock().clear();
    state.deaths.lock().awaited.clear();
}

impl State {
    fn hear(&self, event: Event, mut fds: Vec<OwnedFd>) {
        match event {
            Event::Exited { pid, status } => {
                let mut deaths = self.deaths.lock();
                match deaths.awaited.remove(&pid) {
                    Some((sender, _slot)) => {
                        sender.send_replace(Some(status));
                    }
                    None => {
                        deaths.early.insert(pid, status);
                    }
                }
            }
            Event::Started(pid) => {
                if let (Some(reply), Some(pidfd)) = (self.replies.lock().pop_front(), fds.pop()) {
                    // Whoever asked may have gone; then the handle closes and the child sees its channel close.
                    let _ = reply.send(Ok(Made::Process((pid, pidfd))));
                }
            }
            Event::Bound => {
                if let Some(reply) = self.replies.lock().pop_front() {
                    let _ = reply.send(Ok(Made::Nothing));
                }
            }
            Event::Listening => {
                if let Some(reply) = self.replies.lock().pop_front() {
                    let _ = reply.send(Ok(Made::Doors(fds)));
                }
            }
            Event::Failed(reason) => match self.replies.lock().pop_front() {
                Some(reply) => {
                    let _ = reply.send(Err(reason));
                }
                None => *self.broken.lock() = Some(reason),
            },
        }
    }
}

/// What a template holds of its own, beside what all share; measured with CPython 3.11.
const ZYGOTE_BYTES: u64 = 9 << 20;

/// A warm interpreter that forks into jails and never runs user code itself.
pub(crate) struct Zygote {
    socket: AsyncFd<OwnedFd>,
    forking: tokio::sync::Mutex<()>,
    ending: Ending,
}

impl Zygote {
    pub(crate) async fn start(launcher: &Launcher, arguments: Vec<String>) -> Result<Self, String> {
        let (ours, theirs) = wire::packet_pair().map_err(|error| error.to_string())?;
        let (pid, pidfd) = launcher.make(&Order::Zygote { arguments }, &[theirs.as_fd()]).await?;
        let ending = launcher.watch(pid, None);
        drop(pidfd);
        let socket = set_nonblocking(&ours)
            .and_then(|()| register(ours))
            .map_err(|error| error.to_string())?;
        Ok(Self {
            socket,
            forking: tokio::sync::Mutex::default(),
            ending,
        })
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        ZYGOTE_BYTES
    }

    pub(crate) fn alive(&self) -> bool {
        self.ending.borrow().is_none() && self.ending.has_changed().is_ok()
    }

    /// Not cancel safe: a reply that nobody awaits would be taken for the next one's.
    pub(crate) async fn fork(&self, flags: u64, steps: &[Step], fds: &[BorrowedFd<'_>]) -> Result<Born, String> {
        let packet = serde_json::to_vec(&Fork { flags, steps }).map_err(|error| error.to_string())?;
        let _one_at_a_time = self.forking.lock().await;
        send(&self.socket, &packet, fds)
            .await
            .map_err(|error| format!("the zygote: {error}"))?;
        let (packet, mut fds) = receive(&self.socket)
            .await
            .map_err(|error| format!("the zygote: {error}"))?;
        if packet.is_empty() {
            return Err("the zygote ended".to_owned());
        }
        match serde_json::from_slice(&packet).map_err(|error| error.to_string())? {
            Event::Started(pid) => Ok((pid, fds.pop().ok_or("the zygote sent no handle")?)),
            Event::Failed(reason) => Err(reason),
            Event::Exited { .. } | Event::Bound | Event::Listening => Err("the zygote said nonsense".to_owned()),
        }
    }
}
