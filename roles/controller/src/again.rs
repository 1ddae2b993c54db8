//! A controller's periodic background work.

use std::{sync::Arc, time::Duration};

use crate::{Answer, Controller};

/// A round each `every`, the first after it, until shutdown. A round that failed is logged, and the next one tries
/// again.
pub(crate) async fn again<F, R>(controller: Arc<Controller>, every: Duration, what: &'static str, round: F)
where
    F: Fn(Arc<Controller>) -> R,
    R: Future<Output = Answer<()>>,
{
    loop {
        tokio::select! {
            () = controller.shutdown.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        if let Err(refusal) = round(controller.clone()).await {
            tracing::warn!(what, %refusal, "a round failed");
        }
    }
}
