//! Looks at workers in which something runs: one whose calls have all computed for long lets shorter calls go first, those of
//! other owners and of the jails.
//!
//! On a thread of its own, which sleeps while nothing runs.

use std::{
    sync::{Arc, OnceLock, Weak},
    thread::Thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::worker::Worker;

/// How long a call is a short one, and the CPU time that long ones may take before they let others go first.
pub(crate) const BURST: Duration = Duration::from_millis(20);
/// Between two looks at a worker in which something runs.
const LOOK: Duration = Duration::from_millis(10);

/// The workers in which something runs, or ran a moment ago.
#[derive(Default)]
pub(crate) struct Pace {
    busy: Mutex<Vec<Weak<Worker>>>,
    thread: OnceLock<Thread>,
}

impl Pace {
    /// The thread ends when nobody holds the result any more. Without one, all calls compute alike.
    pub(crate) fn start() -> Arc<Self> {
        let pace = Arc::new(Self::default());
        let weak = Arc::downgrade(&pace);
        let started = std::thread::Builder::new()
            .name("wasm-pace".to_owned())
            .spawn(move || look_on(&weak));
        match started {
            // Set once, here.
            Ok(thread) => drop(pace.thread.set(thread.thread().clone())),
            Err(error) => tracing::warn!(%error, "long wasm calls will not let shorter ones go first"),
        }
        pace
    }

    /// Something begins to run in the worker, which is in no list.
    pub(crate) fn look_after(&self, worker: &Arc<Worker>) {
        let mut busy = self.busy.lock();
        busy.push(Arc::downgrade(worker));
        let sleeps = busy.len() == 1;
        drop(busy);
        if sleeps && let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Whether anything still runs.
    fn look(&self, now: Instant) -> bool {
        let listed = std::mem::take(&mut *self.busy.lock());
        let again = listed
            .into_iter()
            .filter(|worker| worker.upgrade().is_some_and(|worker| worker.keep_pace(now)));
        let again: Vec<_> = again.collect();
        let mut busy = self.busy.lock();
        busy.extend(again);
        !busy.is_empty()
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

fn look_on(pace: &Weak<Pace>) {
    loop {
        let something_runs = {
            let Some(pace) = pace.upgrade() else { return };
            pace.look(Instant::now())
        };
        match something_runs {
            true => std::thread::sleep(LOOK),
            false => std::thread::park(),
        }
    }
}

/// What a worker's calls have taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stride {
    /// Whether [`Pace`] has it in its list.
    pub(crate) is_listed: bool,
    yields: bool,
    /// CPU time at the first look at which all that ran were long calls.
    since_us: Option<u64>,
}

impl Stride {
    /// A call begins: whether the worker must stop letting others go first.
    pub(crate) fn begins(&mut self) -> bool {
        self.since_us = None;
        std::mem::take(&mut self.yields)
    }

    /// With the beginnings of the calls that run. What has to change: whether the worker lets others go first.
    pub(crate) fn look(
        &mut self,
        running: impl Iterator<Item = Instant>,
        now: Instant,
        cpu_us: impl FnOnce() -> u64,
    ) -> Option<bool> {
        let youngest = running.max();
        let Some(youngest) = youngest else {
            (self.is_listed, self.since_us) = (false, None);
            return std::mem::take(&mut self.yields).then_some(false);
        };
        if self.yields {
            return None;
        }
        if now.saturating_duration_since(youngest) < BURST {
            self.since_us = None;
            return None;
        }
        let used_us = cpu_us();
        let since_us = *self.since_us.get_or_insert(used_us);
        self.yields = Duration::from_micros(used_us.saturating_sub(since_us)) >= BURST;
        self.yields.then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_calls_that_compute_let_others_go_first_until_a_short_one_comes() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut stride = Stride {
            is_listed: true,
            ..Stride::default()
        };
        let look = |stride: &mut Stride, running: &[Instant], ms, cpu_us| {
            stride.look(running.iter().copied(), at(ms), || cpu_us)
        };
        assert!(!stride.begins());
        assert_eq!(look(&mut stride, &[begun], 10, 10_000), None, "it is short yet");
        assert_eq!(look(&mut stride, &[begun], 30, 30_000), None);
        assert_eq!(look(&mut stride, &[begun], 40, 30_100), None, "it sleeps");
        assert_eq!(look(&mut stride, &[begun], 50, 49_999), None);
        assert_eq!(look(&mut stride, &[begun], 60, 50_000), Some(true));
        assert_eq!(look(&mut stride, &[begun], 70, 60_000), None, "it does already");
        assert!(stride.begins(), "for the short one's sake");
        assert_eq!(look(&mut stride, &[begun, at(75)], 90, 80_000), None);
        assert_eq!(look(&mut stride, &[begun, at(75)], 100, 90_000), None);
        assert_eq!(
            look(&mut stride, &[begun, at(75)], 120, 110_000),
            Some(true),
            "both are long"
        );
        assert_eq!(look(&mut stride, &[], 130, 110_000), Some(false), "nothing runs");
        assert_eq!(stride, Stride::default(), "and it is in no list");
    }

    #[test]
    fn many_short_calls_are_none_that_is_long() {
        let begun = Instant::now();
        let mut stride = Stride::default();
        for ms in (0..1_000).step_by(10) {
            let now = begun + Duration::from_millis(ms);
            let short = [now - Duration::from_millis(3)];
            assert_eq!(stride.look(short.into_iter(), now, || ms * 1_000), None);
        }
    }
}
