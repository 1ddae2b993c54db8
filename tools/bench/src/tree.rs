//! CPU time and memory of a process with everything it started, from /proc.

use std::{collections::HashMap, fs, time::Duration};

use anyhow::{Context, Result};

/// A process and its descendants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree(pub u32);

/// Ticks of a second in /proc: fixed by Linux's interface, whatever the kernel's own timer does.
const USER_HZ: f64 = 100.0;

struct Process {
    parent: u32,
    /// User and system time, of reaped children too: what a dead child used moves to its parent.
    ticks: u64,
}

impl Tree {
    /// CPU time so far. A difference of two readings is exact to the kernel's tick (10 ms) for each process.
    pub fn cpu(self) -> Result<Duration> {
        let processes = processes()?;
        let ticks: u64 = self.members(&processes).iter().map(|pid| processes[pid].ticks).sum();
        Ok(Duration::from_secs_f64(ticks as f64 / USER_HZ))
    }

    /// Proportional memory (shared pages counted once between those who share them), bytes.
    pub fn memory_bytes(self) -> Result<u64> {
        let processes = processes()?;
        Ok(self.members(&processes).into_iter().map(memory_of).sum())
    }

    pub fn processes(self) -> Result<usize> {
        Ok(self.members(&processes()?).len())
    }

    fn members(self, processes: &HashMap<u32, Process>) -> Vec<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (pid, process) in processes {
            children.entry(process.parent).or_default().push(*pid);
        }
        let mut members = Vec::new();
        let mut pending = vec![self.0];
        while let Some(pid) = pending.pop() {
            if processes.contains_key(&pid) {
                members.push(pid);
                pending.extend(children.remove(&pid).unwrap_or_default());
            }
        }
        members
    }
}

fn processes() -> Result<HashMap<u32, Process>> {
    let mut found = HashMap::new();
    for entry in fs::read_dir("/proc").context("list /proc")? {
        let name = entry.context("list /proc")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end between being listed and being read.
        if let Some(process) = fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .as_deref()
            .and_then(parse)
        {
            found.insert(pid, process);
        }
    }
    Ok(found)
}

/// proc_pid_stat(5): the fields after the name in parentheses, which may hold anything.
fn parse(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // state is field 0 here: ppid 1, utime 11, stime 12, cutime 13, cstime 14.
    let ticks = (11..15).map(number).sum::<Option<u64>>()?;
    Some(Process {
        parent: u32::try_from(number(1)?).ok()?,
        ticks,
    })
}

fn memory_of(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = rollup.lines().find_map(|line| {
        line.strip_prefix("Pss:")?
            .trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or(0) * 1_024
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Instant};

    use super::*;

    #[test]
    fn the_time_of_a_child_counts_while_it_runs_and_after_it_was_reaped() {
        let tree = Tree(std::process::id());
        let before = tree.cpu().expect("reads");
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let began = Instant::now();
        assert!(Command::new("sh").args(["-c", busy]).status().expect("runs").success());
        let used = tree.cpu().expect("reads") - before;
        assert!(
            used > Duration::from_millis(20) && used < began.elapsed() * 4 + Duration::from_millis(50),
            "{used:?}"
        );
        assert!(tree.memory_bytes().expect("reads") > 100_000);
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 3 7 7 0 -1 4194304 1 0 0 0 10 20 30 40 20 0 1 0 5";
        let process = parse(stat).expect("parses");
        assert_eq!((process.parent, process.ticks), (3, 100));
    }
}
