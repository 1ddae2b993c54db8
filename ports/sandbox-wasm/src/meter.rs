//! What a call uses: the thread's CPU time around each poll, the wall clock, and the end of its time.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use piecework_model::Counters;
use piecework_sandbox::{Freeze, OutOfTime};
use rustix::time::{ClockId, clock_gettime};

use crate::ticker::Ticker;

/// The end of a call's time; it moves on while sandboxes are frozen.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    frozen_before: Duration,
}

impl Deadline {
    pub(crate) fn after(time: Duration, freeze: &Freeze) -> Self {
        Self {
            at: Instant::now() + time,
            frozen_before: freeze.frozen(),
        }
    }

    pub(crate) fn at(self, freeze: &Freeze) -> Instant {
        self.at + freeze.frozen().saturating_sub(self.frozen_before)
    }
}

/// Polls `inner` and adds up; ends it at the first poll after the deadline, and does not poll it while sandboxes are frozen.
/// Every yield of the engine and every sleep is such a poll, so a call outlives its deadline by a tick or two at most, and
/// stands still as soon.
pub(crate) struct Metered<'a, F> {
    inner: Pin<&'a mut F>,
    usage: &'a mut Usage,
    deadline: Deadline,
    ticker: Arc<Ticker>,
}

#[derive(Default)]
pub(crate) struct Usage {
    cpu: Duration,
    polls: u32,
}

impl<'a, F> Metered<'a, F> {
    pub(crate) fn new(inner: Pin<&'a mut F>, usage: &'a mut Usage, deadline: Deadline, ticker: Arc<Ticker>) -> Self {
        Self {
            inner,
            usage,
            deadline,
            ticker,
        }
    }
}

impl<F: Future> Future for Metered<'_, F> {
    type Output = Result<F::Output, OutOfTime>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.ticker.freeze.is_frozen() {
            self.ticker.wake_soon(cx.waker());
            return Poll::Pending;
        }
        if self.usage.polls > 0 && Instant::now() >= self.deadline.at(&self.ticker.freeze) {
            return Poll::Ready(Err(OutOfTime));
        }
        let begun = thread_cpu();
        let polled = self.inner.as_mut().poll(cx);
        self.usage.cpu += thread_cpu().saturating_sub(begun);
        self.usage.polls += 1;
        polled.map(Ok)
    }
}

fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

impl Usage {
    /// Of a call that pays for `cpu` before it.
    pub(crate) fn owing(cpu: Duration) -> Self {
        Self { cpu, polls: 0 }
    }

    pub(crate) fn beyond(&self, free: Duration) -> Duration {
        self.cpu.saturating_sub(free)
    }

    /// Fractions are rounded up. There is no network: what is egress was streamed.
    pub(crate) fn counters(&self, memory_bytes: u64, wall: Duration, egress_bytes: u64) -> Counters {
        let byte_us = u128::from(memory_bytes) * wall.as_micros();
        Counters {
            cpu_us: u64::try_from(self.cpu.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX),
            memory_byte_ms: u64::try_from(byte_us.div_ceil(1_000)).unwrap_or(u64::MAX),
            egress_bytes,
        }
    }
}
