//! Reads this machine: how busy others keep it, whether it is plugged in, the time of day.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use piecework_sandbox::Beside;
use rustix::time::{ClockId, clock_gettime};

use crate::owner::Reading;

/// `/proc/stat` counts in these on every Linux.
const TICK_US: u64 = 10_000;
/// What changes slowly is read this seldom.
const SLOW: Duration = Duration::from_secs(1);

/// Where to look, and recent observations.
pub(crate) struct Machine {
    began: Instant,
    /// A control group whose load alone is the owner's; none: all that is not this provider.
    group: Option<PathBuf>,
    slow: Option<(Instant, Slow)>,
    own: Own,
}

/// CPU time of this provider and its sandboxes. The time of a sandbox that has gone is no longer told: that is not others'.
#[derive(Default)]
struct Own {
    told_us: u64,
    sum_us: u64,
}

impl Own {
    fn now(&mut self, told_us: u64) -> u64 {
        self.sum_us += told_us.saturating_sub(self.told_us);
        self.told_us = told_us;
        self.sum_us
    }
}

#[derive(Clone, Copy)]
struct Slow {
    on_battery: bool,
    minute: u16,
    held_bytes: u64,
}

impl Machine {
    pub(crate) fn new(group: Option<PathBuf>) -> Self {
        Self {
            began: Instant::now(),
            group,
            slow: None,
            own: Own::default(),
        }
    }

    /// Whether the load that it reads is the owner's alone.
    pub(crate) fn knows_the_owner(&self) -> bool {
        self.group.is_some()
    }

    pub(crate) fn read(&mut self, beside: Beside) -> Reading {
        let stat = text("/proc/stat");
        let others_us = match &self.group {
            Some(group) => group_cpu_us(group),
            None => spent_us(&stat, &BUSY).saturating_sub(self.own.now(own_cpu_us().saturating_add(beside.cpu_us))),
        };
        let slow = self.slow(beside);
        Reading {
            at: self.began.elapsed(),
            others_us,
            idle_us: spent_us(&stat, &IDLE),
            cores: counted_cores(&stat),
            on_battery: slow.on_battery,
            minute: slow.minute,
            held_bytes: slow.held_bytes,
        }
    }

    fn slow(&mut self, beside: Beside) -> Slow {
        if let Some((at, slow)) = self.slow
            && at.elapsed() < SLOW
        {
            return slow;
        }
        let now = jiff::Zoned::now();
        let slow = Slow {
            on_battery: on_battery(Path::new("/sys/class/power_supply")),
            minute: u16::try_from(i32::from(now.hour()) * 60 + i32::from(now.minute())).unwrap_or(0),
            held_bytes: own_memory_bytes() + beside.memory_bytes,
        };
        self.slow = Some((Instant::now(), slow));
        slow
    }
}

/// Whether the group's load can be read: of control groups v2, or of the cpuacct hierarchy of v1.
pub fn can_watch(group: &Path) -> bool {
    ["cpu.stat", "cpuacct.usage"]
        .iter()
        .any(|file| group.join(file).is_file())
}

fn group_cpu_us(group: &Path) -> u64 {
    if let Ok(nanos) = fs::read_to_string(group.join("cpuacct.usage")) {
        return nanos.trim().parse::<u64>().unwrap_or(0) / 1_000;
    }
    let stat = text(group.join("cpu.stat"));
    let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
    usage.and_then(|usage| usage.trim().parse().ok()).unwrap_or(0)
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Fields of the first line of `/proc/stat`: user, nice, system and both kinds of interrupts. Guests are in user time;
/// time taken by the hypervisor belongs to no process.
const BUSY: [usize; 5] = [0, 1, 2, 5, 6];
/// Idle, and waiting for disks.
const IDLE: [usize; 2] = [3, 4];

/// Those that the times are of: in a container these may be more than it may use.
fn counted_cores(stat: &str) -> u32 {
    let is_core = |line: &&str| {
        let number = line.strip_prefix("cpu").and_then(|rest| rest.bytes().next());
        number.is_some_and(|digit| digit.is_ascii_digit())
    };
    u32::try_from(stat.lines().filter(is_core).count()).unwrap_or(u32::MAX)
}

fn spent_us(stat: &str, fields: &[usize]) -> u64 {
    let first = stat
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "))
        .unwrap_or("");
    let ticks: Vec<u64> = first
        .split_whitespace()
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    fields.iter().filter_map(|at| ticks.get(*at)).sum::<u64>() * TICK_US
}

/// Of all threads of this process, those that have ended too.
fn own_cpu_us() -> u64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanos) = (used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs());
    seconds * 1_000_000 + nanos / 1_000
}

fn own_memory_bytes() -> u64 {
    let status = text("/proc/self/status");
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"));
    resident.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

/// A supply that is plugged in says so. Without one that could be, a battery that empties tells; a computer with
/// neither is always plugged in.
fn on_battery(supplies: &Path) -> bool {
    let (mut plugs, mut plugged, mut discharging) = (false, false, false);
    for supply in fs::read_dir(supplies).into_iter().flatten().flatten() {
        let read = |file: &str| text(supply.path().join(file)).trim().to_owned();
        match read("type").as_str() {
            "Mains" | "USB" => {
                plugs = true;
                plugged |= read("online") == "1";
            }
            // That of a mouse or a headset says `Device`.
            "Battery" if read("scope") != "Device" => discharging |= read("status") == "Discharging",
            _ => {}
        }
    }
    if plugs { !plugged } else { discharging }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_is_neither_idle_nor_stolen() {
        let stat = "cpu  100 20 30 4000 500 6 7 80 9 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(spent_us(stat, &BUSY), (100 + 20 + 30 + 6 + 7) * TICK_US);
        assert_eq!(spent_us(stat, &IDLE), (4_000 + 500) * TICK_US);
        assert_eq!(spent_us("", &BUSY), 0);
        assert_eq!((counted_cores(stat), counted_cores("")), (1, 0));
        assert!(spent_us(&text("/proc/stat"), &BUSY) > 0, "this machine");
    }

    #[test]
    fn a_sandbox_that_ends_leaves_no_load_of_others() {
        let mut own = Own::default();
        let sums = [100, 900, 300, 400].map(|told| own.now(told));
        assert_eq!(sums, [100, 900, 900, 1_000]);
    }

    #[test]
    fn power_by_what_the_supplies_say() {
        let supplies = |list: &[(&str, &[(&str, &str)])]| {
            let directory = tempfile::tempdir().expect("a directory");
            for (name, files) in list {
                let at = directory.path().join(name);
                fs::create_dir(&at).expect("a directory");
                for (file, content) in *files {
                    fs::write(at.join(file), format!("{content}\n")).expect("writes");
                }
            }
            on_battery(directory.path())
        };
        let battery = |status| [("type", "Battery"), ("status", status)];
        assert!(!supplies(&[]), "a desktop");
        assert!(!supplies(&[
            ("AC", &[("type", "Mains"), ("online", "1")]),
            ("BAT0", &battery("Charging"))
        ]));
        assert!(supplies(&[
            ("AC", &[("type", "Mains"), ("online", "0")]),
            ("BAT0", &battery("Discharging"))
        ]));
        assert!(supplies(&[("BAT0", &battery("Discharging"))]));
        assert!(!supplies(&[(
            "mouse",
            &[("type", "Battery"), ("status", "Discharging"), ("scope", "Device")]
        )]));
    }

    #[test]
    fn the_providers_own_work_is_not_others() {
        let before = own_cpu_us();
        let begun = Instant::now();
        while own_cpu_us() < before + 20_000 {
            assert!(begun.elapsed() < Duration::from_secs(60));
        }
        let reading = Machine::new(None).read(Beside {
            cpu_us: u64::MAX / 2,
            memory_bytes: 1,
        });
        assert_eq!(reading.others_us, 0, "all of it is beside this process");
        assert!(reading.held_bytes > 1);
    }
}
