//! The host's side of a zygote: starts it, has it fork workers and show them their bundles.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Sender},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use piecework_sandbox_jail::walls::{packet_pair, receive, send, signal, tree_cpu_us};

use crate::{
    words::{Event, Forking, Order},
    zygote::{COMPONENT_FD, CONTROL_FD, ZYGOTE_ARGUMENT, ZygoteOptions},
};

/// How long a zygote may take to stand, or to do one thing: a hundred times what it takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to end with all that it forked.
const END_WAIT: Duration = Duration::from_secs(1);

pub(crate) struct Zygote {
    control: Mutex<OwnedFd>,
    process: Child,
    /// The thread that started it ends with this.
    _parent: Sender<()>,
}

impl Zygote {
    /// Blocks until it stands: some 20 ms.
    pub(crate) fn start(
        executable: &Path,
        options: &ZygoteOptions,
        component: File,
        group: Option<File>,
    ) -> io::Result<Self> {
        let (ours, theirs) = packet_pair()?;
        patient(&ours)?;
        let mut command = command(executable, options, (theirs, component), group)?;
        let (process, parent) = spawn_to_stay(move || command.spawn())?;
        let zygote = Self {
            control: Mutex::new(ours),
            process,
            _parent: parent,
        };
        match heard(&zygote.control.lock())? {
            (Event::Ready, _) => {}
            (Event::Failed(reason), _) => return Err(io::Error::other(reason)),
            (Event::Forked | Event::Done, _) => return Err(io::Error::other("it said nonsense")),
        }
        Ok(zygote)
    }

    /// A worker's process: its pidfd. `errands` is its end of the socket; `groups` lead into its control group.
    pub(crate) fn fork<'a>(
        &self,
        forking: Forking,
        errands: BorrowedFd<'a>,
        groups: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<OwnedFd> {
        let descriptors: Vec<BorrowedFd<'_>> = std::iter::once(errands).chain(groups).collect();
        let mut made = self.order(&Order::Fork(forking), &descriptors)?;
        made.pop().ok_or_else(|| io::Error::other("no worker was forked"))
    }

    pub(crate) fn bind(&self, worker: BorrowedFd<'_>, place: u32, bundle: &Path) -> io::Result<()> {
        let bundle = bundle.canonicalize()?.as_os_str().as_bytes().to_vec();
        self.order(&Order::Bind { place, bundle }, &[worker]).map(drop)
    }

    pub(crate) fn unbind(&self, worker: BorrowedFd<'_>, place: u32) -> io::Result<()> {
        self.order(&Order::Unbind { place }, &[worker]).map(drop)
    }

    /// Blocks for a millisecond or two.
    fn order(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> io::Result<Vec<OwnedFd>> {
        let control = self.control.lock();
        send(control.as_fd(), &serde_json::to_vec(order)?, descriptors)?;
        match heard(&control)? {
            (Event::Forked | Event::Done, made) => Ok(made),
            (Event::Failed(reason), _) => Err(io::Error::other(reason)),
            (Event::Ready, _) => Err(io::Error::other("the zygote said nonsense")),
        }
    }

    /// CPU time of it and of its workers, those that have ended among them.
    pub(crate) fn tree_cpu_us(&self) -> u64 {
        i32::try_from(self.process.id()).map_or(0, tree_cpu_us)
    }
}

impl Drop for Zygote {
    /// Waits for its end, and so for that of all its workers: some milliseconds.
    fn drop(&mut self) {
        // SAFETY: a descriptor that is open and a number; it fails only if the other side has gone.
        unsafe { libc::shutdown(self.control.get_mut().as_raw_fd(), libc::SHUT_RDWR) };
        let begun = Instant::now();
        while begun.elapsed() < END_WAIT && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Only if it did not hear: the outer half's death kills the inner one.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn heard(control: &OwnedFd) -> io::Result<(Event, Vec<OwnedFd>)> {
    let (packet, descriptors) = receive(control.as_fd())?;
    if packet.is_empty() {
        return Err(io::Error::other("the zygote ended"));
    }
    Ok((serde_json::from_slice(&packet)?, descriptors))
}

/// Reads of this socket wait no longer than [`PATIENCE`].
pub(crate) fn patient(socket: &OwnedFd) -> io::Result<()> {
    let timeout = Some(PATIENCE);
    Ok(rustix::net::sockopt::set_socket_timeout(
        socket,
        rustix::net::sockopt::Timeout::Recv,
        timeout,
    )?)
}

/// Kills a process by its handle; nothing happens where it has ended.
pub(crate) fn kill(process: &OwnedFd) {
    signal(process.as_fd(), libc::SIGKILL);
}

fn command(
    executable: &Path,
    options: &ZygoteOptions,
    (control, component): (OwnedFd, File),
    group: Option<File>,
) -> io::Result<Command> {
    let mut command = Command::new(executable);
    command
        .arg(ZYGOTE_ARGUMENT)
        .arg(serde_json::to_string(options)?)
        .env_clear()
        // Ctrl-C at the terminal is for this program alone: it lets running jobs end, and ends the zygote itself.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // Beyond the places that they go to, so that neither is overwritten by the other.
    let control = above(&control)?;
    let component = above(&OwnedFd::from(component))?;
    // SAFETY: between fork and exec only async-signal-safe calls run: write and dup2 on descriptors that are open.
    unsafe {
        command.pre_exec(move || {
            if let Some(group) = &group {
                rustix::io::write(group, b"0")?;
            }
            for (from, to) in [(&control, CONTROL_FD), (&component, COMPONENT_FD)] {
                if libc::dup2(from.as_raw_fd(), to) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    Ok(command)
}

/// On a thread of its own: the kernel ends the zygote with the thread that started it, and threads of a pool come and go.
fn spawn_to_stay(spawn: impl FnOnce() -> io::Result<Child> + Send + 'static) -> io::Result<(Child, Sender<()>)> {
    let (started, starts) = mpsc::channel();
    let (parent, ends) = mpsc::channel();
    std::thread::Builder::new().name("wasm-zygote".into()).spawn(move || {
        // Whoever asked waits for it.
        let _ = started.send(spawn());
        // Fails once the zygote is dropped.
        let _ = ends.recv();
    })?;
    let child = starts
        .recv()
        .map_err(|_| io::Error::other("the zygote's thread panicked"))??;
    Ok((child, parent))
}

fn above(descriptor: &OwnedFd) -> io::Result<OwnedFd> {
    let lowest: RawFd = COMPONENT_FD + 1;
    Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, lowest)?)
}
