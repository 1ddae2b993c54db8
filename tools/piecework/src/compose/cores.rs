//! Keeps this process, and all that it starts from then on, to some of the machine's cores, and behind everybody else
//! on them.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::{
    io::Errno,
    process::{Pid, setpriority_process},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// The last `cores` of those that this process may use; nothing changes where it may use no more.
pub(super) fn confine(cores: u32) -> Result<()> {
    let may = sched_getaffinity(None)?;
    let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| may.is_set(*core)).collect();
    let cores = usize::try_from(cores).unwrap_or(usize::MAX);
    if cores >= all.len() {
        return Ok(());
    }
    let mut given = CpuSet::new();
    for core in &all[all.len() - cores..] {
        given.set(*core);
    }
    for thread in threads(rustix::process::getpid())? {
        unless_gone(sched_setaffinity(Some(thread), &given))?;
    }
    Ok(())
}

/// Others get the cores first, even before anything is frozen; but for the thread that looks after that.
pub(super) fn come_later() -> Result<()> {
    /// A ninth of everybody else's share: whoever works here reaches the load that freezes jobs, and the link stays
    /// alive.
    const NICE: i32 = 10;
    for process in family() {
        for thread in threads(process)? {
            let name = fs::read_to_string(format!("/proc/{process}/task/{thread}/comm")).unwrap_or_default();
            if name.trim() != piecework_provider::KEEPER_THREAD {
                unless_gone(setpriority_process(Some(thread), NICE))?;
            }
        }
    }
    // Where the kernel groups processes by session, the group has a niceness of its own. Missing on others: nothing to do.
    let _ = fs::write("/proc/self/autogroup", NICE.to_string());
    Ok(())
}

/// A thread may end between being seen and being told.
pub(super) fn unless_gone(done: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match done {
        Err(Errno::SRCH) => Ok(()),
        other => other,
    }
}

/// This process and all that it started: sandboxes inherit from them.
fn family() -> Vec<Pid> {
    let mut family = vec![rustix::process::getpid()];
    let mut looked = 0;
    while let Some(parent) = family.get(looked).copied() {
        looked += 1;
        for task in threads(parent).unwrap_or_default() {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{task}/children")).unwrap_or_default();
            let numbers = children.split_whitespace().filter_map(|child| child.parse().ok());
            family.extend(numbers.filter_map(Pid::from_raw));
        }
    }
    family
}

/// Those that run already keep what they had: each is told. New ones have what their maker has. Empty once it has
/// ended.
pub(super) fn threads(process: Pid) -> Result<Vec<Pid>> {
    let Ok(found) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Ok(Vec::new());
    };
    let numbers = found.map(|thread| {
        let name = thread?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        number.context("threads have numbers")
    });
    numbers.collect()
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn all_that_runs_comes_later_but_the_keeper() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let (told, hears) = std::sync::mpsc::channel();
        let (asks, asked) = std::sync::mpsc::channel::<()>();
        let keeper = std::thread::Builder::new().name(piecework_provider::KEEPER_THREAD.into());
        let (starts, started) = std::sync::mpsc::channel::<()>();
        let keeper = keeper.spawn(move || {
            // A thread gives itself its name as it starts.
            starts.send(()).expect("it is waited for");
            let _ = asked.recv();
            told.send(getpriority_process(None).expect("Linux tells"))
        });
        started.recv().expect("it starts");
        let before = getpriority_process(None).expect("Linux tells");
        come_later().expect("lowers");
        let child_pid = Pid::from_child(&child);
        assert_eq!(getpriority_process(None).expect("Linux tells"), 10);
        assert_eq!(getpriority_process(Some(child_pid)).expect("Linux tells"), 10);
        asks.send(()).expect("it waits");
        assert_eq!(hears.recv().expect("it tells"), before);
        keeper.expect("a thread").join().expect("no panic").expect("heard");
        child.kill().expect("it runs");
        child.wait().expect("it ended");
    }

    #[test]
    fn one_core_is_given_to_all_threads() {
        let own = sched_getaffinity(None).expect("Linux tells");
        let (told, hears) = std::sync::mpsc::channel();
        let (asks, asked) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            let _ = asked.recv();
            told.send(sched_getaffinity(None).expect("Linux tells").count())
        });
        confine(1).expect("confines");
        asks.send(()).expect("it waits");
        assert_eq!(hears.recv().expect("it tells"), 1);
        assert_eq!(sched_getaffinity(None).expect("Linux tells").count(), 1);
        other.join().expect("no panic").expect("heard");
        sched_setaffinity(None, &own).expect("as before");
    }
}
