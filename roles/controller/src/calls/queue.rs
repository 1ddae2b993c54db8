//! Asynchronous jobs: durable before the caller is told, run in the background, taken up again after a crash.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use piecework_model::{AccountId, Code, JobId};
use piecework_store::{Accepted, AcceptedJob};
use tokio_util::sync::CancellationToken;

use crate::{
    Answer, Controller,
    calls::{
        invoke::{self, Invocation, Purpose},
        streams::Streams,
    },
    failure::{refuse, store},
    functions,
};

/// Between looks whether a job that is being cancelled has come on its way, or has ended.
const CANCEL_POLL: Duration = Duration::from_millis(2);

/// No developer fills the queue alone: its jobs take at most this part of it.
const SHARE: usize = 2;

/// What was accepted and has not ended; each with its owner's word that it shall not begin.
#[derive(Default)]
pub(crate) struct Queue {
    accepted: DashMap<JobId, CancellationToken>,
    /// How many of them are whose.
    developers: DashMap<AccountId, usize>,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.accepted.len()
    }

    /// Refuses with `server.busy` what is beyond `most` jobs, or the developer's part of them.
    fn check(&self, developer: AccountId, most: usize) -> Answer<()> {
        if self.len() >= most {
            return refuse(Code::ServerBusy, "the queue of asynchronous jobs is full; retry later");
        }
        let own = self.developers.get(&developer).map_or(0, |own| *own);
        if own >= most.div_ceil(SHARE) {
            return refuse(
                Code::ServerBusy,
                "too many asynchronous jobs of this developer's functions are queued; retry when some have ended",
            );
        }
        Ok(())
    }

    fn enter(&self, job: JobId, developer: AccountId, word: CancellationToken) {
        self.accepted.insert(job, word);
        *self.developers.entry(developer).or_default() += 1;
    }

    fn leave(&self, job: JobId, developer: AccountId) {
        if self.accepted.remove(&job).is_none() {
            return;
        }
        if let Some(mut own) = self.developers.get_mut(&developer) {
            *own -= 1;
        }
        self.developers.remove_if(&developer, |_, own| *own == 0);
    }

    /// Whether the job is among these.
    fn cancel(&self, job: JobId) -> bool {
        let entry = self.accepted.get(&job);
        entry.inspect(|entry| entry.value().cancel()).is_some()
    }
}

/// Ends a job that has not ended, wherever it is; returns when its end is written. Whether there was one.
pub(crate) async fn cancel(controller: &Controller, job: JobId) -> bool {
    let mut found = false;
    loop {
        let in_queue = controller.queue.cancel(job);
        let flight = controller.inflight.get(job);
        if let Some(flight) = &flight {
            flight.cancel.cancel();
        }
        if !in_queue && flight.is_none() {
            return found;
        }
        found = true;
        tokio::time::sleep(CANCEL_POLL).await;
    }
}

/// Accepts a job: when it returns, the job will run even if everything dies now. The id may be of an earlier job with
/// the same idempotency key. Refuses with `server.busy` and `idempotency.conflict`.
pub(crate) async fn accept(controller: &Arc<Controller>, job: AcceptedJob) -> Answer<JobId> {
    controller
        .queue
        .check(job.developer, controller.tuning.queued_jobs_max)?;
    match controller.store.accept(job.clone()).await.map_err(store)? {
        Accepted::New => {
            let id = job.id;
            start(controller, job);
            Ok(id)
        }
        Accepted::Existing(id) => Ok(id),
        Accepted::IdempotencyConflict => refuse(
            Code::IdempotencyConflict,
            "the idempotency key was used with another request",
        ),
    }
}

/// Runs what an earlier run accepted and did not finish.
pub(crate) async fn take_up(controller: &Arc<Controller>) -> Answer<()> {
    let unfinished = controller.store.unfinished().await.map_err(store)?;
    if !unfinished.is_empty() {
        tracing::info!(jobs = unfinished.len(), "resumed jobs accepted before the restart");
    }
    for job in unfinished {
        start(controller, job);
    }
    Ok(())
}

fn start(controller: &Arc<Controller>, job: AcceptedJob) {
    let word = CancellationToken::new();
    let place = Place {
        controller: controller.clone(),
        id: job.id,
        developer: job.developer,
    };
    controller.queue.enter(job.id, job.developer, word.clone());
    controller
        .tasks
        .spawn(async move { run(&place.controller, job, &word).await });
}

/// Takes the job off the queue when it has ended, however it ended.
struct Place {
    controller: Arc<Controller>,
    id: JobId,
    developer: AccountId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.controller.queue.leave(self.id, self.developer);
    }
}

/// Runs to the end. At shutdown a job that has not begun is left to the next start.
async fn run(controller: &Arc<Controller>, job: AcceptedJob, word: &CancellationToken) {
    let record = job.to_job();
    let outcome = tokio::select! {
        biased;
        // Before what the attempt says by then: that it may not begin any more is not how the job ended.
        () = controller.shutdown.cancelled() => return,
        outcome = attempt(controller, job, word) => outcome,
    };
    let Err(refusal) = outcome else { return };
    if let Err(lost) = invoke::conclude_unrun(controller, record, &refusal).await {
        tracing::error!(error = %lost, "recording the end of a job failed; it will run again after a restart");
    }
}

async fn attempt(controller: &Arc<Controller>, job: AcceptedJob, word: &CancellationToken) -> Answer<()> {
    let Some(live) = functions::by_id(controller, job.function).await? else {
        return refuse(Code::FunctionNotFound, "the function was deleted before the job ran");
    };
    // From here to its way there is no pause: who cancels later finds it on its way.
    if word.is_cancelled() {
        return refuse(Code::JobCancelled, "the job was cancelled");
    }
    let invocation = Invocation {
        id: job.id,
        live,
        event: job.input,
        parameters: job.parameters.into_bytes().into(),
        idempotency: job.idempotency,
        deadline_ms: job.deadline_ms,
        created_at_ms: job.created_at_ms,
        accepted: true,
        purpose: Purpose::Call,
        streams: Streams::default(),
    };
    invoke::run(controller.clone(), invocation).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_developer_fills_no_more_than_its_part_of_the_queue() {
        let queue = Queue::default();
        let (one, other) = (AccountId([1; 20]), AccountId([2; 20]));
        let job = |number: u8| JobId::new(u64::from(number), [number; 10]);
        let enter = |number, developer| {
            queue.check(developer, 10)?;
            queue.enter(job(number), developer, CancellationToken::new());
            Ok::<_, Box<crate::failure::Refusal>>(())
        };
        (0..5).for_each(|number| enter(number, one).expect("its part"));
        assert_eq!(enter(5, one).expect_err("more than its part").code, Code::ServerBusy);
        (5..10).for_each(|number| enter(number, other).expect("the rest"));
        assert_eq!(enter(10, AccountId([3; 20])).expect_err("full").code, Code::ServerBusy);
        queue.leave(job(0), one);
        enter(11, one).expect("one has ended");
        (5..10).for_each(|number| queue.leave(job(number), other));
        assert_eq!((queue.len(), queue.developers.len()), (5, 1));
    }
}
