//! Control groups: limits and meters outside the sandbox. Version 1, version 2, or both mounted side by side.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

/// The period of the CPU quota; the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// What all jails together weigh beside one process of the host.
const CPU_WEIGHT: u32 = 8;
/// Idle groups kept for the next jails; more are removed.
const FREE_SLOTS_MAX: usize = 64;

/// Limits of one group.
#[derive(Clone, Copy, Debug)]
pub struct GroupLimits {
    pub memory_bytes: u64,
    pub tasks: u64,
    pub cores: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The place for this agent's groups, with a pool of idle ones.
pub struct Cgroups {
    version: Version,
    /// Directories of ours: memory, pids, cpuacct, cpu and, where it is mounted, freezer in version 1; one in version 2.
    bases: Vec<PathBuf>,
    free: Mutex<Vec<Group>>,
    next: AtomicU64,
}

impl Cgroups {
    /// Finds a hierarchy where groups can be made, or says why there is none.
    pub fn find() -> Result<Arc<Self>, String> {
        let parents = Parents::read().map_err(|error| format!("the control groups cannot be read: {error}"))?;
        let (version, parents) = parents.choose()?;
        let name = format!("piecework-jail-{}-{}", std::process::id(), next_instance());
        let bases: Vec<PathBuf> = parents.iter().map(|parent| parent.join(&name)).collect();
        for (base, parent) in bases.iter().zip(&parents) {
            sweep(parent);
            make_directory(base).map_err(|error| format!("no control group can be made: {error}"))?;
        }
        let made = Arc::new(Self {
            version,
            bases,
            free: Mutex::default(),
            next: AtomicU64::new(0),
        });
        if version == Version::Two {
            fs::write(made.bases[0].join("cgroup.subtree_control"), "+memory +pids +cpu")
                .map_err(|error| format!("the controllers cannot be passed on: {error}"))?;
        }
        made.weigh();
        // A group that works is the proof.
        let limits = GroupLimits {
            memory_bytes: 64 << 20,
            tasks: 16,
            cores: 1,
        };
        drop(
            made.acquire(limits)
                .map_err(|error| format!("a control group takes no limits: {error}"))?,
        );
        Ok(made)
    }

    /// All jails together would weigh as much as one process of the host. Best effort: it is no wall.
    fn weigh(&self) {
        let result = match self.version {
            Version::One => fs::write(self.bases[3].join("cpu.shares"), (1024 * CPU_WEIGHT).to_string()),
            Version::Two => fs::write(self.bases[0].join("cpu.weight"), (100 * CPU_WEIGHT).to_string()),
        };
        if let Err(error) = result {
            tracing::debug!(%error, "the jails keep the default cpu weight");
        }
    }

    /// Groups that a process enters: as many as there are directories.
    pub(crate) fn entries(&self) -> usize {
        self.bases.len()
    }

    /// Leads into the group of the launcher and its zygotes, which has no limits: only metered.
    pub fn launcher_entry(&self) -> io::Result<File> {
        let base = match self.version {
            Version::One => &self.bases[2],
            Version::Two => &self.bases[0],
        };
        let directory = base.join("launcher");
        make_directory(&directory)?;
        OpenOptions::new().write(true).open(directory.join("cgroup.procs"))
    }

    /// CPU time of all groups that ever were.
    pub fn cpu_us(&self) -> u64 {
        match self.version {
            Version::One => read_number(&self.bases[2].join("cpuacct.usage")) / 1_000,
            Version::Two => fs::File::open(self.bases[0].join("cpu.stat")).map_or(0, |file| field(&file, "usage_usec")),
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        read_number(&self.bases[0].join(match self.version {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        }))
    }

    pub fn describe(&self) -> &'static str {
        match self.version {
            Version::One => "cgroups v1",
            Version::Two => "cgroups v2",
        }
    }

    /// A group of its own, empty, with these limits.
    pub fn acquire(self: &Arc<Self>, limits: GroupLimits) -> io::Result<Slot> {
        let recycled = self.free.lock().pop();
        let group = match recycled.map(|group| group.limit(limits).map(|()| group)) {
            Some(Ok(group)) => group,
            Some(Err(_)) | None => self.make(limits)?,
        };
        group.forget_peak();
        let slot = Slot {
            cpu_base_us: group.cpu_us(),
            oom_base: group.oom_kills(),
            group: Some(group),
            home: Arc::downgrade(self),
        };
        Ok(slot)
    }

    fn make(&self, limits: GroupLimits) -> io::Result<Group> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let directories: Vec<PathBuf> = self.bases.iter().map(|base| base.join(&name)).collect();
        for directory in &directories {
            make_directory(directory)?;
        }
        let group = Group::open(self.version, directories)?;
        group.limit(limits)?;
        Ok(group)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for group in self.free.get_mut().drain(..) {
            group.remove();
        }
        for base in &self.bases {
            // What is still dying keeps it; the next agent sweeps.
            remove_tree(base);
        }
    }
}

/// Two controllers of version 1 may share one hierarchy, and so one directory.
fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn next_instance() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Removes groups of agents that are gone.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix("piecework-jail-")?.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove_tree(&entry.path());
        }
    }
}

fn remove_tree(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            // What was frozen when its agent was killed can only die now.
            let _ = fs::write(entry.path().join("freezer.state"), "THAWED");
            let _ = fs::remove_dir(entry.path());
        }
    }
    let _ = fs::remove_dir(base);
}

/// Where this process stands in each hierarchy.
struct Parents {
    mounts: String,
    own: String,
}

impl Parents {
    fn read() -> io::Result<Self> {
        Ok(Self {
            mounts: fs::read_to_string("/proc/self/mountinfo")?,
            own: fs::read_to_string("/proc/self/cgroup")?,
        })
    }

    fn choose(&self) -> Result<(Version, Vec<PathBuf>), String> {
        if let Some(parent) = self.version_two() {
            return Ok((Version::Two, vec![parent]));
        }
        let found: Option<Vec<PathBuf>> = ["memory", "pids", "cpuacct", "cpu"]
            .into_iter()
            .map(|controller| self.version_one(controller))
            .collect();
        found
            .map(|mut parents| {
                parents.extend(self.version_one("freezer"));
                (Version::One, parents)
            })
            .ok_or_else(|| "no control group hierarchy with memory, pids and cpu is mounted".to_owned())
    }

    /// The nearest group, our own or above it, that can pass the controllers on.
    fn version_two(&self) -> Option<PathBuf> {
        let (mount, own) = self.place("cgroup2", None)?;
        let mut at = own.as_path();
        loop {
            let controllers = fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
            let enough = ["memory", "pids", "cpu"]
                .iter()
                .all(|name| controllers.split(' ').any(|c| c.trim() == *name));
            if enough && fs::write(at.join("cgroup.subtree_control"), "+memory +pids +cpu").is_ok() {
                return Some(at.to_owned());
            }
            if at == mount {
                return None;
            }
            at = at.parent()?;
        }
    }

    fn version_one(&self, controller: &str) -> Option<PathBuf> {
        self.place("cgroup", Some(controller)).map(|(_, own)| own)
    }

    /// The mount point of a hierarchy and our group below it.
    fn place(&self, kind: &str, controller: Option<&str>) -> Option<(PathBuf, PathBuf)> {
        let (root, mount) = self.mounts.lines().find_map(|line| {
            let (fields, filesystem) = line.split_once(" - ")?;
            let mut filesystem = filesystem.split(' ');
            let matches = filesystem.next() == Some(kind)
                && controller.is_none_or(|name| filesystem.nth(1).is_some_and(|o| o.split(',').any(|o| o == name)));
            let mut fields = fields.split(' ').skip(3);
            matches.then(|| Some((fields.next()?.to_owned(), PathBuf::from(fields.next()?))))?
        })?;
        let own = self.own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let names = fields.next()?;
            let matches = match controller {
                Some(controller) => names.split(',').any(|name| name == controller),
                None => names.is_empty(),
            };
            matches.then(|| fields.next())?
        })?;
        let below = own.strip_prefix(&root).unwrap_or(own).trim_start_matches('/');
        let own = mount.join(below);
        Some((mount.clone(), if own.is_dir() { own } else { mount }))
    }
}

struct Group {
    version: Version,
    directories: Vec<PathBuf>,
    entries: Vec<File>,
    cpu: File,
    peak: Option<File>,
    events: File,
}

impl Group {
    fn open(version: Version, directories: Vec<PathBuf>) -> io::Result<Self> {
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
            version,
            directories,
            entries,
            cpu,
            peak,
            events,
        })
    }

    fn limit_memory(&self, memory_bytes: u64) -> io::Result<()> {
        let name = match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        fs::write(self.directories[0].join(name), memory_bytes.to_string())
    }

    fn limit(&self, limits: GroupLimits) -> io::Result<()> {
        let quota = u64::from(limits.cores) * CPU_PERIOD_US;
        match self.version {
            Version::One => {
                self.limit_memory(limits.memory_bytes)?;
                fs::write(self.directories[1].join("pids.max"), limits.tasks.to_string())?;
                fs::write(self.directories[3].join("cpu.cfs_quota_us"), quota.to_string())
            }
            Version::Two => {
                let at = &self.directories[0];
                self.limit_memory(limits.memory_bytes)?;
                // Absent where the kernel counts no swap.
                let _ = fs::write(at.join("memory.swap.max"), "0");
                fs::write(at.join("pids.max"), limits.tasks.to_string())?;
                fs::write(at.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}"))
            }
        }
    }

    fn cpu_us(&self) -> u64 {
        match self.version {
            Version::One => number(&self.cpu) / 1_000,
            Version::Two => field(&self.cpu, "usage_usec"),
        }
    }

    fn oom_kills(&self) -> u64 {
        field(&self.events, "oom_kill")
    }

    fn peak_bytes(&self) -> u64 {
        self.peak.as_ref().map_or_else(|| self.memory_bytes(), number)
    }

    /// On old kernels of version 2 the peak cannot be reset; then it is the peak since the group was made.
    fn forget_peak(&self) {
        if let Some(peak) = &self.peak {
            let _ = peak.write_at(b"0", 0);
        }
    }

    fn memory_bytes(&self) -> u64 {
        read_number(&self.directories[0].join(match self.version {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        }))
    }

    /// Everything in it stands still, or goes on.
    fn freeze(&self, frozen: bool) -> io::Result<()> {
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

    fn remove(self) {
        for directory in &self.directories {
            let _ = fs::remove_dir(directory);
        }
    }
}

fn read_number(path: &Path) -> u64 {
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

fn field(file: &File, name: &str) -> u64 {
    let mut buffer = [0; 512];
    let length = text(file, &mut buffer);
    let content = std::str::from_utf8(&buffer[..length]).unwrap_or("");
    content
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
        .unwrap_or(0)
}

/// A group in use by one jail; it goes back to the pool when the jail and its owner are gone.
pub struct Slot {
    group: Option<Group>,
    home: Weak<Cgroups>,
    cpu_base_us: u64,
    oom_base: u64,
}

impl Slot {
    fn group(&self) -> &Group {
        self.group.as_ref().expect("taken only when dropped")
    }

    /// Files through which a process enters the group by writing `0`.
    pub fn entries(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.group().entries.iter().map(AsFd::as_fd)
    }

    /// CPU time since the jail began.
    pub(crate) fn cpu_us(&self) -> u64 {
        self.group().cpu_us().saturating_sub(self.cpu_base_us)
    }

    /// The most memory held since [`Slot::forget_peak`].
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.group().peak_bytes()
    }

    pub(crate) fn forget_peak(&self) {
        self.group().forget_peak();
    }

    pub fn memory_bytes(&self) -> u64 {
        self.group().memory_bytes()
    }

    pub(crate) fn freeze(&self, frozen: bool) -> io::Result<()> {
        self.group().freeze(frozen)
    }

    /// Another limit of memory from now on; the others stay. Fails where what is held cannot be brought below it.
    pub fn limit_memory(&self, memory_bytes: u64) -> io::Result<()> {
        self.group().limit_memory(memory_bytes)
    }

    /// Whether the kernel killed something of this jail for its memory.
    pub fn hit_memory_limit(&self) -> bool {
        self.group().oom_kills() > self.oom_base
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(group) = self.group.take() else {
            return;
        };
        // What is frozen neither dies nor lets another in.
        let _ = group.freeze(false);
        match self.home.upgrade() {
            Some(home) if home.free.lock().len() < FREE_SLOTS_MAX => home.free.lock().push(group),
            Some(_) | None => group.remove(),
        }
    }
}
