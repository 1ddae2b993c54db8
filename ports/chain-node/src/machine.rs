//! The machine that a peer runs on: threads, files and a wall clock, or one peer's part of a simulated machine.

use std::{
    convert::Infallible,
    fmt::Display,
    future::Future,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, SystemTime},
};

use commonware_runtime::{
    BlobVersion, Clock, Error, Handle, Metrics, Name, Spawner, Storage, Supervisor,
    signal::Signal,
    telemetry::metrics::{Metric, Registered},
    tokio::Context,
};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Either},
};
use governor::clock::{Clock as GovernorClock, ReasonablyRealtime};
use rand::{TryCryptoRng, TryRng};

use crate::{disk::Blob, room::Room, simulated::Local};

/// On threads with what waits for room on their disk.
pub(crate) enum Machine {
    Threads(Context, Arc<Room>),
    Simulated(Local),
}

impl Supervisor for Machine {
    fn name(&self) -> Name {
        match self {
            Self::Threads(context, _) => context.name(),
            Self::Simulated(local) => local.name(),
        }
    }

    fn child(&self, label: &'static str) -> Self {
        match self {
            Self::Threads(context, room) => Self::Threads(context.child(label), room.clone()),
            Self::Simulated(local) => Self::Simulated(local.child(label)),
        }
    }

    fn with_attribute(self, key: &'static str, value: impl Display) -> Self {
        match self {
            Self::Threads(context, room) => Self::Threads(context.with_attribute(key, value), room),
            Self::Simulated(local) => Self::Simulated(local.with_attribute(key, value)),
        }
    }
}

/// A task before it runs. Boxed, so that starting one is compiled once and not once for each task and machine.
type Task<T> = Box<dyn FnOnce(Machine) -> BoxFuture<'static, T> + Send>;

impl Machine {
    fn run<T: Send + 'static>(self, task: Task<T>) -> Handle<T> {
        match self {
            Self::Threads(context, room) => context.spawn(move |context| task(Self::Threads(context, room))),
            Self::Simulated(local) => local.spawn(move |local| task(Self::Simulated(local))),
        }
    }
}

impl Spawner for Machine {
    fn shared(self, blocking: bool) -> Self {
        match self {
            Self::Threads(context, room) => Self::Threads(context.shared(blocking), room),
            Self::Simulated(local) => Self::Simulated(local.shared(blocking)),
        }
    }

    fn dedicated(self) -> Self {
        match self {
            Self::Threads(context, room) => Self::Threads(context.dedicated(), room),
            Self::Simulated(local) => Self::Simulated(local.dedicated()),
        }
    }

    fn spawn<F, Fut, T>(self, f: F) -> Handle<T>
    where
        F: FnOnce(Self) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        self.run(Box::new(move |machine| f(machine).boxed()))
    }

    async fn stop(self, value: i32, timeout: Option<Duration>) -> Result<(), Error> {
        match self {
            Self::Threads(context, _) => context.stop(value, timeout).await,
            Self::Simulated(local) => local.stop(value, timeout).await,
        }
    }

    fn stopped(&self) -> Signal {
        match self {
            Self::Threads(context, _) => context.stopped(),
            Self::Simulated(local) => local.stopped(),
        }
    }
}

impl Metrics for Machine {
    fn register<N: Into<String>, H: Into<String>, M: Metric>(&self, name: N, help: H, metric: M) -> Registered<M> {
        match self {
            Self::Threads(context, _) => context.register(name, help, metric),
            Self::Simulated(local) => local.register(name, help, metric),
        }
    }

    fn encode(&self) -> String {
        match self {
            Self::Threads(context, _) => context.encode(),
            Self::Simulated(local) => local.encode(),
        }
    }
}

impl Clock for Machine {
    fn current(&self) -> SystemTime {
        match self {
            Self::Threads(context, _) => context.current(),
            Self::Simulated(local) => local.current(),
        }
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static + use<> {
        match self {
            Self::Threads(context, _) => Either::Left(context.sleep(duration)),
            Self::Simulated(local) => Either::Right(local.sleep(duration)),
        }
    }

    fn sleep_until(&self, deadline: SystemTime) -> impl Future<Output = ()> + Send + 'static + use<> {
        match self {
            Self::Threads(context, _) => Either::Left(context.sleep_until(deadline)),
            Self::Simulated(local) => Either::Right(local.sleep_until(deadline)),
        }
    }
}

impl GovernorClock for Machine {
    type Instant = SystemTime;

    fn now(&self) -> SystemTime {
        self.current()
    }
}

impl ReasonablyRealtime for Machine {}

/// Each operation is boxed: what the engine makes of it is compiled once, and a file costs far more than an allocation.
impl Storage for Machine {
    type Blob = Blob;

    async fn open_versioned(
        &self,
        partition: &str,
        name: &[u8],
        versions: RangeInclusive<BlobVersion>,
    ) -> Result<(Blob, u64, BlobVersion), Error> {
        match self {
            Self::Threads(context, room) => {
                let open = || context.open_versioned(partition, name, versions.clone()).boxed();
                let opened = room.until_there_is(open).await?;
                Ok((Blob::File(opened.0, room.clone()), opened.1, opened.2))
            }
            Self::Simulated(local) => {
                let opened = local.open_versioned(partition, name, versions).boxed().await?;
                Ok((Blob::Simulated(opened.0), opened.1, opened.2))
            }
        }
    }

    async fn remove(&self, partition: &str, name: Option<&[u8]>) -> Result<(), Error> {
        match self {
            Self::Threads(context, _) => context.remove(partition, name).boxed().await,
            Self::Simulated(local) => local.remove(partition, name).boxed().await,
        }
    }

    async fn scan(&self, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
        match self {
            Self::Threads(context, _) => context.scan(partition).boxed().await,
            Self::Simulated(local) => local.scan(partition).boxed().await,
        }
    }
}

impl TryRng for Machine {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        match self {
            Self::Threads(context, _) => context.try_next_u32(),
            Self::Simulated(local) => local.try_next_u32(),
        }
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        match self {
            Self::Threads(context, _) => context.try_next_u64(),
            Self::Simulated(local) => local.try_next_u64(),
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        match self {
            Self::Threads(context, _) => context.try_fill_bytes(bytes),
            Self::Simulated(local) => local.try_fill_bytes(bytes),
        }
    }
}

impl TryCryptoRng for Machine {}
