//! A clock that a test turns: it moves on to the next moment that somebody waits for, when nothing else happens.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::clock::Clock;

/// More than any chain of tasks that wake one another in these tests, each of which takes one.
const YIELDS: usize = 100;

#[derive(Default)]
pub(crate) struct Turned(Mutex<State>);

#[derive(Default)]
struct State {
    now: Duration,
    count: u64,
    /// By when they wake, then by when they came.
    sleepers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
}

impl Turned {
    /// It turns as long as the runtime of the caller, which must have one thread.
    pub(crate) fn start() -> Arc<Self> {
        let clock = Arc::new(Self::default());
        tokio::spawn(clock.clone().turn());
        clock
    }

    async fn turn(self: Arc<Self>) {
        loop {
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
            self.wake_next();
        }
    }

    fn wake_next(&self) {
        let mut state = self.0.lock();
        while let Some(((at, _), sleeper)) = state.sleepers.pop_first() {
            if !sleeper.is_closed() {
                state.now = at;
                let _ = sleeper.send(());
                return;
            }
        }
    }
}

#[async_trait]
impl Clock for Turned {
    fn now(&self) -> Duration {
        self.0.lock().now
    }

    async fn sleep(&self, span: Duration) {
        let (sleeper, woken) = oneshot::channel();
        {
            let mut state = self.0.lock();
            let at = state.now.saturating_add(span);
            state.count += 1;
            let count = state.count;
            state.sleepers.insert((at, count), sleeper);
        }
        let _ = woken.await;
    }
}
