//! Looks after jails between and during calls: one that is idle stands still, one that computes for long lets others go first.
//!
//! ```text
//!            call ends                GRACE without a call
//!   busy ----------------> idle -----------------------------> resting (stopped)
//!    ^  `--- BURST of CPU: runs when nothing else wants to      |  `- processes left behind: killed
//!    `------------------------- call begins --------------------'
//! ```
//! Resting is a signal to the jail's one process: SIGCONT takes 20 us of the next call, writing to a freezer 150 us. The freezer is
//! for what the machine's owner stops, whatever runs there.
//!
//! On a thread of its own: it must be on time when everything else is late.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock, Weak},
    thread::Thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::process::Process;

/// Between an answer and standing still. A call that comes earlier finds the jail running and waits for nothing; CPU that is used
/// meanwhile is billed to it.
pub(crate) const GRACE: Duration = Duration::from_millis(5);
/// CPU time of a call after which shorter ones go first.
pub(crate) const BURST_US: u64 = 20_000;
/// Between two looks at a busy jail.
pub(crate) const BUSY_LOOK: Duration = Duration::from_millis(10);
/// Looks that are due within so short a time are one.
const LOOKS_APART: Duration = Duration::from_millis(1);

/// When a jail is to be looked at again.
type Due = (Instant, Weak<Process>);

/// The jails that are busy or were a moment ago.
#[derive(Default)]
pub(crate) struct Rest {
    due: Mutex<VecDeque<Due>>,
    thread: OnceLock<Thread>,
}

impl Rest {
    /// Starts the thread; it ends when nobody holds the result any more.
    pub(crate) fn start() -> std::io::Result<Arc<Self>> {
        let rest = Arc::new(Self::default());
        let weak = Arc::downgrade(&rest);
        let thread = std::thread::Builder::new()
            .name("jail-rest".to_owned())
            .spawn(move || look_on(&weak))?;
        // Set once, here.
        let _ = rest.thread.set(thread.thread().clone());
        Ok(rest)
    }

    /// The jail is busy, or has just become idle, and is in no list.
    pub(crate) fn look_after(&self, process: &Arc<Process>, after: Duration) {
        let mut due = self.due.lock();
        due.push_back((Instant::now() + after, Arc::downgrade(process)));
        let sleeps = due.len() == 1;
        drop(due);
        if sleeps && let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

fn look_on(rest: &Weak<Rest>) {
    loop {
        let pause = {
            let Some(rest) = rest.upgrade() else { return };
            look(&rest, Instant::now())
        };
        match pause {
            Some(pause) => std::thread::park_timeout(pause),
            None => std::thread::park(),
        }
    }
}

/// Looks at all that are due; says for how long nothing else is.
fn look(rest: &Rest, now: Instant) -> Option<Duration> {
    // In a list of its own: what is due again is put back behind.
    let mut all = std::mem::take(&mut *rest.due.lock());
    let mut later = VecDeque::with_capacity(all.len());
    for (due, process) in all.drain(..) {
        let again = match process.upgrade() {
            Some(_) if due > now => Some(due),
            Some(process) => process.look(now).map(|after| now + after),
            None => None,
        };
        later.extend(again.map(|due| (due, process)));
    }
    let mut due = rest.due.lock();
    later.append(&mut due);
    *due = later;
    let soonest = due.iter().map(|(due, _)| *due).min()?;
    // Those that came meanwhile woke this thread, if at all, before it slept.
    Some(soonest.saturating_duration_since(Instant::now()).max(LOOKS_APART))
}

/// What is known of a jail's motion, under one lock with its freezer.
#[derive(Debug)]
pub(crate) struct Motion {
    /// A call runs, or the program is loaded.
    busy: bool,
    /// The owner of the machine comes first.
    held: bool,
    /// Nobody calls it.
    resting: bool,
    /// Whether there is a freezer for what the owner stops; else signals do it.
    has_freezer: bool,
    /// What was last told to the kernel.
    frozen: bool,
    stopped: bool,
    /// Lets others go first.
    yields: bool,
    /// Whether [`Rest`] has it in its list.
    listed: bool,
    idle_since: Instant,
    cpu_before_us: u64,
}

impl Default for Motion {
    fn default() -> Self {
        Self {
            busy: false,
            held: false,
            resting: false,
            has_freezer: false,
            frozen: false,
            stopped: false,
            yields: false,
            listed: false,
            idle_since: Instant::now(),
            cpu_before_us: 0,
        }
    }
}

/// What has to be done about a jail's motion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// By its control group.
    pub(crate) frozen: Option<bool>,
    /// By signals.
    pub(crate) stopped: Option<bool>,
    /// Whether other processes of the jail are meant, too.
    pub(crate) whole: bool,
    pub(crate) yields: Option<bool>,
    /// To be put into the list of [`Rest`].
    pub(crate) list: Option<Duration>,
}

/// What a look at an idle or busy jail says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Again(Duration),
    /// It may rest, unless it left processes behind.
    Rests,
    /// It has rested for a moment: the last look for processes.
    Rested,
    /// It has had its burst.
    Yields,
}

impl Motion {
    pub(crate) fn new(has_freezer: bool) -> Self {
        Self {
            has_freezer,
            ..Self::default()
        }
    }

    pub(crate) fn begins(&mut self, cpu_us: u64) -> Change {
        (self.busy, self.resting, self.cpu_before_us) = (true, false, cpu_us);
        let list = (!std::mem::replace(&mut self.listed, true)).then_some(GRACE);
        let yields = std::mem::take(&mut self.yields).then_some(false);
        Change {
            list,
            yields,
            ..self.stand()
        }
    }

    pub(crate) fn ends(&mut self, now: Instant) -> Change {
        (self.busy, self.idle_since) = (false, now);
        Change {
            list: (!std::mem::replace(&mut self.listed, true)).then_some(GRACE),
            ..Change::default()
        }
    }

    pub(crate) fn hold(&mut self, held: bool) -> Change {
        self.held = held;
        Change {
            whole: true,
            ..self.stand()
        }
    }

    /// It is looked at once more: a process may have been on its way when the first was stopped.
    pub(crate) fn rest(&mut self) -> Change {
        (self.resting, self.listed) = (true, true);
        Change {
            yields: std::mem::take(&mut self.yields).then_some(false),
            ..self.stand()
        }
    }

    pub(crate) fn let_others_first(&mut self) -> Change {
        self.yields = true;
        Change {
            yields: Some(true),
            ..Change::default()
        }
    }

    /// It was killed: what is frozen would not die.
    pub(crate) fn ended(&mut self) {
        (self.busy, self.frozen, self.stopped, self.held, self.resting) = (false, false, false, false, false);
    }

    fn stand(&mut self) -> Change {
        let frozen = self.held && self.has_freezer;
        let stopped = self.resting || (self.held && !self.has_freezer);
        let changes = |told: &mut bool, wanted: bool| (std::mem::replace(told, wanted) != wanted).then_some(wanted);
        Change {
            frozen: changes(&mut self.frozen, frozen),
            stopped: changes(&mut self.stopped, stopped),
            ..Change::default()
        }
    }

    /// `cpu_us` is asked where it matters.
    pub(crate) fn look(&mut self, now: Instant, cpu_us: impl FnOnce() -> u64) -> Look {
        if self.busy {
            if self.yields || cpu_us().saturating_sub(self.cpu_before_us) < BURST_US {
                return Look::Again(BUSY_LOOK);
            }
            return Look::Yields;
        }
        let idle = now.saturating_duration_since(self.idle_since);
        if idle < GRACE {
            return Look::Again(GRACE - idle);
        }
        self.listed = false;
        if self.resting { Look::Rested } else { Look::Rests }
    }

    pub(crate) fn unlist(&mut self) {
        self.listed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm(look: Look) -> bool {
        matches!(look, Look::Again(_))
    }

    #[test]
    fn an_idle_jail_stands_still_and_goes_on_with_its_next_call() {
        let (mut motion, begun) = (Motion::default(), Instant::now());
        assert_eq!(motion.begins(0).list, Some(GRACE));
        assert_eq!(motion.ends(begun).list, None, "it is listed");
        assert!(calm(motion.look(begun + GRACE / 2, || 0)));
        assert_eq!(motion.look(begun + GRACE, || 0), Look::Rests);
        assert_eq!(motion.rest().stopped, Some(true));
        assert_eq!(motion.look(begun + 2 * GRACE, || 0), Look::Rested);
        let change = motion.begins(0);
        assert_eq!((change.stopped, change.list), (Some(false), Some(GRACE)));
    }

    #[test]
    fn what_the_owner_stopped_goes_on_only_when_both_say_so() {
        let mut motion = Motion::new(false);
        motion.begins(0);
        assert_eq!(motion.hold(true).stopped, Some(true));
        motion.ends(Instant::now());
        assert_eq!(motion.rest().stopped, None, "it stands already");
        assert_eq!(motion.hold(false).stopped, None, "it rests");
        assert_eq!(motion.begins(0).stopped, Some(false));
        motion.hold(true);
        motion.ends(Instant::now());
        motion.rest();
        assert_eq!(motion.begins(0).stopped, None, "a call does not overrule the owner");
        assert_eq!(motion.hold(false).stopped, Some(false));
    }

    #[test]
    fn a_freezer_stands_apart_from_resting() {
        let mut motion = Motion::new(true);
        motion.begins(0);
        let change = motion.hold(true);
        assert_eq!((change.frozen, change.stopped), (Some(true), None));
        motion.ends(Instant::now());
        assert_eq!(motion.rest().stopped, Some(true));
        let change = motion.hold(false);
        assert_eq!((change.frozen, change.stopped), (Some(false), None));
        assert_eq!(motion.begins(0).stopped, Some(false));
    }

    #[test]
    fn a_long_call_lets_shorter_ones_go_first_until_it_ends() {
        let (mut motion, now) = (Motion::default(), Instant::now());
        motion.begins(1_000);
        assert!(calm(motion.look(now, || 1_000 + BURST_US - 1)));
        assert_eq!(motion.look(now, || 1_000 + BURST_US), Look::Yields);
        assert_eq!(motion.let_others_first().yields, Some(true));
        assert!(calm(motion.look(now, || u64::MAX)));
        motion.ends(now);
        assert_eq!(motion.look(now + GRACE, || 0), Look::Rests);
        assert_eq!(motion.rest().yields, Some(false));
    }
}
