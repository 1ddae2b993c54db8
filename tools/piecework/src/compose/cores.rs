//! Keeps this process, and all that it starts from then on, to some of the machine's cores, and behind everybody else on them.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::{
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
    for thread in threads()? {
        sched_setaffinity(Some(thread), &given)?;
    }
    Ok(())
}

/// Others get the cores first, even before anything is frozen.
pub(super) fn come_last() -> Result<()> {
    const NICEST: i32 = 19;
    for thread in threads()? {
        setpriority_process(Some(thread), NICEST)?;
    }
    // Where the kernel groups processes by session, the group has a niceness of its own. Missing on others: nothing to do.
    let _ = fs::write("/proc/self/autogroup", NICEST.to_string());
    Ok(())
}

/// Those that run already keep what they had: each is told. New ones have what their maker has.
fn threads() -> Result<Vec<Pid>> {
    let numbers = fs::read_dir("/proc/self/task")?.map(|thread| {
        let name = thread?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        number.context("threads have numbers")
    });
    numbers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
