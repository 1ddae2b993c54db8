//! How many invocations of one function run and wait at a time.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::failure::{Answer, refuse};

/// A function's turnstile: `concurrency` inside, a bounded queue before it. Fair: first come, first served.
pub(crate) struct Gate {
    inside: Arc<Semaphore>,
    waiting: AtomicU32,
    waiting_max: u32,
}

/// A burst of this many times the concurrency is held rather than refused.
const WAITING_PER_SLOT: u32 = 10;

struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub(crate) fn new(concurrency: u32) -> Self {
        Self {
            inside: Arc::new(Semaphore::new(concurrency as usize)),
            waiting: AtomicU32::new(0),
            waiting_max: concurrency.saturating_mul(WAITING_PER_SLOT),
        }
    }

    /// A place inside, at once or after a wait in the bounded queue. Refuses with `function.too_many`.
    pub(crate) async fn enter(&self) -> Answer<OwnedSemaphorePermit> {
        if let Ok(permit) = self.inside.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.waiting_max {
            return refuse(
                "function.too_many",
                "as many runs as the function may have are running and waiting",
            );
        }
        Ok(self.enter_patiently().await)
    }

    /// A place inside, however long it takes: for jobs that were accepted into the durable queue.
    pub(crate) async fn enter_patiently(&self) -> OwnedSemaphorePermit {
        self.inside
            .clone()
            .acquire_owned()
            .await
            .expect("the gate is never closed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn beyond_the_queue_callers_are_refused_and_a_place_frees_one() {
        let gate = Arc::new(Gate::new(1));
        let inside = gate.enter().await.expect("the first goes in");
        let waiting: Vec<_> = (0..WAITING_PER_SLOT)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.enter().await.map(drop) })
            })
            .collect();
        while gate.waiting.load(Ordering::Relaxed) < WAITING_PER_SLOT {
            tokio::task::yield_now().await;
        }
        let refused = gate.enter().await.expect_err("the queue is full");
        assert_eq!(refused.code, "function.too_many");
        drop(inside);
        for waiter in waiting {
            waiter.await.expect("no panic").expect("its turn came");
        }
    }
}
