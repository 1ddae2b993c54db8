//! `wasi:clocks/monotonic-clock` whose sleeps end at the call's deadline and need no tokio runtime.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::p2::{DynPollable, Pollable, bindings::clocks::monotonic_clock, subscribe};

use crate::{meter::Deadline, ticker::Ticker};

/// Guests see nanoseconds since this process first looked at the clock.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(crate) fn now_ns() -> u64 {
    u64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) struct Clock;

pub(crate) struct ClockView<'a> {
    pub(crate) table: &'a mut ResourceTable,
    pub(crate) ticker: &'a Arc<Ticker>,
    pub(crate) deadline: Deadline,
}

impl HasData for Clock {
    type Data<'a> = ClockView<'a>;
}

impl ClockView<'_> {
    /// No sleep outlasts the deadline: whoever polls the call then finds it over.
    fn alarm(&mut self, after: Duration) -> wasmtime::Result<Resource<DynPollable>> {
        let alarm = self.table.push(Alarm {
            at: Instant::now().checked_add(after),
            deadline: self.deadline,
            ticker: Arc::clone(self.ticker),
        })?;
        subscribe(self.table, alarm)
    }
}

impl monotonic_clock::Host for ClockView<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(now_ns())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.alarm(Duration::from_nanos(when.saturating_sub(now_ns())))
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.alarm(Duration::from_nanos(duration))
    }
}

struct Alarm {
    /// None: further away than clocks tell.
    at: Option<Instant>,
    deadline: Deadline,
    ticker: Arc<Ticker>,
}

#[async_trait::async_trait]
impl Pollable for Alarm {
    async fn ready(&mut self) {
        self.ticker.sleep_within(self.at, self.deadline).await;
    }
}
