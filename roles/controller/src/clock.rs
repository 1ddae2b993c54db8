//! The wall clock, read in one place; and the clock that is waited by, which is handed in.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use jiff::Timestamp;

/// What work beside the calls waits by.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Since some moment; never goes back.
    fn now(&self) -> Duration;

    /// Cancel safe.
    async fn sleep(&self, span: Duration);
}

/// The machine's own.
pub struct Machine(Instant);

impl Machine {
    pub fn clock() -> Arc<dyn Clock> {
        Arc::new(Self(Instant::now()))
    }
}

#[async_trait]
impl Clock for Machine {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}

/// What `work` comes to; `None` where it takes longer.
pub(crate) async fn within<T>(clock: &dyn Clock, span: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = clock.sleep(span) => None,
    }
}

pub(crate) fn now_ms() -> u64 {
    piecework_model::unix_ms(SystemTime::now())
}

/// For answers: RFC 3339 in UTC.
pub(crate) fn timestamp(unix_ms: u64) -> Timestamp {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}
