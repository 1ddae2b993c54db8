//! The zygote: a small process of one thread that has the engine and a language's component at hand, and forks workers.
//!
//! It is the same executable started again with [`ZYGOTE_ARGUMENT`], in namespaces of its own with no network. It runs no
//! guest's code. All workers share the pages that it had when it forked them; when its socket closes it ends, and the kernel
//! ends everything in its process namespace with it, so nothing outlives the host.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

use piecework_model::Language;
use piecework_sandbox_jail::walls::{bind_at, enter_empty, enter_user_namespace, receive, send, unbind_at};
use serde::{Deserialize, Serialize};

use crate::{
    inside::{self, walls},
    runtime::Prepared,
    words::{Event, Forking, Order, PLACES, place},
};

/// The first argument of an executable that is to become a zygote.
pub const ZYGOTE_ARGUMENT: &str = "__wasm-zygote";
/// Where the zygote finds its socket, and the compiled component.
pub(crate) const CONTROL_FD: RawFd = 3;
pub(crate) const COMPONENT_FD: RawFd = 4;

/// Of -1,000 to 1,000: after its workers, before the platform.
const OOM_SCORE: &str = "500";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ZygoteOptions {
    pub(crate) language: Language,
    /// Of one worker.
    pub(crate) instances_max: u32,
    /// Work without privileges: in a user namespace of the zygote's own.
    pub(crate) rootless: bool,
    /// Give up root for this identity first, so that a test of the rootless mode is one.
    pub(crate) become_id: Option<u32>,
}

/// Becomes the zygote. `arguments` are those after [`ZYGOTE_ARGUMENT`].
pub fn zygote_main(arguments: &[String]) -> ! {
    // SAFETY: the host placed the zygote's end of the socket there, and nothing else of this process uses it.
    let control = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    let result = options(arguments).and_then(|options| become_zygote(&options, &control));
    if let Err(error) = &result {
        // A host that is gone needs no reason.
        let _ = tell(control.as_fd(), &Event::Failed(error.to_string()), &[]);
    }
    std::process::exit(i32::from(result.is_err()))
}

fn options(arguments: &[String]) -> io::Result<ZygoteOptions> {
    let text = arguments
        .first()
        .ok_or_else(|| io::Error::other("the options are missing"))?;
    serde_json::from_str(text).map_err(io::Error::other)
}

fn become_zygote(options: &ZygoteOptions, control: &OwnedFd) -> io::Result<()> {
    die_with_the_parent()?;
    // No wall: it is as it was where the kernel does not take it.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    if options.rootless {
        named("a user namespace", enter_user_namespace(options.become_id))?;
    }
    let namespaces = libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    // SAFETY: this process has one thread; unshare takes flags only.
    named("new namespaces", walls::checked(unsafe { libc::unshare(namespaces) }))?;
    // SAFETY: one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        0 => inner(options, control),
        child if child > 0 => wait_for(child),
        _ => named("fork", Err(io::Error::last_os_error())),
    }
}

fn die_with_the_parent() -> io::Result<()> {
    // SAFETY: prctl with plain numbers.
    walls::checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
}

fn named<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}

/// The outer half: outside the process namespace, it only waits, and dies with the inner half.
fn wait_for(child: i32) -> io::Result<()> {
    // SAFETY: closes our copy of the socket, so that the host's end sees the inner half's death; nobody uses it after.
    unsafe { libc::close(CONTROL_FD) };
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    walls::checked(unsafe { libc::waitpid(child, &mut status, 0) })?;
    std::process::exit(0)
}

fn inner(options: &ZygoteOptions, control: &OwnedFd) -> io::Result<()> {
    die_with_the_parent()?;
    // The kernel buries workers by itself: the host watches each by a handle of its own.
    // SAFETY: takes numbers.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let component = format!("/proc/self/fd/{COMPONENT_FD}");
    // SAFETY: the host opened the file in its own cache, where only it writes.
    let prepared = unsafe { Prepared::new(options.language, Path::new(&component), options.instances_max) };
    let mut prepared = Some(prepared.map_err(|error| io::Error::other(format!("{error:#}")))?);
    // How to ask for the time is found out by reading what a worker does not see.
    let _ = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    // SAFETY: the host placed it there for this alone.
    drop(unsafe { OwnedFd::from_raw_fd(COMPONENT_FD) });
    named("an empty root", enter_empty((0..PLACES).map(place)))?;
    tell(control.as_fd(), &Event::Ready, &[])?;
    loop {
        let (packet, descriptors) = receive(control.as_fd())?;
        if packet.is_empty() {
            return Ok(());
        }
        let order = serde_json::from_slice(&packet).map_err(io::Error::other)?;
        let (event, pidfd) = match carry_out(order, descriptors, &mut prepared, control) {
            Ok(Some(pidfd)) => (Event::Forked, Some(pidfd)),
            Ok(None) => (Event::Done, None),
            Err(error) => (Event::Failed(error.to_string()), None),
        };
        let handles: Vec<BorrowedFd<'_>> = pidfd.iter().map(AsFd::as_fd).collect();
        tell(control.as_fd(), &event, &handles)?;
    }
}

fn tell(control: BorrowedFd<'_>, event: &Event, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    send(control, &serde_json::to_vec(event)?, descriptors)
}

fn carry_out(
    order: Order,
    descriptors: Vec<OwnedFd>,
    prepared: &mut Option<Prepared>,
    control: &OwnedFd,
) -> io::Result<Option<OwnedFd>> {
    let worker = || {
        descriptors
            .first()
            .map(AsFd::as_fd)
            .ok_or_else(|| io::Error::other("no worker came along"))
    };
    match order {
        Order::Bind { place: number, bundle } => bind_at(worker()?, &bundle, &place(number)).map(|()| None),
        Order::Unbind { place: number } => unbind_at(worker()?, &place(number)).map(|()| None),
        Order::Fork(forking) => fork(forking, descriptors, prepared, control).map(Some),
    }
}

/// By the C library's fork, not by a bare clone: the engine has its handle on the process's pages renewed there.
fn fork(
    forking: Forking,
    mut descriptors: Vec<OwnedFd>,
    prepared: &mut Option<Prepared>,
    control: &OwnedFd,
) -> io::Result<OwnedFd> {
    if descriptors.is_empty() {
        return Err(io::Error::other("no socket came along"));
    }
    // SAFETY: one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: the child's copy of the zygote's socket, which it never uses.
            unsafe { libc::close(control.as_raw_fd()) };
            let errands = descriptors.remove(0);
            let served = become_worker(forking, &errands, descriptors, prepared);
            // Without running destructors of the zygote's state.
            // SAFETY: takes a number.
            unsafe { libc::_exit(i32::from(served.is_err())) }
        }
        child if child > 0 => {
            // SAFETY: plain numbers; a child's number is not used again within the time of this call. The descriptor is ours.
            unsafe {
                let pidfd = libc::syscall(libc::SYS_pidfd_open, child, 0);
                let pidfd = i32::try_from(pidfd).map_err(io::Error::other)?;
                walls::checked(pidfd)?;
                Ok(OwnedFd::from_raw_fd(pidfd))
            }
        }
        _ => Err(io::Error::last_os_error()),
    }
}

fn become_worker(
    forking: Forking,
    errands: &OwnedFd,
    cgroups: Vec<OwnedFd>,
    prepared: &mut Option<Prepared>,
) -> io::Result<()> {
    let entered = walls::enter(&forking, &cgroups);
    drop(cgroups);
    // The host hears why through the errands' socket: the one message that is not asked for.
    let landlock = match entered {
        Ok(landlock) => landlock,
        Err(error) => {
            let told = borsh::to_vec(&Err::<(), String>(error.to_string()))?;
            return send(errands.as_fd(), &told, &[]);
        }
    };
    send(errands.as_fd(), &borsh::to_vec(&Ok::<(), String>(()))?, &[])?;
    let prepared = prepared.take().expect("a child's copy is taken once");
    inside::run(errands, prepared, landlock)
}
