//! The machine as one peer sees it: partitions of its own, and a clock that is wrong.

use std::{
    convert::Infallible,
    fmt::Display,
    future::Future,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use commonware_runtime::{
    BlobVersion, Clock as _, Error, Handle, Metrics, Name, Spawner, Storage, Supervisor,
    deterministic::Blob,
    signal::Signal,
    telemetry::metrics::{Metric, Registered},
};
use governor::clock::{Clock as GovernorClock, ReasonablyRealtime};
use rand::{Rng as _, TryCryptoRng, TryRng};

use super::Machine;

/// How far a peer's clock is off.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// When the machine is switched on.
    pub ahead: Duration,
    /// What it gains in a second, in millionths; its timeouts are shorter by as much.
    pub gains_ppm: u32,
}

const MILLION: u32 = 1_000_000;

impl Clock {
    fn read(self, machine: SystemTime) -> SystemTime {
        let since = machine.duration_since(UNIX_EPOCH).unwrap_or_default();
        machine + self.ahead + since / MILLION * self.gains_ppm
    }

    /// How long the machine needs until this clock has moved on by `shown`; to the microsecond, and never too short.
    fn wait(self, shown: Duration) -> Duration {
        let micros = shown.as_micros() * u128::from(MILLION) / u128::from(MILLION + self.gains_ppm);
        let rounding = Duration::from_micros(u64::from(self.gains_ppm > 0) * 2);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)) + rounding
    }
}

/// One peer's part of a machine.
pub(crate) struct Local {
    machine: Machine,
    partitions: Arc<str>,
    clock: Clock,
}

impl Local {
    /// The names of its partitions begin with `partitions`.
    pub(crate) fn new(machine: Machine, partitions: String, clock: Clock) -> Self {
        Self {
            machine,
            partitions: partitions.into(),
            clock,
        }
    }

    fn on(&self, machine: Machine) -> Self {
        Self {
            machine,
            partitions: self.partitions.clone(),
            clock: self.clock,
        }
    }

    fn own(&self, partition: &str) -> String {
        format!("{}{partition}", self.partitions)
    }
}

impl Supervisor for Local {
    fn name(&self) -> Name {
        self.machine.name()
    }

    fn child(&self, label: &'static str) -> Self {
        self.on(self.machine.child(label))
    }

    fn with_attribute(mut self, key: &'static str, value: impl Display) -> Self {
        self.machine = self.machine.with_attribute(key, value);
        self
    }
}

impl Spawner for Local {
    fn shared(mut self, blocking: bool) -> Self {
        self.machine = self.machine.shared(blocking);
        self
    }

    fn dedicated(mut self) -> Self {
        self.machine = self.machine.dedicated();
        self
    }

    fn spawn<F, Fut, T>(self, f: F) -> Handle<T>
    where
        F: FnOnce(Self) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let (partitions, clock) = (self.partitions, self.clock);
        self.machine.spawn(move |machine| {
            f(Self {
                machine,
                partitions,
                clock,
            })
        })
    }

    async fn stop(self, value: i32, timeout: Option<Duration>) -> Result<(), Error> {
        self.machine.stop(value, timeout).await
    }

    fn stopped(&self) -> Signal {
        self.machine.stopped()
    }
}

impl Metrics for Local {
    fn register<N: Into<String>, H: Into<String>, M: Metric>(&self, name: N, help: H, metric: M) -> Registered<M> {
        self.machine.register(name, help, metric)
    }

    fn encode(&self) -> String {
        self.machine.encode()
    }
}

impl commonware_runtime::Clock for Local {
    fn current(&self) -> SystemTime {
        self.clock.read(self.machine.current())
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.machine.sleep(self.clock.wait(duration))
    }

    fn sleep_until(&self, deadline: SystemTime) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.sleep(deadline.duration_since(self.current()).unwrap_or_default())
    }
}

impl GovernorClock for Local {
    type Instant = SystemTime;

    fn now(&self) -> SystemTime {
        self.current()
    }
}

impl ReasonablyRealtime for Local {}

impl Storage for Local {
    type Blob = Blob;

    async fn open_versioned(
        &self,
        partition: &str,
        name: &[u8],
        versions: RangeInclusive<BlobVersion>,
    ) -> Result<(Self::Blob, u64, BlobVersion), Error> {
        self.machine.open_versioned(&self.own(partition), name, versions).await
    }

    async fn remove(&self, partition: &str, name: Option<&[u8]>) -> Result<(), Error> {
        self.machine.remove(&self.own(partition), name).await
    }

    async fn scan(&self, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
        self.machine.scan(&self.own(partition)).await
    }
}

impl TryRng for Local {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.machine.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.machine.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.machine.fill_bytes(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Local {}
