//! How the parts of one session tell each other that it is over, and why.

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::LinkFailure;

#[derive(Default)]
pub(super) struct Ending {
    over: CancellationToken,
    failure: Mutex<Option<LinkFailure>>,
}

impl Ending {
    /// The first failure is the session's.
    pub(super) fn fail(&self, failure: LinkFailure) {
        self.failure.lock().get_or_insert(failure);
        self.over.cancel();
    }

    /// The session has ended by whatever its main task knows.
    pub(super) fn end(&self) {
        self.over.cancel();
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Resolves when something of the session has failed it.
    pub(super) async fn failed(&self) -> LinkFailure {
        self.over.cancelled().await;
        let failure = self.failure.lock().take();
        failure.unwrap_or_else(|| LinkFailure::Broken("the session ended".into()))
    }
}
