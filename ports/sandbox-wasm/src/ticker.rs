//! One thread that advances the engines' epochs about every millisecond, and wakes those who sleep, while calls are live.
//!
//! Instances yield at each epoch, so that no call holds a thread for longer than a tick or two. When nothing has run for a
//! while the thread parks and costs nothing.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread::{JoinHandle, Thread},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use piecework_sandbox::Freeze;
use wasmtime::EngineWeak;

use crate::meter::Deadline;

/// Long enough to be cheap, short enough that a deadline is met within a millisecond or two.
const TICK: Duration = Duration::from_millis(1);
/// After so many ticks without a call the thread parks: waking it costs more than a few idle ticks.
const IDLE_TICKS_MAX: u32 = 50;

pub(crate) struct Ticker {
    pub(crate) freeze: Freeze,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    handle: Thread,
}

struct Shared {
    engines: Mutex<Vec<EngineWeak>>,
    live: AtomicUsize,
    parked: AtomicBool,
    stopped: AtomicBool,
    alarms: Mutex<BinaryHeap<Reverse<Alarm>>>,
}

struct Alarm {
    at: Instant,
    waker: Waker,
}

impl Ticker {
    pub(crate) fn start() -> std::io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            engines: Mutex::new(Vec::new()),
            live: AtomicUsize::new(0),
            parked: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            alarms: Mutex::new(BinaryHeap::new()),
        });
        let thread = std::thread::Builder::new().name("wasm-ticker".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        })?;
        let handle = thread.thread().clone();
        Ok(Arc::new(Self {
            freeze: Freeze::default(),
            shared,
            thread: Some(thread),
            handle,
        }))
    }

    /// From now on `engine`'s epoch advances while calls are live.
    pub(crate) fn drive(&self, engine: &wasmtime::Engine) {
        self.shared.engines.lock().push(engine.weak());
    }

    /// A call is live until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Live {
        self.shared.live.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            self.handle.unpark();
        }
        Live(Arc::clone(self))
    }

    /// Resolves at `at`, or at a call's deadline if that comes first: whoever polls the call then finds it over.
    pub(crate) async fn sleep_within(self: &Arc<Self>, at: Option<Instant>, deadline: Deadline) {
        loop {
            let end = deadline.at(&self.freeze);
            let until = at.map_or(end, |at| at.min(end));
            self.sleep_until(until).await;
            // A freeze moves the deadline.
            let now = Instant::now();
            if at.is_some_and(|at| now >= at) || now >= deadline.at(&self.freeze) {
                return;
            }
        }
    }

    /// Wakes `waker` in a moment.
    pub(crate) fn wake_soon(&self, waker: &Waker) {
        const MOMENT: Duration = Duration::from_millis(10);
        let alarm = Alarm {
            at: Instant::now() + MOMENT,
            waker: waker.clone(),
        };
        self.shared.alarms.lock().push(Reverse(alarm));
    }

    /// Resolves at `at` or up to a tick later, on any executor. Only wakes while a call is live.
    pub(crate) fn sleep_until(self: &Arc<Self>, at: Instant) -> Sleep {
        Sleep {
            at,
            ticker: Arc::clone(self),
            set: None,
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.handle.unpark();
        // The last owner may be a future that the ticker's own thread drops with a waker.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the wasm ticker panicked");
        }
    }
}

pub(crate) struct Live(Arc<Ticker>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.shared.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn run(&self) {
        let mut idle = 0;
        while !self.stopped.load(Ordering::SeqCst) {
            idle = if self.live.load(Ordering::SeqCst) > 0 {
                0
            } else {
                idle + 1
            };
            if idle > IDLE_TICKS_MAX {
                self.park();
                idle = 0;
            } else {
                self.tick();
                std::thread::sleep(TICK);
            }
        }
    }

    fn tick(&self) {
        self.engines.lock().retain(|engine| match engine.upgrade() {
            Some(engine) => {
                engine.increment_epoch();
                true
            }
            None => false,
        });
        self.wake_due(Instant::now());
    }

    fn wake_due(&self, now: Instant) {
        let mut due = Vec::new();
        {
            let mut alarms = self.alarms.lock();
            while alarms.peek().is_some_and(|Reverse(alarm)| alarm.at <= now) {
                due.extend(alarms.pop().map(|Reverse(alarm)| alarm.waker));
            }
        }
        due.into_iter().for_each(Waker::wake);
    }

    /// `live` is read again after `parked` is set, and `enter` does the two in the other order: one of them sees the other.
    fn park(&self) {
        self.parked.store(true, Ordering::SeqCst);
        if self.live.load(Ordering::SeqCst) == 0 && !self.stopped.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.parked.store(false, Ordering::SeqCst);
    }
}

pub(crate) struct Sleep {
    at: Instant,
    ticker: Arc<Ticker>,
    /// Whom the alarm wakes. Set once for all polls of one task: they may be many, and alarms stay until they are due.
    set: Option<Waker>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        if self.set.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        self.set = Some(cx.waker().clone());
        let alarm = Alarm {
            at: self.at,
            waker: cx.waker().clone(),
        };
        self.ticker.shared.alarms.lock().push(Reverse(alarm));
        Poll::Pending
    }
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Alarm {}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_wakes_after_its_time_also_when_the_thread_was_parked() {
        let ticker = Ticker::start().expect("a thread");
        while !ticker.shared.parked.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let begun = Instant::now();
        let live = ticker.enter();
        futures::executor::block_on(ticker.sleep_until(begun + Duration::from_millis(5)));
        drop(live);
        assert!(begun.elapsed() >= Duration::from_millis(5));
    }
}
