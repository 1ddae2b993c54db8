//! The threads on which calls go on that do not end at once.

use std::task::Poll;

use piecework_model::BackendName;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;

/// Two kinds, so that nothing that only waits queues behind what computes.
pub(super) struct Threads {
    /// For sandboxes that compute in this process: what does not end in its first slice, so that the threads that serve requests
    /// never wait for it.
    workers: Option<Runtime>,
    /// For those that compute elsewhere.
    waiters: Option<Runtime>,
}

impl Threads {
    pub(super) fn new(cores: u32) -> Self {
        let start = |name: &str, begins: fn()| {
            Builder::new_multi_thread()
                .worker_threads(cores.max(1) as usize)
                .thread_name(name)
                .on_thread_start(begins)
                .enable_all()
                .build()
                .expect("threads can be started at start-up")
        };
        Self {
            workers: Some(start("sandbox-worker", compute_last)),
            waiters: Some(start("sandbox-waiter", || ())),
        }
    }

    /// Where calls of this backend go on.
    pub(super) fn of(&self, backend: BackendName) -> &Handle {
        let runtime = match backend {
            BackendName::Wasm => &self.workers,
            BackendName::Jail | BackendName::Oci | BackendName::Gvisor | BackendName::Docker | BackendName::Microvm => {
                &self.waiters
            }
        };
        runtime.as_ref().expect("the threads live as long as this").handle()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for threads in [self.workers.take(), self.waiters.take()].into_iter().flatten() {
            threads.shutdown_background();
        }
    }
}

/// What this thread computes has had its first slice: whatever else wants to run goes first. Nothing changes where this is not
/// allowed.
fn compute_last() {
    const NICE: i32 = 10;
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
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
