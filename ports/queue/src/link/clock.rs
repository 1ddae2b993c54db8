//! Time as a link sees it: the machine's, or one that a test hands in and that moves when nothing else does.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Clones tell the same time.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<Paused>>);

struct Paused {
    began: Instant,
    state: Mutex<PausedState>,
}

#[derive(Default)]
struct PausedState {
    passed: Duration,
    sleepers: BTreeMap<(Duration, u64), Waker>,
    next: u64,
}

impl Clock {
    /// A clock that stands still until the second value is called, which moves it to the moment at which the next sleeper
    /// wakes. A test calls it from `on_thread_park` of a single-threaded runtime: when every task waits.
    pub fn paused() -> (Self, impl Fn() + Send + Sync + 'static) {
        let paused = Arc::new(Paused {
            began: Instant::now(),
            state: Mutex::default(),
        });
        let clock = Self(Some(paused.clone()));
        (clock, move || paused.advance())
    }

    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(paused) => paused.began + paused.state.lock().passed,
        }
    }

    /// Cancel safe.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            None => tokio::time::sleep(duration).await,
            Some(paused) => paused.sleep(duration).await,
        }
    }

    /// What `future` gives, `None` where it takes longer. Unlike a sleep beside it, it is polled first.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep(duration) => None,
        }
    }
}

impl Paused {
    fn advance(&self) {
        let mut state = self.state.lock();
        let Some(((at, _), waker)) = state.sleepers.pop_first() else {
            return;
        };
        state.passed = at;
        drop(state);
        waker.wake();
    }

    async fn sleep(self: &Arc<Self>, duration: Duration) {
        let mut sleeper = Sleeper {
            clock: self.clone(),
            key: None,
        };
        let until = self.state.lock().passed + duration;
        poll_fn(|context| {
            let mut state = self.state.lock();
            if state.passed >= until {
                return Poll::Ready(());
            }
            let key = *sleeper.key.get_or_insert_with(|| {
                state.next += 1;
                (until, state.next)
            });
            state.sleepers.insert(key, context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Wakes nobody who has stopped waiting.
struct Sleeper {
    clock: Arc<Paused>,
    key: Option<(Duration, u64)>,
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.clock.state.lock().sleepers.remove(&key);
        }
    }
}
