//! A process of ours beside the agent: the same executable started again with an argument of its own, which takes orders over packets with
//! descriptors. The launcher of jails is one, the keeper of containers another.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::Engine as _;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::unix::AsyncFd;

use crate::{standing::Stands, wire};

/// Where a servant finds its socket.
pub const CONTROL_FD: RawFd = 3;

/// The agent's end of the packets.
#[derive(Clone)]
pub struct Line(Arc<AsyncFd<OwnedFd>>);

impl Line {
    /// One packet with its descriptors.
    pub async fn send(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(&self.0, packet, fds).await
    }

    /// Empty where the other side is gone.
    pub async fn receive(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        receive(&self.0).await
    }
}

/// The running process. Dropping it hangs up and waits for its end, and so for that of everything in its pid namespace: some
/// milliseconds.
pub struct Servant {
    line: Line,
    process: Child,
    end_wait: Duration,
    _stands: Stands,
}

impl Servant {
    /// Starts `executable` with `argument` and its options, in the control group that `group` leads into. After `end_wait` it is killed.
    /// Must be called within a tokio runtime.
    pub fn start(
        (executable, argument): (&Path, &str),
        options: &impl Serialize,
        group: Option<File>,
        end_wait: Duration,
    ) -> io::Result<Self> {
        let (ours, theirs) = wire::packet_pair()?;
        let process = start_process((executable, argument), options, theirs, group)?;
        set_nonblocking(&ours)?;
        Ok(Self {
            line: Line(Arc::new(register(ours)?)),
            process,
            end_wait,
            _stands: Stands::new(),
        })
    }

    pub fn line(&self) -> &Line {
        &self.line
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Servant {
    fn drop(&mut self) {
        hang_up(self.line.0.get_ref());
        let begun = Instant::now();
        while begun.elapsed() < self.end_wait && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Only if it did not hear: the outer half's death kills the inner one.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a servant was started with: `arguments` are those after its own.
pub fn options<T: DeserializeOwned>(arguments: &[String]) -> io::Result<T> {
    let encoded = arguments
        .first()
        .ok_or_else(|| io::Error::other("the options are missing"))?;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(io::Error::other)?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}

#[allow(unsafe_code)]
fn hang_up(socket: &OwnedFd) {
    // SAFETY: a descriptor that is open and a number; it fails only if the other side has gone.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

#[allow(unsafe_code)]
fn start_process(
    (executable, argument): (&Path, &str),
    options: &impl Serialize,
    control: OwnedFd,
    group: Option<File>,
) -> io::Result<Child> {
    let json = serde_json::to_vec(options).map_err(io::Error::other)?;
    let encoded = base64::engine::general_purpose::STANDARD.encode(json);
    let mut command = Command::new(executable);
    command
        .arg(argument)
        .arg(encoded)
        .env_clear()
        // Ctrl-C at the terminal is for this program alone: it lets running jobs end, and ends its servants itself.
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
            if fd == CONTROL_FD {
                wire::check(libc::fcntl(fd, libc::F_SETFD, 0))?;
            } else {
                wire::check(libc::dup2(fd, CONTROL_FD))?;
            }
            Ok(())
        });
    }
    let started = command.spawn();
    drop(control);
    started
}

#[allow(unsafe_code)]
pub(crate) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: fcntl with numbers on a descriptor that is open.
    unsafe {
        let flags = wire::check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        wire::check(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK))?;
    }
    Ok(())
}

#[allow(unsafe_code)]
pub(crate) fn register<T: AsRawFd + Into<OwnedFd>>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: what turns into an OwnedFd owns its descriptor: the same open one for as long as it lives.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

pub(crate) async fn send(socket: &AsyncFd<OwnedFd>, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    loop {
        let mut ready = socket.writable().await?;
        match ready.try_io(|socket| wire::send(socket.get_ref().as_fd(), packet, fds)) {
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}

pub(crate) async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    loop {
        let mut ready = socket.readable().await?;
        match ready.try_io(|socket| wire::receive(socket.get_ref().as_fd())) {
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}
