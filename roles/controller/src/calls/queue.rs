//! Asynchronous jobs: durable before the caller is told, run in the background, taken up again after a crash.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use piecework_model::JobId;
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

/// What was accepted and has not ended; each with its owner's word that it shall not begin.
#[derive(Default)]
pub(crate) struct Queue {
    accepted: DashMap<JobId, CancellationToken>,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.accepted.len()
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
    if controller.queue.len() >= controller.tuning.queued_jobs_max {
        return refuse("server.busy", "the queue of jobs is full");
    }
    match controller.store.accept(job.clone()).await.map_err(store)? {
        Accepted::New => {
            let id = job.id;
            start(controller, job);
            Ok(id)
        }
        Accepted::Existing(id) => Ok(id),
        Accepted::IdempotencyConflict => refuse(
            "idempotency.conflict",
            "the idempotency key was used with another request",
        ),
    }
}

/// Runs what an earlier run accepted and did not finish.
pub(crate) async fn take_up(controller: &Arc<Controller>) -> Answer<()> {
    let unfinished = controller.store.unfinished().await.map_err(store)?;
    if !unfinished.is_empty() {
        tracing::info!(jobs = unfinished.len(), "accepted jobs of an earlier run go on");
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
    };
    controller.queue.accepted.insert(job.id, word.clone());
    controller
        .tasks
        .spawn(async move { run(&place.controller, job, &word).await });
}

/// Takes the job off the queue when it has ended, however it ended.
struct Place {
    controller: Arc<Controller>,
    id: JobId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.controller.queue.accepted.remove(&self.id);
    }
}

/// Runs to the end. At shutdown a job that has not begun is left to the next start.
async fn run(controller: &Arc<Controller>, job: AcceptedJob, word: &CancellationToken) {
    let record = job.to_job();
    let outcome = tokio::select! {
        outcome = attempt(controller, job, word) => outcome,
        () = controller.shutdown.cancelled() => return,
    };
    let Err(refusal) = outcome else { return };
    if let Err(lost) = invoke::conclude_unrun(controller, record, &refusal).await {
        tracing::error!(error = %lost, "the end of a job was not written; it will be run again at the next start");
    }
}

async fn attempt(controller: &Arc<Controller>, job: AcceptedJob, word: &CancellationToken) -> Answer<()> {
    let Some(live) = functions::by_id(controller, job.function).await? else {
        return refuse("function.not_found", "the function was deleted before the job ran");
    };
    // From here to its way there is no pause: who cancels later finds it on its way.
    if word.is_cancelled() {
        return refuse("job.cancelled", "the job was cancelled");
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
