//! Stands still and goes on: what a backend's calls know of their sandboxes being frozen.
//!
//! Time spent frozen is nobody's: it is not billed and it does not count against a call's timeout.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Whether sandboxes stand still, and for how long they have so far; clones are one.
#[derive(Clone, Debug)]
pub struct Freeze(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    since: Option<Instant>,
    /// Earlier times together.
    before: Duration,
}

/// The time given has passed, frozen time apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfTime;

impl Default for Freeze {
    fn default() -> Self {
        Self(watch::Sender::new(State::default()))
    }
}

impl Freeze {
    /// Whether this changed anything.
    pub fn set(&self, frozen: bool) -> bool {
        self.0.send_if_modified(|state| match (frozen, state.since) {
            (true, None) => {
                state.since = Some(Instant::now());
                true
            }
            (false, Some(since)) => {
                state.before += since.elapsed();
                state.since = None;
                true
            }
            (true, Some(_)) | (false, None) => false,
        })
    }

    pub fn is_frozen(&self) -> bool {
        self.0.borrow().since.is_some()
    }

    /// All time spent frozen until now.
    pub fn frozen(&self) -> Duration {
        let state = *self.0.borrow();
        state.before + state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// A watch that runs from now on, and stands while sandboxes do.
    pub fn stopwatch(&self) -> Stopwatch {
        Stopwatch {
            begun: Instant::now(),
            frozen_before: self.frozen(),
            freeze: self.clone(),
        }
    }

    /// Awaits `future` for as long as `time` of running time.
    pub async fn within<F: Future>(&self, time: Duration, future: F) -> Result<F::Output, OutOfTime> {
        let watch = self.stopwatch();
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = watch.reaches(time) => Err(OutOfTime),
        }
    }
}

/// Measures running time.
#[derive(Clone, Debug)]
pub struct Stopwatch {
    begun: Instant,
    frozen_before: Duration,
    freeze: Freeze,
}

impl Stopwatch {
    pub fn elapsed(&self) -> Duration {
        // In this order: what is frozen is read last, so that a freeze between the two makes the time shorter.
        let elapsed = self.begun.elapsed();
        elapsed.saturating_sub(self.freeze.frozen().saturating_sub(self.frozen_before))
    }

    /// Resolves when `time` of running time has passed. Must be awaited within a tokio runtime.
    pub async fn reaches(&self, time: Duration) {
        let mut states = self.freeze.0.subscribe();
        loop {
            let frozen = states.borrow_and_update().since.is_some();
            let left = time.saturating_sub(self.elapsed());
            if !frozen && left.is_zero() {
                return;
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(left), if !frozen => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_time_does_not_count() {
        let freeze = Freeze::default();
        let watch = freeze.stopwatch();
        assert!(freeze.set(true));
        assert!(!freeze.set(true), "it was");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(20) {
            std::thread::yield_now();
        }
        assert!(freeze.set(false));
        assert!(freeze.frozen() >= Duration::from_millis(20));
        assert!(watch.elapsed() <= watch.begun.elapsed() - Duration::from_millis(20));
    }

    #[tokio::test]
    async fn a_timeout_waits_for_the_thaw() {
        let freeze = Freeze::default();
        freeze.set(true);
        let waits = freeze.within(Duration::from_millis(1), std::future::pending::<()>());
        let mut waits = std::pin::pin!(waits);
        let early = tokio::time::timeout(Duration::from_millis(30), &mut waits).await;
        assert!(early.is_err(), "its time stands still");
        freeze.set(false);
        assert_eq!(waits.await, Err(OutOfTime));
    }
}
