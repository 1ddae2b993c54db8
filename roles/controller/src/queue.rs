//! Asynchronous jobs: durable before the caller is told, run in the background, taken up again after a crash.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use piecework_model::JobId;
use piecework_store::{Accepted, AcceptedJob};

use crate::{
    Answer, Controller,
    failure::{refuse, store},
    functions,
    invoke::{self, Invocation, Purpose},
};

#[derive(Default)]
pub(crate) struct Queue {
    waiting: AtomicUsize,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
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
    controller.queue.waiting.fetch_add(1, Ordering::Relaxed);
    let owned = controller.clone();
    controller.tasks.spawn(async move {
        run(&owned, job).await;
        owned.queue.waiting.fetch_sub(1, Ordering::Relaxed);
    });
}

/// Runs to the end. At shutdown a job that has not begun is left to the next start.
async fn run(controller: &Arc<Controller>, job: AcceptedJob) {
    let record = job.to_job();
    let outcome = tokio::select! {
        outcome = attempt(controller, job) => outcome,
        () = controller.shutdown.cancelled() => return,
    };
    let Err(refusal) = outcome else { return };
    if let Err(lost) = invoke::conclude_unrun(controller, record, &refusal).await {
        tracing::error!(error = %lost, "the end of a job was not written; it will be run again at the next start");
    }
}

async fn attempt(controller: &Arc<Controller>, job: AcceptedJob) -> Answer<()> {
    let Some(live) = functions::by_id(controller, job.function).await? else {
        return refuse("function.not_found", "the function was deleted before the job ran");
    };
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
    };
    invoke::run(controller.clone(), invocation).await.map(drop)
}
