//! The process that unpacks a layer: the same executable started again, which can write into one directory and do nothing else.
//!
//! ```text
//! agent: stdin <- layer's bytes, working directory = an empty one      process: limits, nobody, no network, Landlock, seccomp -> unpack
//!        stdout -> what came of it
//! ```
//! A fault in a decoder or in the reader of tars belongs to whoever made the layer: it is to reach nothing.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use base64::Engine as _;
use piecework_model::Rejection;
use serde::{Deserialize, Serialize};

use crate::{
    seccomp,
    unpack::{Failure, Made, Wanted, unpack},
};

/// The first argument of an executable that is to unpack a layer.
pub const UNPACK_ARGUMENT: &str = "__unpack-layer";

/// A decoder's window of 128 MiB, the modes of very many directories, the executable itself, and room.
const MEMORY_BYTES: u64 = 512 << 20;
const CPU_SECONDS: u64 = 600;
const OPEN_FILES: u64 = 64;

/// What the process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) wanted: Wanted,
    /// The identity to take; none where there is only one.
    pub(crate) become_id: Option<u32>,
}

/// What it says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    Made(Made),
    Rejected(Rejection),
    /// What failed and why: the machine's fault.
    Failed(String),
}

impl Order {
    pub(crate) fn argument(&self) -> String {
        let json = serde_json::to_vec(self).expect("an order is plain data");
        base64::engine::general_purpose::STANDARD.encode(json)
    }

    fn parse(argument: Option<&String>) -> io::Result<Self> {
        let encoded = argument.ok_or_else(|| io::Error::other("the order is missing"))?;
        let json = base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .map_err(io::Error::other)?;
        serde_json::from_slice(&json).map_err(io::Error::other)
    }
}

/// Unpacks what comes on standard input into the working directory. `arguments` are those after [`UNPACK_ARGUMENT`].
pub fn unpack_main(arguments: &[String]) -> ! {
    let told = match Order::parse(arguments.first()).and_then(|order| Ok((confine(&order)?, order))) {
        Ok((directory, order)) => match unpack(io::stdin().lock(), &directory, &order.wanted) {
            Ok(made) => Told::Made(made),
            Err(Failure::Rejected(rejection)) => Told::Rejected(rejection),
            Err(Failure::Io(what, error)) => Told::Failed(format!("{what}: {error}")),
        },
        Err(error) => Told::Failed(format!("confine the process that unpacks: {error}")),
    };
    let json = serde_json::to_vec(&told).expect("it is plain data");
    let written = io::stdout().lock().write_all(&json);
    std::process::exit(i32::from(written.is_err()))
}

fn check(result: libc::c_long) -> io::Result<libc::c_int> {
    match libc::c_int::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Gives up everything but standard input, standard output and the working directory, which comes back.
fn confine(order: &Order) -> io::Result<OwnedFd> {
    let directory = OwnedFd::from(File::open(".")?);
    // Where memory runs short, it goes before the platform. Raising is always allowed.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    for (resource, value) in [
        (libc::RLIMIT_AS, MEMORY_BYTES),
        (libc::RLIMIT_FSIZE, order.wanted.bytes_max),
        (libc::RLIMIT_CPU, CPU_SECONDS),
        (libc::RLIMIT_NOFILE, OPEN_FILES),
        (libc::RLIMIT_CORE, 0),
    ] {
        let limit = libc::rlimit {
            rlim_cur: value,
            rlim_max: value,
        };
        // SAFETY: the structure lives across the call.
        check(unsafe { libc::setrlimit(resource, &limit) }.into())?;
    }
    // SAFETY: plain numbers, in a process of one thread; each result is checked where it is a wall.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::umask(0o022);
        check(libc::syscall(
            libc::SYS_close_range,
            directory.as_raw_fd() + 1,
            u32::MAX,
            0,
        ))?;
        if directory.as_raw_fd() > 3 {
            check(libc::syscall(libc::SYS_close_range, 3, directory.as_raw_fd() - 1, 0))?;
        }
        if let Some(id) = order.become_id {
            check(libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWIPC).into())?;
            check(libc::setgroups(0, std::ptr::null()).into())?;
            check(libc::setresgid(id, id, id).into())?;
            check(libc::setresuid(id, id, id).into())?;
        }
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
        // No process beside this one, from here on.
        let one = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        check(libc::setrlimit(libc::RLIMIT_NPROC, &one).into())?;
    }
    landlock(&directory)?;
    seccomp::enter()?;
    Ok(directory)
}

/// Everything that Landlock knows is refused, but for writing, making and removing below the directory. A kernel without Landlock
/// leaves the other walls.
fn landlock(directory: &OwnedFd) -> io::Result<()> {
    const VERSION_FLAG: u32 = 1;
    const PATH_BENEATH: u32 = 1;
    const EXECUTE: u64 = 1;
    const ALL_OF_ABI_1: u64 = (1 << 13) - 1;
    // SAFETY: with the version flag the call takes no pointer and returns a number.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0usize, 0usize, VERSION_FLAG) };
    if abi < 1 {
        return Ok(());
    }
    let since = |first, rights| if abi >= first { rights } else { 0 };
    let files = ALL_OF_ABI_1 | since(2, 1 << 13) | since(3, 1 << 14) | since(5, 1 << 15);
    let ruleset: &[u64] = match abi {
        1..=3 => &[files],
        4..=5 => &[files, 0b11],
        _ => &[files, 0b11, 0b11],
    };
    // SAFETY: structures of the sizes that are said, which live across the calls; the descriptor that is made is ours alone.
    unsafe {
        let made = libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ruleset.as_ptr(),
            size_of_val(ruleset),
            0,
        );
        let made = OwnedFd::from_raw_fd(check(made)?);
        let rights = files & !EXECUTE;
        let rule = [&rights.to_ne_bytes()[..], &directory.as_raw_fd().to_ne_bytes()].concat();
        check(libc::syscall(
            libc::SYS_landlock_add_rule,
            made.as_raw_fd(),
            PATH_BENEATH,
            rule.as_ptr(),
            0,
        ))?;
        check(libc::syscall(libc::SYS_landlock_restrict_self, made.as_raw_fd(), 0))?;
    }
    Ok(())
}
