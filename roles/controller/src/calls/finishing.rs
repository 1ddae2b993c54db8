//! Work that runs to its end even if its caller goes away.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
};

use futures::FutureExt as _;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::{Answer, failure::failed};

type Work<T> = Pin<Box<dyn Future<Output = Answer<T>> + Send>>;

/// Polls the work where it is awaited, and hands it to the tracker if it is dropped before it ended. Spawning it at once
/// would cost every call two thread switches. A panic in it becomes a refusal.
pub(crate) struct Finishing<T: Send + 'static> {
    work: Option<Work<T>>,
    tasks: TaskTracker,
}

impl<T: Send + 'static> Finishing<T> {
    pub(crate) fn new(tasks: TaskTracker, work: impl Future<Output = Answer<T>> + Send + 'static) -> Self {
        let caught = AssertUnwindSafe(work).catch_unwind().map(|ended| {
            ended.unwrap_or_else(|panic| {
                let said = panic.downcast_ref::<String>().map(String::as_str);
                let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
                Err(failed("run a job", &said.unwrap_or("a panic without a message")))
            })
        });
        Self {
            work: Some(Box::pin(caught)),
            tasks,
        }
    }

    /// Goes on by itself from now on; whoever awaits the rest may stop doing so.
    pub(crate) fn detach(mut self) -> Self {
        let Some(work) = self.work.take() else { return self };
        let (tasks, running) = (self.tasks.clone(), self.tasks.spawn(work));
        Self::new(tasks, async move {
            running.await.unwrap_or_else(|error| Err(failed("run a job", &error)))
        })
    }
}

impl<T: Send + 'static> Future for Finishing<T> {
    type Output = Answer<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let ended = work.as_mut().poll(context);
        if ended.is_ready() {
            self.work = None;
        }
        ended
    }
}

impl<T: Send + 'static> Drop for Finishing<T> {
    fn drop(&mut self) {
        // Outside a runtime everything ends.
        if let Some(work) = self.work.take()
            && let Ok(runtime) = Handle::try_current()
        {
            self.tasks.spawn_on(work, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use piecework_model::Code;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_ends_although_nobody_waits_for_it_any_more() {
        let (tasks, (go, gone), (tell, told)) = (TaskTracker::new(), oneshot::channel::<()>(), oneshot::channel());
        let mut work = Box::pin(Finishing::new(tasks.clone(), async move {
            gone.await.ok();
            tell.send(7).ok();
            Ok(())
        }));
        assert!(futures::poll!(&mut work).is_pending());
        drop(work);
        assert_eq!(tasks.len(), 1);
        go.send(()).expect("it listens");
        assert_eq!(told.await, Ok(7));
    }

    #[tokio::test]
    async fn detached_work_needs_nobody_to_poll_it() {
        let (tasks, (tell, told)) = (TaskTracker::new(), oneshot::channel());
        let work = Finishing::new(tasks.clone(), async move {
            tell.send(7).ok();
            Ok(8)
        });
        let rest = work.detach();
        assert_eq!(told.await, Ok(7));
        assert_eq!(rest.await.ok(), Some(8));
    }

    #[tokio::test]
    async fn a_panic_is_a_refusal() {
        let tasks = TaskTracker::new();
        let work: Finishing<()> = Finishing::new(tasks.clone(), async { panic!("on purpose") });
        let refused = work.await.expect_err("refused");
        assert_eq!(refused.code, Code::ServerFailed);
        assert!(tasks.is_empty(), "it ended here");
    }
}
