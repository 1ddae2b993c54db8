//! The threads on which calls go on that do not end at once.

use std::task::Poll;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;

/// Waits for what does not end in its first moment, so that the threads that serve requests never do. Sandboxes compute
/// elsewhere.
pub(super) struct Threads(Option<Runtime>);

impl Threads {
    pub(super) fn new(cores: u32) -> Self {
        let waiters = Builder::new_multi_thread()
            .worker_threads(cores.max(1) as usize)
            .thread_name("sandbox-waiter")
            .enable_all()
            .build()
            .expect("threads can be started at start-up");
        Self(Some(waiters))
    }

    /// Where calls go on.
    pub(super) fn place(&self) -> &Handle {
        let waiters = self.0.as_ref().expect("the threads live as long as this");
        waiters.handle()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(waiters) = self.0.take() {
            waiters.shutdown_background();
        }
    }
}

/// Polls once here, where a short call ends; what yields goes on elsewhere. Dropping it ends it there too.
pub(super) async fn run_off_line<F>(elsewhere: &Handle, future: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let mut future = Box::pin(future);
    match futures::poll!(&mut future) {
        Poll::Ready(output) => output,
        Poll::Pending => {
            let task = AbortOnDropHandle::new(elsewhere.spawn(future));
            task.await
                .expect("a sandbox call neither panics nor is aborted while it is awaited")
        }
    }
}
