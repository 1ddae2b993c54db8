//! Signals to a process and to everything below it, for machines without control groups.
//!
//! A jailed process cannot refuse SIGSTOP, and those that could wake each other are all stopped: the tree is walked again
//! until nothing new is found.
#![allow(unsafe_code)]

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// More rounds than a tree can grow while its processes are being stopped: each round stops all that were found.
const ROUNDS_MAX: usize = 16;

/// Fails silently where the process has ended.
pub fn signal(process: BorrowedFd<'_>, signal: i32) {
    // SAFETY: a descriptor that is open, a signal number, no siginfo, no flags.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<u8>(),
            0,
        )
    };
}

/// Stops (SIGSTOP) or continues (SIGCONT) the process and all its descendants. Not for killing: the children of a process that
/// ended are no longer below it.
pub(crate) fn signal_tree(pid: i32, process: BorrowedFd<'_>, number: i32) {
    signal(process, number);
    let mut signalled = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let found = descendants(pid);
        let new: Vec<(i32, i32)> = found
            .into_iter()
            .filter(|(child, _)| signalled.insert(*child))
            .collect();
        if new.is_empty() {
            return;
        }
        for (child, parent) in new {
            signal_child(child, parent, number);
        }
    }
}

/// A number may mean another process by now: the handle is taken first, then its parent is looked at, then it is signalled.
fn signal_child(child: i32, parent: i32, number: i32) {
    let Some(handle) = handle(child) else { return };
    if stat_field(child, PARENT) == Some(u64::from(parent.unsigned_abs())) {
        signal(handle.as_fd(), number);
    }
}

/// A handle of the process that has this number now.
pub fn handle(pid: i32) -> Option<OwnedFd> {
    // SAFETY: plain numbers; the descriptor that comes back is ours alone.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        Some(OwnedFd::from_raw_fd(fd))
    }
}

pub(crate) fn has_children(pid: i32) -> bool {
    !descendants(pid).is_empty()
}

/// Each descendant with its parent. A child is told by the thread that made it.
fn descendants(pid: i32) -> Vec<(i32, i32)> {
    let mut found = Vec::new();
    let mut looked = vec![pid];
    while let Some(parent) = looked.pop() {
        let tasks = fs::read_dir(format!("/proc/{parent}/task"))
            .into_iter()
            .flatten()
            .flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children = children
                .split_whitespace()
                .filter_map(|child| child.parse::<i32>().ok());
            for child in children {
                found.push((child, parent));
                looked.push(child);
            }
        }
    }
    found
}

/// Places in `/proc/PID/stat` after the name, from 0.
const PARENT: usize = 1;
const USER: usize = 11;

fn stat_field(pid: i32, place: usize) -> Option<u64> {
    stat_fields(pid, place, 1).first().copied()
}

fn stat_fields(pid: i32, first: usize, count: usize) -> Vec<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = after_name.split_whitespace().skip(first).take(count);
    fields.filter_map(|field| field.parse().ok()).collect()
}

/// What the process, all below it and all of these that have ended have used.
pub fn tree_cpu_us(pid: i32) -> u64 {
    const TICK_US: u64 = 10_000;
    // User and system time, their own and of the children that they waited for.
    let ticks = |pid: i32| stat_fields(pid, USER, 4).iter().sum::<u64>();
    let below: u64 = descendants(pid).into_iter().map(|(child, _)| ticks(child)).sum();
    (ticks(pid) + below) * TICK_US
}

/// Resident pages of all below the process.
pub(crate) fn resident_pages_below(pid: i32) -> u64 {
    let pages = |(child, _): (i32, i32)| {
        let statm = fs::read_to_string(format!("/proc/{child}/statm")).ok()?;
        statm.split(' ').nth(1)?.parse::<u64>().ok()
    };
    descendants(pid).into_iter().filter_map(pages).sum()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn state(pid: i32) -> String {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        rest.chars().take(1).collect()
    }

    fn name(pid: i32) -> String {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim_end().to_owned()
    }

    fn until(what: &str, look: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !look() {
            assert!(std::time::Instant::now() < deadline, "never: {what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_whole_tree_stops_and_goes_on() {
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'sleep 1000; true' & wait"])
            .stdout(Stdio::null())
            .spawn()
            .expect("a shell");
        let pid = i32::try_from(shell.id()).expect("a number");
        // A parent in vfork waits uninterruptibly (state D) for a child that was stopped before its exec.
        until("three processes, the last past its exec", || {
            descendants(pid).iter().any(|(child, _)| name(*child) == "sleep")
        });
        // SAFETY: plain numbers; the descriptor is ours alone.
        let handle = unsafe { OwnedFd::from_raw_fd(libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32) };
        let tree: Vec<i32> = descendants(pid)
            .into_iter()
            .map(|(child, _)| child)
            .chain([pid])
            .collect();
        signal_tree(pid, handle.as_fd(), libc::SIGSTOP);
        until("all stopped", || tree.iter().all(|pid| state(*pid) == "T"));
        signal_tree(pid, handle.as_fd(), libc::SIGCONT);
        until("none stopped", || tree.iter().all(|pid| state(*pid) == "S"));
        for child in tree {
            // SAFETY: plain numbers; the processes are this test's own, and the shell's number is not free before the wait.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        shell.wait().expect("it ended");
    }
}
