//! One jailed process: its handle, its meters, its end.
#![allow(unsafe_code)]

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    cgroup::Slot,
    rest::{BUSY_LOOK, Change, GRACE, Look, Motion, Rest},
    spawner::Ending,
    stop,
};

/// How long the kernel may take to end a killed jail before its meters are read anyway.
const END_WAIT: Duration = Duration::from_millis(900);

/// What other processes of a jail are, once a call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kin {
    /// Left behind: the jail ends with them.
    IsLeft,
    /// What answers the next call. They rest with the first process, and count as it does.
    Stays,
}

/// The first process of a jail's pid namespace: when it ends, everything in the jail has ended.
pub(crate) struct Process {
    pidfd: OwnedFd,
    host_pid: i32,
    ending: Ending,
    kin: Kin,
    slot: Option<Arc<Slot>>,
    killed: AtomicBool,
    motion: Mutex<Motion>,
    rest: Arc<Rest>,
    statm: Option<File>,
}

impl Process {
    pub(crate) fn new(
        (pidfd, kin): (OwnedFd, Kin),
        ending: Ending,
        slot: Option<Arc<Slot>>,
        rest: Arc<Rest>,
    ) -> io::Result<Self> {
        let host_pid = host_pid(&pidfd)?;
        Ok(Self {
            statm: File::open(format!("/proc/{host_pid}/statm")).ok(),
            pidfd,
            host_pid,
            ending,
            kin,
            motion: Mutex::new(Motion::new(slot.as_ref().is_some_and(|slot| slot.has_freezer()))),
            slot,
            killed: AtomicBool::new(false),
            rest,
        })
    }

    pub(crate) fn handle(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Kills everything in the jail; does not wait.
    pub(crate) fn kill(&self) {
        let mut motion = self.motion.lock();
        self.killed.store(true, Ordering::Release);
        motion.ended();
        stop::signal(self.pidfd.as_fd(), libc::SIGKILL);
        if let Some(slot) = &self.slot {
            // Version 1 lets nothing frozen die. Where it was not frozen this does nothing.
            let _ = slot.freeze(false);
        }
    }

    /// Stops everything in the jail where it is while the machine's owner comes first, or lets it go on unless it rests.
    pub(crate) fn freeze(&self, frozen: bool) {
        let mut motion = self.motion.lock();
        let change = motion.hold(frozen);
        self.follow(change);
    }

    /// A call or a load begins, with this CPU time used before: it goes on where it rested.
    pub(crate) fn begins(self: &Arc<Self>, cpu_us: u64) {
        let change = {
            let mut motion = self.motion.lock();
            let change = motion.begins(cpu_us);
            self.follow(change);
            change
        };
        self.list(change);
    }

    /// A call or a load has ended: a moment later it rests.
    pub(crate) fn ends(self: &Arc<Self>) {
        let change = self.motion.lock().ends(Instant::now());
        self.list(change);
    }

    fn list(self: &Arc<Self>, change: Change) {
        if let Some(after) = change.list {
            self.rest.look_after(self, after);
        }
    }

    /// Lets it rest where nobody has called it for a moment, and others go first where its call takes long. After how long to
    /// look again.
    pub(crate) fn look(&self, now: Instant) -> Option<Duration> {
        let mut motion = self.motion.lock();
        if !self.usable() {
            motion.unlist();
            return None;
        }
        match motion.look(now, || self.cpu_us()) {
            Look::Again(after) => Some(after),
            Look::Yields => {
                let change = motion.let_others_first();
                self.follow(change);
                Some(BUSY_LOOK)
            }
            Look::Rests | Look::Rested if self.left_processes() => {
                drop(motion);
                self.kill();
                None
            }
            Look::Rests => {
                let change = motion.rest();
                self.follow(change);
                Some(GRACE)
            }
            Look::Rested => None,
        }
    }

    /// Whether anything but its first process is there.
    fn left_processes(&self) -> bool {
        match (self.kin, &self.slot) {
            (Kin::Stays, _) => false,
            (Kin::IsLeft, Some(slot)) => slot.processes() > 1,
            (Kin::IsLeft, None) => stop::has_children(self.host_pid),
        }
    }

    /// Under the lock of what it follows from.
    fn follow(&self, change: Change) {
        if !self.usable() {
            return;
        }
        if let (Some(frozen), Some(slot)) = (change.frozen, &self.slot)
            && let Err(error) = slot.freeze(frozen)
        {
            tracing::warn!(%error, frozen, "a jail's control group cannot be frozen or thawed");
        }
        if let (Some(yields), Some(slot)) = (change.yields, &self.slot) {
            slot.let_others_first(yields);
        }
        if let Some(stopped) = change.stopped {
            let signal = if stopped { libc::SIGSTOP } else { libc::SIGCONT };
            // One that rests has no other process, or they rest with it.
            match change.whole || self.kin == Kin::Stays {
                true => stop::signal_tree(self.host_pid, self.pidfd.as_fd(), signal),
                false => stop::signal(self.pidfd.as_fd(), signal),
            }
        }
    }

    pub(crate) fn usable(&self) -> bool {
        !self.killed.load(Ordering::Acquire) && self.ending.borrow().is_none()
    }

    /// Waits for the end of the jail; `None` if the kernel takes longer than it ever should.
    pub(crate) async fn ended(&self) -> Option<i32> {
        let mut ending = self.ending.clone();
        match tokio::time::timeout(END_WAIT, ending.wait_for(Option::is_some)).await {
            Ok(Ok(status)) => *status,
            Ok(Err(_)) | Err(_) => None,
        }
    }

    pub(crate) fn hit_memory_limit(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.hit_memory_limit())
    }

    /// Whether the kernel itself holds the memory limit; without cgroups the agent has to look.
    pub(crate) fn memory_is_limited(&self) -> bool {
        self.slot.is_some()
    }

    /// CPU time so far. Without cgroups, children count when they have been waited for.
    pub(crate) fn cpu_us(&self) -> u64 {
        match &self.slot {
            Some(slot) => slot.cpu_us(),
            None if self.kin == Kin::Stays => stop::tree_cpu_us(self.host_pid),
            None => own_cpu_us(self.host_pid).unwrap_or(0) + children_cpu_us(self.host_pid),
        }
    }

    pub(crate) fn forget_peak(&self) {
        if let Some(slot) = &self.slot {
            slot.forget_peak();
        }
    }

    /// The most memory held since [`Process::forget_peak`]; without cgroups what is held now.
    pub(crate) fn peak_bytes(&self) -> u64 {
        match &self.slot {
            Some(slot) => slot.peak_bytes(),
            None => self.resident_bytes(),
        }
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        match &self.slot {
            Some(slot) => slot.memory_bytes(),
            None => self.resident_bytes(),
        }
    }

    /// Resident memory of the first process, and of those that stay with it.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let kin_pages = match self.kin {
            Kin::Stays => stop::resident_pages_below(self.host_pid),
            Kin::IsLeft => 0,
        };
        let mut buffer = [0; 128];
        let length = self
            .statm
            .as_ref()
            .and_then(|file| file.read_at(&mut buffer, 0).ok())
            .unwrap_or(0);
        let pages = std::str::from_utf8(&buffer[..length])
            .ok()
            .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok())
            .unwrap_or(0);
        (pages + kin_pages) * page_bytes()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn page_bytes() -> u64 {
    // SAFETY: sysconf takes a number.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

fn host_pid(pidfd: &OwnedFd) -> io::Result<i32> {
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    told.lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::other("the kernel tells no pid of a pidfd"))
}

fn own_cpu_us(pid: i32) -> Option<u64> {
    let mut clock = 0;
    // SAFETY: zero is a valid timespec.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: both out-parameters outlive the calls.
    let read = unsafe { libc::clock_getcpuclockid(pid, &mut clock) == 0 && libc::clock_gettime(clock, &mut time) == 0 };
    let (seconds, nanos) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_nsec).ok()?);
    read.then_some(seconds * 1_000_000 + nanos / 1_000)
}

/// Fields 16 and 17 of `/proc/PID/stat`: time of the children that were waited for, in ticks of 10 ms.
fn children_cpu_us(pid: i32) -> u64 {
    const TICK_US: u64 = 10_000;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name
        .split_whitespace()
        .skip(13)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum::<u64>()
        * TICK_US
}
