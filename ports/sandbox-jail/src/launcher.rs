//! The launcher: a small single-threaded process, first of its pid namespace, that makes jails and reaps what dies.
//!
//! It is the same executable started again with [`INIT_ARGUMENT`]. It reads orders from one socket; when that socket closes
//! it ends, and the kernel ends everything in its pid namespace with it, so nothing outlives the agent.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use serde::{Deserialize, Serialize};

use crate::{
    doors,
    plan::{Argument, CHANNEL_FD, Step},
    root::{self, Root},
    servant::{self, CONTROL_FD},
    wire::{self, Event, Order, check},
};

/// The first argument of an executable that is to become a launcher.
pub const INIT_ARGUMENT: &str = "__jail-init";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LauncherOptions {
    pub(crate) root: Root,
    /// Work without privileges: in a user namespace of the launcher's own.
    pub(crate) rootless: bool,
    /// Give up root for this identity first, so that a test of the rootless mode is one.
    pub(crate) become_id: Option<u32>,
}

/// Becomes the launcher. `arguments` are those after [`INIT_ARGUMENT`].
pub fn init_main(arguments: &[String]) -> ! {
    // SAFETY: the agent placed our end of the control socket there, and nothing else of this process uses it.
    let control = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    let result = servant::options(arguments).and_then(|options| become_launcher(&options, control.as_fd()));
    if let Err(error) = &result {
        tell(control.as_fd(), &Event::Failed(error.to_string()));
    }
    std::process::exit(i32::from(result.is_err()))
}

fn become_launcher(options: &LauncherOptions, control: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: prctl with plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    come_after_the_agent();
    if options.rootless {
        named("a user namespace", enter_user_namespace(options.become_id))?;
    }
    // SAFETY: this process has one thread; unshare takes flags only.
    named(
        "new namespaces",
        check(unsafe { libc::unshare(libc::CLONE_NEWPID | libc::CLONE_NEWNS) }),
    )?;
    // SAFETY: one thread, so the child may do anything.
    match named("fork", check(unsafe { libc::fork() }))? {
        0 => {
            // SAFETY: prctl with plain numbers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            named("the root of the jails", root::enter(&options.root))?;
            serve(control)
        }
        child => wait_for(child),
    }
}

/// Where memory or time run short, the agent comes first: the launcher and its templates before no other process, their jails
/// last. Raising is always allowed.
fn come_after_the_agent() {
    /// Between the agent, at 0 or below, and the jails.
    const OOM_SCORE_ADJ: &str = "500";
    // A kernel without it ends whom it likes.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    // The agent may have raised its own priority, which is not inherited by strangers' code.
    // SAFETY: plain numbers; it lowers this process's priority to the usual one, or fails and changes nothing.
    unsafe {
        if libc::getpriority(libc::PRIO_PROCESS, 0) < 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, 0);
        }
    }
}

fn named<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}

/// Becomes root of a user namespace of its own, after it became `become_id` if there is one. For a process of one thread.
pub fn enter_user_namespace(become_id: Option<u32>) -> io::Result<()> {
    // SAFETY: calls with plain numbers, in a process of one thread.
    unsafe {
        if let Some(id) = become_id {
            check(libc::setgroups(0, ptr::null()))?;
            check(libc::setresgid(id, id, id))?;
            check(libc::setresuid(id, id, id))?;
            libc::prctl(libc::PR_SET_DUMPABLE, 1);
        }
        let (user, group) = (libc::geteuid(), libc::getegid());
        check(libc::unshare(libc::CLONE_NEWUSER))?;
        libc::prctl(libc::PR_SET_DUMPABLE, 1);
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1"))
    }
}

/// The outer half: outside the pid namespace, it only waits, and dies with the inner half.
fn wait_for(child: i32) -> io::Result<()> {
    // SAFETY: closes our copy of the control socket, so that the agent's end sees the inner half's death; nobody uses it after.
    unsafe { libc::close(CONTROL_FD) };
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    check(unsafe { libc::waitpid(child, &mut status, 0) })?;
    std::process::exit(0)
}

fn serve(control: BorrowedFd<'_>) -> io::Result<()> {
    let deaths = death_signals()?;
    loop {
        let mut polled = [control.as_raw_fd(), deaths.as_raw_fd()].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: an array of two.
        if unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) } < 0 {
            continue;
        }
        if polled[1].revents != 0 {
            reap(&deaths, control);
        }
        if polled[0].revents != 0 {
            let (packet, fds) = wire::receive(control)?;
            if packet.is_empty() {
                return Ok(());
            }
            answer(control, &packet, &fds);
        }
    }
}

fn death_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset; the descriptor that signalfd returns is ours alone.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut()))?;
        // Jails stop and go on between calls: that is no death.
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_flags = libc::SA_NOCLDSTOP;
        check(libc::sigaction(libc::SIGCHLD, &action, ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn reap(deaths: &OwnedFd, control: BorrowedFd<'_>) {
    let mut drained = [0u8; 1024];
    // SAFETY: a buffer of the length that is said; what was read does not matter, the zombies tell.
    unsafe { libc::read(deaths.as_raw_fd(), drained.as_mut_ptr().cast(), drained.len()) };
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::__WALL) };
        if pid <= 0 {
            return;
        }
        let status = if libc::WIFSIGNALED(status) {
            -libc::WTERMSIG(status)
        } else {
            libc::WEXITSTATUS(status)
        };
        tell(control, &Event::Exited { pid, status });
    }
}

fn answer(control: BorrowedFd<'_>, packet: &[u8], fds: &[OwnedFd]) {
    if let Ok(Order::Listen { ports }) = serde_json::from_slice(packet) {
        // The child that opens them tells so itself.
        if let Err(error) = doors::open_into(fds, &ports, control) {
            tell(control, &Event::Failed(error.to_string()));
        }
        return;
    }
    if let Ok(Order::Bind { bundle }) = serde_json::from_slice(packet) {
        let bound = root::bind_into(fds, &bundle);
        return tell(
            control,
            &bound.map_or_else(|error| Event::Failed(error.to_string()), |()| Event::Bound),
        );
    }
    let started = match serde_json::from_slice(packet) {
        Ok(Order::Zygote { arguments }) => spawn(0, &arguments, &zygote_steps(), fds),
        Ok(Order::Execute {
            arguments,
            flags,
            steps,
        }) => spawn(flags, &arguments, &steps, fds),
        Ok(Order::Bind { .. } | Order::Listen { .. }) => unreachable!("answered above"),
        Err(error) => Err(io::Error::other(error)),
    };
    match started {
        Ok((pid, pidfd)) => {
            let bytes = serde_json::to_vec(&Event::Started(pid)).expect("a number is JSON");
            // An agent that is gone shows in the next receive.
            let _ = wire::send(control, &bytes, &[pidfd.as_fd()]);
        }
        Err(error) => tell(control, &Event::Failed(error.to_string())),
    }
}

fn tell(control: BorrowedFd<'_>, event: &Event) {
    let bytes = serde_json::to_vec(event).expect("an event is JSON");
    // An agent that is gone shows in the next receive.
    let _ = wire::send(control, &bytes, &[]);
}

/// A zygote is trusted: it gets its socket, an empty signal mask and nothing else.
fn zygote_steps() -> Vec<Step> {
    let step = |name: &str, number, arguments| Step {
        name: name.to_owned(),
        number,
        arguments,
        optional: false,
        unless: None,
    };
    let mask = vec![
        Argument::Int(libc::SIG_SETMASK.into()),
        Argument::Bytes(vec![0; 8]),
        Argument::Int(0),
        Argument::Int(8),
    ];
    let place = vec![Argument::Fd(0), Argument::Int(CHANNEL_FD), Argument::Int(0)];
    vec![
        step("unblock signals", libc::SYS_rt_sigprocmask, mask),
        step("place the socket", libc::SYS_dup3, place),
    ]
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

fn spawn(flags: u64, arguments: &[String], steps: &[Step], fds: &[OwnedFd]) -> io::Result<(i32, OwnedFd)> {
    let arguments: Vec<CString> = arguments
        .iter()
        .map(|text| CString::new(text.as_str()))
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    let mut pidfd: RawFd = -1;
    let clone = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM this is a fork; the process has one thread, so the child may do anything.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &clone, size_of::<CloneArgs>()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        execute(steps, &fds);
        become_program(&arguments)
    }
    // SAFETY: the kernel wrote a descriptor that is ours alone.
    Ok((i32::try_from(pid).expect("a pid"), unsafe {
        OwnedFd::from_raw_fd(pidfd)
    }))
}

/// Runs the steps in order; a failing one ends this process, since half a jail is none.
fn execute(steps: &[Step], fds: &[RawFd]) {
    let mut outs: Vec<libc::c_long> = Vec::with_capacity(steps.len());
    for step in steps {
        if step.unless.is_some_and(|taken| outs[taken] >= 0) {
            outs.push(0);
            continue;
        }
        let result = run(step, fds, &outs);
        if result < 0 && !step.optional {
            fail(&step.name);
        }
        outs.push(result);
    }
}

#[repr(C)]
struct FilterProgram {
    length: u16,
    instructions: *const u8,
}

fn run(step: &Step, fds: &[RawFd], outs: &[libc::c_long]) -> libc::c_long {
    let mut filter = FilterProgram {
        length: 0,
        instructions: ptr::null(),
    };
    let mut numbers: [libc::c_long; 6] = [0; 6];
    for (number, argument) in numbers.iter_mut().zip(&step.arguments) {
        *number = match argument {
            Argument::Int(value) => *value,
            Argument::Bytes(bytes) => bytes.as_ptr() as libc::c_long,
            Argument::Fd(index) => fds[*index].into(),
            Argument::Out(index) => outs[*index],
            Argument::Filter(bytes) => {
                filter.length = u16::try_from(bytes.len() / 8).expect("at most 4096 instructions");
                filter.instructions = bytes.as_ptr();
                ptr::from_ref(&filter) as libc::c_long
            }
        };
    }
    let [a, b, c, d, e, f] = numbers;
    // SAFETY: the plan gives each call the arguments it documents; every pointer is to a buffer that lives across the call.
    unsafe { libc::syscall(step.number, a, b, c, d, e, f) }
}

fn become_program(arguments: &[CString]) -> ! {
    let mut pointers: Vec<*const libc::c_char> = arguments.iter().map(|text| text.as_ptr()).collect();
    pointers.push(ptr::null());
    let environment = [c"PATH=/usr/bin:/bin".as_ptr(), ptr::null()];
    // SAFETY: both lists end with a null pointer; the texts live until the program is replaced.
    unsafe { libc::execve(pointers[0], pointers.as_ptr(), environment.as_ptr()) };
    fail("execute the interpreter")
}

/// Tells the log pipe why, and ends without running destructors of the parent's state.
fn fail(what: &str) -> ! {
    let told = format!("jail: {what} failed: {}\n", io::Error::last_os_error());
    // SAFETY: a buffer of the length that is said; `_exit` takes a number.
    unsafe {
        libc::write(2, told.as_ptr().cast(), told.len());
        libc::_exit(125)
    }
}
