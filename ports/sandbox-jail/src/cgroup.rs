//! Control groups: limits and meters outside the sandbox. Version 1, version 2, or both mounted side by side.

mod group;
mod place;

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::{Arc, Weak, mpsc},
    time::Instant,
};

use group::{Group, field, read_number};
use parking_lot::Mutex;
use place::{DYING_WAIT, Parents, make_directory, next_instance, remove_tree, sweep};

use crate::standing::Stands;

/// The period of the CPU quota; the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// Idle groups kept for the next jails; more are removed.
const FREE_SLOTS_MAX: usize = 64;
/// Groups that are made before they are needed: each takes some 100 us.
const AHEAD: usize = 4;
/// A group that keeps more than this of what its jail did is not used again.
const LEFT_BYTES_MAX: u64 = 256 << 10;
/// Identities on the host, one for each group at a time: what the kernel counts by user (inotify watches, timers, descriptors on
/// their way, keys) is then no other jail's. Above what distributions give to users and containers.
const HOST_IDS_FIRST: u32 = 1_900_000_000;
/// For each agent of the machine, told apart by its process id.
const HOST_IDS_EACH: u32 = 2_048;
const AGENTS_MAX: u32 = 1 << 16;

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
    numbers: Mutex<Numbers>,
    /// Takes groups whose jails have ended.
    used: Mutex<mpsc::Sender<Group>>,
    _stands: Stands,
}

/// Numbers that no group has.
#[derive(Default)]
struct Numbers {
    next: u32,
    free: BTreeSet<u32>,
}

impl Numbers {
    fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }
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
        let (used, to_clean) = mpsc::channel();
        let made = Arc::new(Self {
            version,
            free: Mutex::default(),
            numbers: Mutex::default(),
            bases,
            used: Mutex::new(used),
            _stands: Stands::new(),
        });
        if version == Version::Two {
            fs::write(made.bases[0].join("cgroup.subtree_control"), "+memory +pids +cpu")
                .map_err(|error| format!("the controllers cannot be passed on: {error}"))?;
        }
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
        let home = Arc::downgrade(&made);
        std::thread::Builder::new()
            .name("jail-groups".to_owned())
            .spawn(move || clean(&home, &to_clean))
            .map_err(|error| format!("no thread can be started: {error}"))?;
        Ok(made)
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
            memory_base: group.memory_bytes(),
            group: Some(group),
            home: Arc::downgrade(self),
        };
        Ok(slot)
    }

    fn make(&self, limits: GroupLimits) -> io::Result<Group> {
        let group = self.make_bare()?;
        group.limit(limits)?;
        Ok(group)
    }

    fn make_bare(&self) -> io::Result<Group> {
        let number = self.numbers.lock().take();
        let directories: Vec<PathBuf> = self.bases.iter().map(|base| base.join(number.to_string())).collect();
        for directory in &directories {
            make_directory(directory)?;
        }
        Group::open(self.version, number, directories)
    }

    /// A group whose jail has ended, for the next one or to be removed.
    fn take_back(&self, group: Group) {
        group.yield_to_others(false);
        group.give_back_cache();
        let number = group.number;
        if group.memory_bytes() <= LEFT_BYTES_MAX && self.free.lock().len() < FREE_SLOTS_MAX {
            self.free.lock().push(group);
        } else if group.remove() {
            self.numbers.lock().free.insert(number);
        }
    }

    fn make_ahead(&self) {
        while self.free.lock().len() < AHEAD {
            match self.make_bare() {
                Ok(group) => self.free.lock().push(group),
                // The next jail makes one itself, and tells why it cannot.
                Err(error) => return tracing::debug!(%error, "no control group could be made ahead"),
            }
        }
    }
}

/// Cleans groups where nobody waits for it, until their home is gone.
fn clean(home: &Weak<Cgroups>, used: &mpsc::Receiver<Group>) {
    while let Ok(group) = used.recv() {
        match home.upgrade() {
            Some(home) => {
                home.take_back(group);
                home.make_ahead();
            }
            None => group.remove_as_the_last(),
        }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for group in self.free.get_mut().drain(..) {
            group.remove();
        }
        let until = Instant::now() + DYING_WAIT;
        for base in &self.bases {
            // What is dying for longer keeps it; whoever has it in use removes it then, or the next agent.
            remove_tree(base, until);
        }
    }
}

/// A group in use by one jail; it goes back to the pool when the jail and its owner are gone.
pub struct Slot {
    group: Option<Group>,
    home: Weak<Cgroups>,
    cpu_base_us: u64,
    oom_base: u64,
    /// What the group held before the jail stood: another's, if anybody's.
    memory_base: u64,
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
    pub fn cpu_us(&self) -> u64 {
        self.group().cpu_us().saturating_sub(self.cpu_base_us)
    }

    /// The most memory held since [`Slot::forget_peak`].
    pub fn peak_bytes(&self) -> u64 {
        self.group().peak_bytes().saturating_sub(self.memory_base)
    }

    /// An identity on the host that no other jail has.
    pub fn host_id(&self) -> u32 {
        let agent = std::process::id() % AGENTS_MAX;
        HOST_IDS_FIRST + agent * HOST_IDS_EACH + self.group().number % HOST_IDS_EACH
    }

    /// Whether everything in it can be made to stand still at once.
    pub fn has_freezer(&self) -> bool {
        self.group().has_freezer()
    }

    pub fn processes(&self) -> usize {
        self.group().processes()
    }

    /// Kills every process that is in it now. Whoever forks on is killed by the next one of these.
    pub fn kill(&self) {
        // What is frozen does not die. Where nothing was this does nothing.
        let _ = self.group().freeze(false);
        self.group().kill();
    }

    /// Another limit of processes and threads from now on.
    pub fn limit_tasks(&self, tasks: u64) -> io::Result<()> {
        self.group().limit_tasks(tasks)
    }

    /// All that runs in it has computed for long: it runs when nothing else among the jails wants the CPU, or as everybody.
    pub fn let_others_first(&self, yields: bool) {
        self.group().yield_to_others(yields);
    }

    pub fn forget_peak(&self) {
        self.group().forget_peak();
    }

    pub fn memory_bytes(&self) -> u64 {
        self.group().memory_bytes().saturating_sub(self.memory_base)
    }

    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
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
        let unsent = match self.home.upgrade() {
            Some(home) => home.used.lock().send(group).err().map(|unsent| unsent.0),
            None => Some(group),
        };
        if let Some(group) = unsent {
            group.remove_as_the_last();
        }
    }
}
