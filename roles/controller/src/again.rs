//! A room's periodic background work.

use std::time::Duration;

use crate::{Answer, ground::Ground};

/// A round each `every`, the first after it, until shutdown. A round that failed is logged, and the next one tries
/// again.
pub(crate) async fn again<F, R>(ground: &Ground, every: Duration, what: &'static str, round: F)
where
    F: Fn() -> R,
    R: Future<Output = Answer<()>>,
{
    loop {
        tokio::select! {
            () = ground.shutdown.cancelled() => return,
            () = ground.clock.sleep(every) => {}
        }
        if let Err(refusal) = round().await {
            tracing::warn!(what, %refusal, "a round failed");
        }
    }
}
