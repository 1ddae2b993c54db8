//! One standing container: when it moves, when it stands still, and its end.
//!
//! ```text
//!            call ends                GRACE without a call
//!   busy ----------------> idle -----------------------------> resting (stopped)
//!    ^                      `- processes left behind: killed     |
//!    `------------------------- call begins --------------------'
//! ```
//! Resting is a signal to the one process of a container, which lets it be killed while it rests. The freezer is for what the machine's
//! owner stops, and for an engine whose containers are several processes.

use std::{
    collections::VecDeque,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::Thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use piecework_sandbox_jail::walls;

use crate::{
    cage::{Cage, END_WAIT},
    keep::Ending,
    yard::{Content, Mould},
};

/// Between an answer and standing still: a call that comes earlier waits for nothing.
const GRACE: Duration = Duration::from_millis(5);
/// Between two looks at a container that is being killed, and how many there are: its control group is not given back before.
const DYING_LOOK: Duration = Duration::from_millis(10);
const DYING_LOOKS_MAX: u32 = 1_000;

/// What other processes of a container mean once a call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kin {
    /// A function leaves none behind.
    IsLeft,
    /// A server of an image stays where its runner is: all of it stands still between calls.
    Stays,
}

impl Kin {
    pub(crate) fn of(mould: &Mould) -> Self {
        match mould.content {
            Content::Bundle(_) => Self::IsLeft,
            Content::Image(_) => Self::Stays,
        }
    }
}

pub(crate) struct Container {
    kin: Kin,
    cage: Option<Box<dyn Cage>>,
    /// The first process, where there is a handle of it.
    handle: Option<OwnedFd>,
    ending: Ending,
    killed: AtomicBool,
    /// Processes of a container that waits for a call.
    processes_at_rest: AtomicUsize,
    motion: Mutex<Motion>,
    attendant: Arc<Attendant>,
}

#[derive(Default)]
struct Motion {
    busy: bool,
    /// The owner of the machine comes first.
    held: bool,
    resting: bool,
    /// What was last told to the kernel.
    frozen: bool,
    stopped: bool,
    idle_since: Option<Instant>,
    listed: bool,
}

impl Container {
    pub(crate) fn new(
        cage: Box<dyn Cage>,
        handle: Option<OwnedFd>,
        ending: Ending,
        (kin, attendant): (Kin, Arc<Attendant>),
    ) -> Self {
        Self {
            kin,
            processes_at_rest: AtomicUsize::new(cage.processes()),
            cage: Some(cage),
            handle,
            ending,
            killed: AtomicBool::new(false),
            motion: Mutex::default(),
            attendant,
        }
    }

    pub(crate) fn cage(&self) -> &dyn Cage {
        self.cage.as_deref().expect("taken only when dropped")
    }

    /// What runs now is what runs in one that waits.
    pub(crate) fn stands(&self) {
        self.cage().settle();
        self.processes_at_rest.store(self.cage().processes(), Ordering::Relaxed);
    }

    pub(crate) fn kill(&self) {
        let mut motion = self.motion.lock();
        self.killed.store(true, Ordering::Release);
        (motion.frozen, motion.held, motion.resting, motion.busy) = (false, false, false, false);
        // What is frozen does not die.
        self.cage().freeze(false);
        if let Some(handle) = &self.handle {
            walls::signal(handle.as_fd(), libc::SIGKILL);
        }
        self.cage().kill();
    }

    pub(crate) fn usable(&self) -> bool {
        !self.killed.load(Ordering::Acquire) && self.ending.borrow().is_none() && self.ending.has_changed().is_ok()
    }

    /// Resolves when it has ended, or nobody will tell.
    pub(crate) async fn gone(&self) {
        let mut ending = self.ending.clone();
        // Either way there is nothing to wait for any more.
        let _ = ending.wait_for(Option::is_some).await;
    }

    /// Waits for its end; `None` if that takes longer than it ever should, or nobody tells.
    pub(crate) async fn ended(&self) -> Option<i32> {
        self.ended_within(END_WAIT).await
    }

    /// How it ended, once it has; `None` if nobody tells. A daemon tells it when it comes to it.
    pub(crate) async fn told(&self) -> Option<i32> {
        self.ended_within(self.cage().is_told_within()).await
    }

    async fn ended_within(&self, within: Duration) -> Option<i32> {
        let mut ending = self.ending.clone();
        match tokio::time::timeout(within, ending.wait_for(Option::is_some)).await {
            Ok(Ok(status)) => *status,
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// The machine's owner comes first, or no more.
    pub(crate) fn hold(&self, held: bool) {
        let mut motion = self.motion.lock();
        motion.held = held;
        self.follow(&mut motion);
    }

    /// A call or a load begins: it goes on where it rested.
    pub(crate) fn begins(&self) {
        let mut motion = self.motion.lock();
        (motion.busy, motion.resting, motion.idle_since) = (true, false, None);
        self.follow(&mut motion);
    }

    /// A call or a load has ended: a moment later it rests.
    pub(crate) fn ends(self: &Arc<Self>) {
        let lists = {
            let mut motion = self.motion.lock();
            (motion.busy, motion.idle_since) = (false, Some(Instant::now()));
            !std::mem::replace(&mut motion.listed, true)
        };
        if lists {
            self.attendant.look_after(self);
        }
    }

    /// Under the lock of what it follows from.
    fn follow(&self, motion: &mut Motion) {
        if !self.usable() {
            return;
        }
        let by_freezer = self.handle.is_none() || self.kin == Kin::Stays || self.cage().is_many_at_rest();
        let frozen = motion.held || (motion.resting && by_freezer);
        if motion.frozen != frozen && self.cage().freeze(frozen) {
            motion.frozen = frozen;
        }
        let stopped = motion.resting && !by_freezer;
        if let Some(handle) = &self.handle
            && std::mem::replace(&mut motion.stopped, stopped) != stopped
        {
            walls::signal(handle.as_fd(), if stopped { libc::SIGSTOP } else { libc::SIGCONT });
        }
    }

    /// Lets it rest where nobody has called it for a moment. After how long to look again.
    fn look(&self, now: Instant) -> Option<Duration> {
        let mut motion = self.motion.lock();
        let idle_since = motion.idle_since.filter(|_| self.usable());
        let Some(since) = idle_since else {
            motion.listed = false;
            return None;
        };
        let idle = now.saturating_duration_since(since);
        if idle < GRACE {
            return Some(GRACE - idle);
        }
        motion.listed = false;
        motion.resting = true;
        self.follow(&mut motion);
        // Nothing of it moves now.
        let more = self.cage().processes() > self.processes_at_rest.load(Ordering::Relaxed);
        let left = more && self.kin == Kin::IsLeft;
        drop(motion);
        if left {
            self.kill();
        }
        None
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
        if let Some(cage) = self.cage.take() {
            self.attendant.bury(cage);
        }
    }
}

/// Looks after containers on a thread of its own: it must be on time when everything else is late.
#[derive(Default)]
pub(crate) struct Attendant {
    idle: Mutex<VecDeque<Weak<Container>>>,
    dying: Mutex<Vec<(Box<dyn Cage>, u32)>>,
    thread: OnceLock<Thread>,
}

impl Attendant {
    /// Starts the thread; it ends when nobody holds the result any more.
    pub(crate) fn start() -> std::io::Result<Arc<Self>> {
        let attendant = Arc::new(Self::default());
        let weak = Arc::downgrade(&attendant);
        let thread = std::thread::Builder::new()
            .name("containers".to_owned())
            .spawn(move || attend(&weak))?;
        // Set once, here.
        let _ = attendant.thread.set(thread.thread().clone());
        Ok(attendant)
    }

    fn look_after(&self, container: &Arc<Container>) {
        self.idle.lock().push_back(Arc::downgrade(container));
        self.wake();
    }

    /// Holds what is left of a container until it is empty.
    pub(crate) fn bury(&self, cage: Box<dyn Cage>) {
        if cage.processes() == 0 {
            return;
        }
        self.dying.lock().push((cage, 0));
        self.wake();
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Says for how long nothing is due.
    fn look(&self, now: Instant) -> Option<Duration> {
        let idle = std::mem::take(&mut *self.idle.lock());
        let mut soonest: Option<Duration> = None;
        for weak in idle {
            let again = weak.upgrade().and_then(|container| container.look(now));
            if let Some(after) = again {
                soonest = Some(soonest.map_or(after, |least| least.min(after)));
                self.idle.lock().push_back(weak);
            }
        }
        self.look_at_the_dying();
        match self.dying.lock().is_empty() {
            true => soonest,
            false => Some(soonest.map_or(DYING_LOOK, |least| least.min(DYING_LOOK))),
        }
    }

    fn look_at_the_dying(&self) {
        let dying = std::mem::take(&mut *self.dying.lock());
        for (cage, looks) in dying {
            if cage.processes() == 0 || looks >= DYING_LOOKS_MAX {
                continue;
            }
            // Whoever was forked while the others were killed.
            cage.kill();
            self.dying.lock().push((cage, looks + 1));
        }
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        self.wake();
    }
}

fn attend(attendant: &Weak<Attendant>) {
    loop {
        let pause = {
            let Some(attendant) = attendant.upgrade() else { return };
            attendant.look(Instant::now())
        };
        match pause {
            Some(pause) => std::thread::park_timeout(pause.max(Duration::from_millis(1))),
            None => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use tokio::sync::watch;

    use super::*;

    #[derive(Default)]
    struct Told {
        processes: AtomicUsize,
        frozen: AtomicBool,
        kills: AtomicU32,
    }

    struct Double(Arc<Told>);

    impl Cage for Double {
        fn cpu_us(&self) -> u64 {
            0
        }
        fn peak_bytes(&self) -> u64 {
            0
        }
        fn forget_peak(&self) {}
        fn memory_bytes(&self) -> u64 {
            0
        }
        fn hit_memory_limit(&self) -> bool {
            false
        }
        fn processes(&self) -> usize {
            self.0.processes.load(Ordering::Relaxed)
        }
        fn freeze(&self, frozen: bool) -> bool {
            self.0.frozen.store(frozen, Ordering::Relaxed);
            true
        }
        fn let_others_first(&self, _: bool) {}
        fn kill(&self) {
            self.0.kills.fetch_add(1, Ordering::Relaxed);
            self.0.processes.store(0, Ordering::Relaxed);
        }
    }

    fn container() -> (Arc<Container>, Arc<Told>, watch::Sender<Option<i32>>) {
        container_with(Kin::IsLeft)
    }

    fn container_with(kin: Kin) -> (Arc<Container>, Arc<Told>, watch::Sender<Option<i32>>) {
        let told = Arc::new(Told::default());
        told.processes.store(1, Ordering::Relaxed);
        let (ended, ending) = watch::channel(None);
        let cage = Box::new(Double(told.clone()));
        // Without a thread: the test looks itself.
        let container = Container::new(cage, None, ending, (kin, Arc::new(Attendant::default())));
        (Arc::new(container), told, ended)
    }

    #[test]
    fn an_idle_container_stands_still_and_goes_on_with_its_next_call() {
        let (container, told, _ended) = container();
        container.begins();
        container.ends();
        let now = Instant::now();
        assert!(container.look(now).is_some(), "a moment is left");
        assert_eq!(container.look(now + GRACE), None);
        assert!(told.frozen.load(Ordering::Relaxed));
        container.begins();
        assert!(!told.frozen.load(Ordering::Relaxed));
    }

    #[test]
    fn what_the_owner_stopped_goes_on_only_when_both_say_so() {
        let (container, told, _ended) = container();
        container.begins();
        container.hold(true);
        assert!(told.frozen.load(Ordering::Relaxed));
        container.ends();
        assert_eq!(container.look(Instant::now() + GRACE), None);
        container.hold(false);
        assert!(told.frozen.load(Ordering::Relaxed), "it rests");
        container.begins();
        assert!(!told.frozen.load(Ordering::Relaxed));
    }

    #[test]
    fn a_container_that_left_processes_behind_serves_nobody_else() {
        let (container, told, _ended) = container();
        container.begins();
        told.processes.store(2, Ordering::Relaxed);
        container.ends();
        container.look(Instant::now() + GRACE);
        assert_eq!(told.kills.load(Ordering::Relaxed), 1);
        assert!(!container.usable());
    }

    #[test]
    fn a_server_of_an_image_stands_still_with_all_its_processes() {
        let (container, told, _ended) = container_with(Kin::Stays);
        container.begins();
        told.processes.store(5, Ordering::Relaxed);
        container.ends();
        container.look(Instant::now() + GRACE);
        assert_eq!(told.kills.load(Ordering::Relaxed), 0);
        assert!(container.usable() && told.frozen.load(Ordering::Relaxed));
    }

    #[test]
    fn one_that_ended_by_itself_is_not_usable() {
        let (container, _told, ended) = container();
        assert!(container.usable());
        ended.send_replace(Some(3));
        assert!(!container.usable());
    }
}
