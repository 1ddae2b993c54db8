//! The agent's side of the keeper: starts it, sends orders, hears of deaths.

use std::{
    collections::HashMap,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use base64::Engine as _;
use parking_lot::Mutex;
use piecework_sandbox_jail::walls;
use tokio::{
    io::unix::AsyncFd,
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::keeper::{CONTROL_FD, Event, KEEPER_ARGUMENT, KeeperOptions, Order};

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
    control: Arc<AsyncFd<OwnedFd>>,
    sending: tokio::sync::Mutex<()>,
    state: Arc<State>,
    process: Child,
    listener: JoinHandle<()>,
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
        let (ours, theirs) = walls::packet_pair()?;
        let process = start_process(executable, &options, theirs, group)?;
        set_nonblocking(&ours)?;
        let control = Arc::new(register(ours)?);
        let state = Arc::new(State::default());
        let listener = tokio::spawn(listen(control.clone(), state.clone()));
        Ok(Self {
            control,
            sending: tokio::sync::Mutex::default(),
            state,
            process,
            listener,
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
            send(&self.control, &packet, fds)
                .await
                .map_err(|error| format!("the keeper: {error}"))?;
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
    /// Waits for the keeper's end, and so for that of everything in its pid namespace: some milliseconds.
    fn drop(&mut self) {
        self.listener.abort();
        hang_up(self.control.get_ref());
        let begun = Instant::now();
        while begun.elapsed() < END_WAIT && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Only if it did not hear: the outer half's death kills the inner one.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir(&self.stage);
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

#[allow(unsafe_code)]
fn hang_up(socket: &OwnedFd) {
    // SAFETY: a descriptor that is open and a number; it fails only if the other side has gone.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

#[allow(unsafe_code)]
fn start_process(
    executable: &Path,
    options: &KeeperOptions,
    control: OwnedFd,
    group: Option<fs::File>,
) -> io::Result<Child> {
    use std::io::Write as _;
    let json = serde_json::to_vec(options).map_err(io::Error::other)?;
    let encoded = base64::engine::general_purpose::STANDARD.encode(json);
    let mut command = Command::new(executable);
    command
        .arg(KEEPER_ARGUMENT)
        .arg(encoded)
        .env_clear()
        // Ctrl-C at the terminal is for this program alone: it lets running jobs end, and ends the keeper itself.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let fd = control.as_raw_fd();
    // SAFETY: between fork and exec only async-signal-safe calls run: write, dup2 and fcntl on descriptors that are open.
    unsafe {
        command.pre_exec(move || {
            if let Some(group) = &group {
                (&*group).write_all(b"0")?;
            }
            let placed = match fd == CONTROL_FD {
                true => libc::fcntl(fd, libc::F_SETFD, 0),
                false => libc::dup2(fd, CONTROL_FD),
            };
            match placed < 0 {
                true => Err(io::Error::last_os_error()),
                false => Ok(()),
            }
        });
    }
    let started = command.spawn();
    drop(control);
    started
}

#[allow(unsafe_code)]
fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: fcntl with numbers on a descriptor that is open.
    let set = unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)
    };
    match set < 0 {
        true => Err(io::Error::last_os_error()),
        false => Ok(()),
    }
}

#[allow(unsafe_code)]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is the same open descriptor for as long as it lives.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

async fn send(socket: &AsyncFd<OwnedFd>, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    loop {
        let mut ready = socket.writable().await?;
        match ready.try_io(|socket| walls::send(socket.get_ref().as_fd(), packet, fds)) {
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    loop {
        let mut ready = socket.readable().await?;
        match ready.try_io(|socket| walls::receive(socket.get_ref().as_fd())) {
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}

async fn listen(control: Arc<AsyncFd<OwnedFd>>, state: Arc<State>) {
    loop {
        match receive(&control).await {
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
