//! The control group that Docker made for a container, found by the container's first process.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use piecework_sandbox_jail::walls;

use crate::cage::Cage;

const MOUNT: &str = "/sys/fs/cgroup";
/// A daemon on a busy machine takes seconds to tell that a container has ended, how, and whether for its memory.
const TOLD_WITHIN: Duration = Duration::from_secs(15);

/// Files of the meters, in either version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    version_two: bool,
    memory: PathBuf,
    cpu: PathBuf,
    freezer: PathBuf,
    share: PathBuf,
}

impl Group {
    /// Fails where the groups are not where every distribution has them.
    pub(super) fn of(pid: i32) -> Result<Self, String> {
        let told = fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .map_err(|error| format!("the container's control group cannot be read: {error}"))?;
        let group = Self::parse(&told).ok_or("the container is in no control group: it has ended")?;
        match group.memory.is_dir() && group.cpu.is_dir() && group.freezer.is_dir() {
            true => Ok(group),
            false => Err(format!(
                "the container's control group is not below {MOUNT}: {}",
                group.memory.display()
            )),
        }
    }

    fn parse(told: &str) -> Option<Self> {
        let place = |controller: &str| {
            told.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let names = fields.next()?;
                let path = fields.next()?.trim_start_matches('/').to_owned();
                // The root is where a process is that has ended.
                let matches = names.split(',').any(|name| name == controller) && !path.is_empty();
                matches.then_some(path)
            })
        };
        let below = |hierarchy: &str, path: String| Path::new(MOUNT).join(hierarchy).join(path);
        if let (Some(memory), Some(cpu), Some(freezer), Some(share)) =
            (place("memory"), place("cpuacct"), place("freezer"), place("cpu"))
        {
            return Some(Self {
                version_two: false,
                memory: below("memory", memory),
                cpu: below("cpuacct", cpu),
                freezer: below("freezer", freezer),
                share: below("cpu", share),
            });
        }
        let path = below("", place("")?);
        Some(Self {
            version_two: true,
            memory: path.clone(),
            cpu: path.clone(),
            freezer: path.clone(),
            share: path,
        })
    }

    fn memory(&self, version_one: &str, version_two: &str) -> Option<u64> {
        let name = if self.version_two { version_two } else { version_one };
        let text = fs::read_to_string(self.memory.join(name)).ok()?;
        text.trim().parse().ok()
    }

    /// How many of it the kernel killed for their memory.
    fn memory_kills(&self) -> u64 {
        let name = if self.version_two {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let told = fs::read_to_string(self.memory.join(name)).unwrap_or_default();
        let count = told.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    fn cpu_us(&self) -> Option<u64> {
        if self.version_two {
            let stat = fs::read_to_string(self.cpu.join("cpu.stat")).ok()?;
            let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
            return usage.trim().parse().ok();
        }
        let nanos = fs::read_to_string(self.cpu.join("cpuacct.usage")).ok()?;
        Some(nanos.trim().parse::<u64>().ok()? / 1_000)
    }

    fn processes(&self) -> usize {
        let listed = fs::read_to_string(self.memory.join("cgroup.procs")).unwrap_or_default();
        listed.lines().count()
    }

    pub(super) fn freeze(&self, frozen: bool) -> std::io::Result<()> {
        match (self.version_two, frozen) {
            (true, true) => fs::write(self.freezer.join("cgroup.freeze"), "1"),
            (true, false) => fs::write(self.freezer.join("cgroup.freeze"), "0"),
            (false, true) => fs::write(self.freezer.join("freezer.state"), "FROZEN"),
            (false, false) => fs::write(self.freezer.join("freezer.state"), "THAWED"),
        }
    }
}

/// A container of Docker's.
pub(super) struct DockerCage {
    group: Group,
    /// Of its first process.
    handle: OwnedFd,
    /// Read last: a group that is gone tells nothing.
    cpu_us: AtomicU64,
    peak_bytes: AtomicU64,
    /// As the daemon told at its end.
    out_of_memory: Arc<AtomicBool>,
    /// Of all containers together, once they have ended.
    total_us: Arc<AtomicU64>,
}

impl DockerCage {
    pub(super) fn new(group: Group, handle: OwnedFd, out_of_memory: Arc<AtomicBool>, total_us: Arc<AtomicU64>) -> Self {
        Self {
            group,
            handle,
            cpu_us: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
            out_of_memory,
            total_us,
        }
    }
}

impl Cage for DockerCage {
    fn cpu_us(&self) -> u64 {
        let now = self.group.cpu_us().unwrap_or(0);
        self.cpu_us.fetch_max(now, Ordering::AcqRel).max(now)
    }

    fn peak_bytes(&self) -> u64 {
        let now = self.group.memory("memory.max_usage_in_bytes", "memory.peak");
        let now = now.unwrap_or_else(|| self.memory_bytes());
        self.peak_bytes.fetch_max(now, Ordering::AcqRel).max(now)
    }

    fn forget_peak(&self) {
        self.peak_bytes.store(0, Ordering::Release);
        let name = if self.group.version_two {
            "memory.peak"
        } else {
            "memory.max_usage_in_bytes"
        };
        // Old kernels of version 2 keep it: then it is the peak since the container began.
        let _ = fs::write(self.group.memory.join(name), "0");
    }

    fn memory_bytes(&self) -> u64 {
        let now = self.group.memory("memory.usage_in_bytes", "memory.current");
        now.unwrap_or(0)
    }

    fn hit_memory_limit(&self) -> bool {
        self.out_of_memory.load(Ordering::Acquire) || self.group.memory_kills() > 0
    }

    fn processes(&self) -> usize {
        self.group.processes()
    }

    fn is_told_within(&self) -> Duration {
        TOLD_WITHIN
    }

    fn freeze(&self, frozen: bool) -> bool {
        match self.group.freeze(frozen) {
            Ok(()) => true,
            // It has ended, and its group with it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => {
                tracing::warn!(%error, frozen, "a container's control group cannot be frozen or thawed");
                false
            }
        }
    }

    fn let_others_first(&self, yields: bool) {
        // Not on kernels before 5.15.
        let _ = fs::write(self.group.share.join("cpu.idle"), if yields { "1" } else { "0" });
    }

    fn kill(&self) {
        self.cpu_us();
        self.peak_bytes();
        // The rest goes with the first process of its pid namespace.
        walls::signal(self.handle.as_fd(), libc::SIGKILL);
    }
}

impl Drop for DockerCage {
    fn drop(&mut self) {
        self.total_us.fetch_add(self.cpu_us(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_in_either_version() {
        let one = "9:name=systemd:/docker/ab\n4:memory:/docker/ab\n2:cpuacct:/docker/ab\n3:cpu:/docker/ab\n6:freezer:/docker/ab\n0::/\n";
        let group = Group::parse(one).expect("version 1");
        assert!(!group.version_two);
        assert_eq!(group.memory, Path::new("/sys/fs/cgroup/memory/docker/ab"));
        assert_eq!(group.cpu, Path::new("/sys/fs/cgroup/cpuacct/docker/ab"));
        let two = Group::parse("0::/system.slice/docker-ab.scope\n").expect("version 2");
        assert!(two.version_two);
        assert_eq!(two.freezer, Path::new("/sys/fs/cgroup/system.slice/docker-ab.scope"));
        assert_eq!(Group::parse(""), None);
        let ended = "4:memory:/\n2:cpuacct:/\n3:cpu:/\n6:freezer:/\n0::/\n";
        assert_eq!(Group::parse(ended), None, "the root is no container's");
    }
}
