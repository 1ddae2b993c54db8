//! One control group: its limits, its meters, its freezer.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{fd::AsFd as _, unix::fs::FileExt},
    path::{Path, PathBuf},
};

use super::{CPU_PERIOD_US, GroupLimits, Version};
use crate::stop;

pub(super) struct Group {
    /// Of this one alone while it exists: its directory, and the identity of its jails on the host.
    pub(super) number: u32,
    version: Version,
    directories: Vec<PathBuf>,
    pub(super) entries: Vec<File>,
    cpu: File,
    peak: Option<File>,
    events: File,
}

impl Group {
    pub(super) fn open(version: Version, number: u32, directories: Vec<PathBuf>) -> io::Result<Self> {
        let write = |path: PathBuf| OpenOptions::new().write(true).open(path);
        let entries = directories
            .iter()
            .map(|directory| write(directory.join("cgroup.procs")))
            .collect::<io::Result<_>>()?;
        let at = &directories[0];
        let read_write = |name: &str| OpenOptions::new().read(true).write(true).open(at.join(name));
        let (cpu, peak, events) = match version {
            Version::One => (
                File::open(directories[2].join("cpuacct.usage"))?,
                Some(read_write("memory.max_usage_in_bytes")?),
                File::open(at.join("memory.oom_control"))?,
            ),
            Version::Two => (
                File::open(at.join("cpu.stat"))?,
                read_write("memory.peak")
                    .or_else(|_| File::open(at.join("memory.peak")))
                    .ok(),
                File::open(at.join("memory.events"))?,
            ),
        };
        Ok(Self {
            number,
            version,
            directories,
            entries,
            cpu,
            peak,
            events,
        })
    }

    pub(super) fn limit_memory(&self, memory_bytes: u64) -> io::Result<()> {
        let name = match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        fs::write(self.directories[0].join(name), memory_bytes.to_string())
    }

    pub(super) fn limit(&self, limits: GroupLimits) -> io::Result<()> {
        let quota = u64::from(limits.cores) * CPU_PERIOD_US;
        match self.version {
            Version::One => {
                self.limit_memory(limits.memory_bytes)?;
                self.limit_tasks(limits.tasks)?;
                fs::write(self.directories[3].join("cpu.cfs_quota_us"), quota.to_string())
            }
            Version::Two => {
                let at = &self.directories[0];
                self.limit_memory(limits.memory_bytes)?;
                // Absent where the kernel counts no swap.
                let _ = fs::write(at.join("memory.swap.max"), "0");
                self.limit_tasks(limits.tasks)?;
                fs::write(at.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}"))
            }
        }
    }

    pub(super) fn cpu_us(&self) -> u64 {
        match self.version {
            Version::One => number(&self.cpu) / 1_000,
            Version::Two => field(&self.cpu, "usage_usec"),
        }
    }

    pub(super) fn oom_kills(&self) -> u64 {
        field(&self.events, "oom_kill")
    }

    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak.as_ref().map_or_else(|| self.memory_bytes(), number)
    }

    /// On old kernels of version 2 the peak cannot be reset; then it is the peak since the group was made.
    pub(super) fn forget_peak(&self) {
        if let Some(peak) = &self.peak {
            let _ = peak.write_at(b"0", 0);
        }
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        read_number(&self.directories[0].join(match self.version {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        }))
    }

    pub(super) fn has_freezer(&self) -> bool {
        match self.version {
            Version::One => self.directories.len() > 4,
            Version::Two => self.directories[0].join("cgroup.freeze").exists(),
        }
    }

    /// Everything in it stands still, or goes on.
    pub(super) fn freeze(&self, frozen: bool) -> io::Result<()> {
        let directory = |at: usize| {
            let missing = || io::Error::new(io::ErrorKind::Unsupported, "no freezer is mounted");
            self.directories.get(at).ok_or_else(missing)
        };
        match self.version {
            Version::One => fs::write(
                directory(4)?.join("freezer.state"),
                if frozen { "FROZEN" } else { "THAWED" },
            ),
            Version::Two => fs::write(directory(0)?.join("cgroup.freeze"), if frozen { "1" } else { "0" }),
        }
    }

    /// Lets it run only when nothing else wants the CPU, or as everybody. Not on kernels before 5.15.
    pub(super) fn yield_to_others(&self, yields: bool) {
        let at = match self.version {
            Version::One => 3,
            Version::Two => 0,
        };
        let _ = fs::write(self.directories[at].join("cpu.idle"), if yields { "1" } else { "0" });
    }

    /// Processes in it; threads do not count.
    pub(super) fn processes(&self) -> usize {
        let listed = fs::read_to_string(self.directories[0].join("cgroup.procs")).unwrap_or_default();
        listed.lines().count()
    }

    /// Each is told by a handle that never means another process.
    pub(super) fn kill(&self) {
        let at = &self.directories[0];
        if self.version == Version::Two && fs::write(at.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        let listed = || fs::read_to_string(at.join("cgroup.procs")).unwrap_or_default();
        let pids: Vec<String> = listed().lines().map(str::to_owned).collect();
        let handles: Vec<_> = pids
            .into_iter()
            .filter_map(|pid| stop::handle(pid.parse().ok()?).map(|handle| (pid, handle)))
            .collect();
        // Those that are still in the group are the ones that the handles are of.
        let still = listed();
        for (pid, handle) in handles {
            if still.lines().any(|line| line == pid) {
                stop::signal(handle.as_fd(), libc::SIGKILL);
            }
        }
    }

    pub(super) fn limit_tasks(&self, tasks: u64) -> io::Result<()> {
        let at = match self.version {
            Version::One => 1,
            Version::Two => 0,
        };
        fs::write(self.directories[at].join("pids.max"), tasks.to_string())
    }

    /// Gives back the files that its processes left in the page cache: the next jail would be billed for them. The group must be
    /// empty.
    pub(super) fn give_back_cache(&self) {
        let at = &self.directories[0];
        match self.version {
            Version::One => drop(fs::write(at.join("memory.force_empty"), "0")),
            Version::Two => drop(fs::write(at.join("memory.reclaim"), self.memory_bytes().to_string())),
        }
    }

    /// After its home is gone: the place of all groups goes with the last one.
    pub(super) fn remove_as_the_last(self) {
        let places: Vec<PathBuf> = self
            .directories
            .iter()
            .filter_map(|own| Some(own.parent()?.to_owned()))
            .collect();
        self.remove();
        for place in places {
            // Others are in it.
            let _ = fs::remove_dir(place);
        }
    }

    /// Whether every part of it is gone.
    pub(super) fn remove(self) -> bool {
        let removed = self
            .directories
            .iter()
            .map(|directory| match fs::remove_dir(directory) {
                Ok(()) => true,
                // Two controllers may share a directory.
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            });
        // Each is tried, whatever came of the others.
        let removed: Vec<bool> = removed.collect();
        removed.into_iter().all(|one| one)
    }
}

pub(super) fn read_number(path: &Path) -> u64 {
    File::open(path).map_or(0, |file| number(&file))
}

fn text(file: &File, buffer: &mut [u8; 512]) -> usize {
    file.read_at(buffer, 0).unwrap_or(0)
}

fn number(file: &File) -> u64 {
    let mut buffer = [0; 512];
    let length = text(file, &mut buffer);
    std::str::from_utf8(&buffer[..length])
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

pub(super) fn field(file: &File, name: &str) -> u64 {
    let mut buffer = [0; 512];
    let length = text(file, &mut buffer);
    let content = std::str::from_utf8(&buffer[..length]).unwrap_or("");
    content
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
        .unwrap_or(0)
}
