//! The walls around a worker: laid by the worker itself, after the fork and before its first errand.
//!
//! ```text
//! control group, goes first when memory is short | its own mount namespace without the host | limits | nobody, no capabilities,
//! no new privileges | Landlock: reading only | seccomp: the calls that the engine makes, and no others
//! ```
//! Process, network, IPC and host-name namespaces are its zygote's: what would reach another worker through them is no call
//! that seccomp knows.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
};

use piecework_sandbox_jail::walls::{let_go_of_the_host, read_only};

use super::seccomp;
use crate::words::Forking;

/// Of -1,000 to 1,000: workers go long before the process that keeps the ledger.
const OOM_SCORE: &str = "800";
/// Where there are no control groups: guests that spin then leave most of the processor to those who serve requests.
const NICE: i32 = 10;
/// Three for each instance, and what guests open.
const OPEN_FILES_MAX: u64 = 8 << 10;
/// Threads: one for each instance, two of the worker's own.
const THREADS_MAX: u64 = 1 << 10;
/// Allocators of the C library: each keeps what it once had, and instances' threads come and go.
const ARENAS_MAX: libc::c_int = 2;

/// Whether Landlock stands too; it is the one wall that a kernel may lack.
pub(crate) fn enter(forking: &Forking, cgroups: &[OwnedFd]) -> io::Result<bool> {
    quiet()?;
    for cgroup in cgroups {
        named("a control group", rustix::io::write(cgroup, b"0").map_err(Into::into))?;
    }
    // No wall: it is as it was where the kernel does not take it.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let data_bytes = forking.memory_bytes.map(|bytes| bytes.saturating_add(data_bytes_now()));
    // SAFETY: takes flags only; this process has one thread.
    named(
        "a mount namespace",
        checked(unsafe { libc::unshare(libc::CLONE_NEWNS) }),
    )?;
    named("leaving the host's root", let_go_of_the_host())?;
    named("limits", limits(forking, data_bytes))?;
    named("an identity", identity(forking.id))?;
    let landlock = named("landlock", read_only())?;
    // Neither is a wall.
    let _ = rustix::process::nice(NICE);
    // SAFETY: takes numbers.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX) };
    named("seccomp", seccomp::enter())?;
    Ok(landlock)
}

fn named<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}

pub(crate) fn checked(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Private, writable address space: what `RLIMIT_DATA` counts. The engine's pool has reserved a lot of it.
fn data_bytes_now() -> u64 {
    const PAGE_BYTES: u64 = 4 << 10;
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = pages.split(' ').nth(5).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * PAGE_BYTES
}

fn limits(forking: &Forking, data_bytes: Option<u64>) -> io::Result<()> {
    limit(libc::RLIMIT_CORE, 0)?;
    limit(libc::RLIMIT_FSIZE, 0)?;
    limit(libc::RLIMIT_MEMLOCK, 0)?;
    limit(libc::RLIMIT_NOFILE, OPEN_FILES_MAX)?;
    if forking.id.is_some() {
        // The kernel counts by identity: without one of its own, those of the user's other processes would count.
        limit(libc::RLIMIT_NPROC, THREADS_MAX)?;
    }
    data_bytes.map_or(Ok(()), |bytes| limit(libc::RLIMIT_DATA, bytes))
}

fn limit(resource: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let mut now = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a structure that outlives the calls.
    unsafe {
        checked(libc::getrlimit(resource, &mut now))?;
        now.rlim_max = now.rlim_max.min(most);
        now.rlim_cur = now.rlim_max;
        checked(libc::setrlimit(resource, &now))
    }
}

fn identity(id: Option<u32>) -> io::Result<()> {
    // SAFETY: plain numbers, null with a length of zero, and structures of the kernel's sizes that outlive the calls.
    unsafe {
        if let Some(id) = id {
            checked(libc::setgroups(0, std::ptr::null()))?;
            checked(libc::setresgid(id, id, id))?;
            checked(libc::setresuid(id, id, id))?;
        }
        // The third version of `__user_cap_header_struct`, for this process; no capability in any set.
        let (header, none) = ([0x2008_0522_u32, 0], [0_u32; 6]);
        let laid_down = libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr());
        checked(i32::try_from(laid_down).unwrap_or(-1))?;
        let (no, yes): (libc::c_ulong, libc::c_ulong) = (0, 1);
        checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, no, no, no))?;
        // After the change of identity, which undoes it.
        checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))
    }
}

/// Standard output and error lead nowhere from now on.
fn quiet() -> io::Result<()> {
    for fd in [1, 2] {
        // SAFETY: numbers; the zygote's standard input is `/dev/null`, which takes everything.
        checked(unsafe { libc::dup2(io::stdin().as_raw_fd(), fd) })?;
    }
    Ok(())
}
