//! Threads for what nobody waits for: a runtime of its own, behind the one that answers calls.

use anyhow::{Context as _, Result};
use rustix::{process::setpriority_process, thread::gettid};
use tokio::runtime::{Builder, Handle, Runtime};

/// A ninth of a call's share while both have work, all that is left while not: settlement keeps up with full load, and a
/// call is not held up by it.
pub(super) const NICENESS: i32 = 10;

/// Stops without waiting when it is dropped: what it runs has an end of its own before.
pub(super) struct Background(Option<Runtime>);

impl Background {
    pub(super) fn start() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            // Sealing and projecting a full batch take milliseconds.
            .worker_threads(1)
            .thread_name("background")
            .on_thread_start(|| {
                if let Err(error) = setpriority_process(Some(gettid()), NICENESS) {
                    tracing::warn!(%error, "lowering the priority of settlement failed; it competes with calls");
                }
            })
            .enable_all()
            .build();
        Ok(Self(Some(runtime.context("the background's thread does not start")?)))
    }

    /// Runs it there: threads that it starts are of the same priority, and so are theirs.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
        self.handle()
            .spawn(work)
            .await
            .context("work in the background panicked")
    }

    pub(super) fn handle(&self) -> Handle {
        self.0.as_ref().expect("it is taken by `drop` alone").handle().clone()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[tokio::test]
    async fn it_comes_after_what_calls_wait_for() {
        let own = getpriority_process(Some(gettid())).expect("Linux tells");
        let background = Background::start().expect("started");
        let of_a_thread = || getpriority_process(Some(gettid())).expect("Linux tells");
        let there = background.run(async move {
            let started = std::thread::spawn(of_a_thread).join().expect("no panic");
            (of_a_thread(), started)
        });
        assert_eq!(there.await.expect("no panic"), (NICENESS, NICENESS));
        assert_eq!(getpriority_process(Some(gettid())).expect("Linux tells"), own);
    }
}
