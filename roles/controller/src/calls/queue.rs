//! Asynchronous jobs: durable before the caller is told, run in the background, taken up again after a crash.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use piecework_model::{AccountId, Code, JobId};
use piecework_store::{Accepted, AcceptedJob, Kept};
use tokio_util::sync::CancellationToken;

use crate::{
    Answer,
    calls::{
        Calls,
        invoke::{self, Invocation, Purpose},
        streams::Streams,
    },
    failure::{refuse, store},
    functions, quotas,
};

/// Between looks whether a job that is being cancelled has come on its way, or has ended.
const CANCEL_POLL: Duration = Duration::from_millis(2);

/// No developer fills the queue alone: its jobs take at most this part of it.
const SHARE: usize = 2;

/// What was accepted and has not ended; each with its owner's word that it shall not begin.
#[derive(Default)]
pub(crate) struct Queue {
    accepted: DashMap<JobId, CancellationToken>,
    /// How many of them are whose, and how much they hold.
    developers: DashMap<AccountId, Load>,
}

/// One developer's part.
#[derive(Clone, Copy, Default)]
struct Load {
    jobs: usize,
    input_bytes: u64,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.accepted.len()
    }

    /// Refuses with `server.busy` what is beyond `most` jobs, or the developer's part of them, and with `quota.inputs`.
    fn check(&self, developer: AccountId, most: usize, (added, quota): (u64, u64)) -> Answer<()> {
        if self.len() >= most {
            return refuse(Code::ServerBusy, "the queue of asynchronous jobs is full; retry later");
        }
        let own = self.developers.get(&developer).map(|own| *own).unwrap_or_default();
        if own.input_bytes + added > quota {
            return Err(quotas::refused((Kept::Inputs, own.input_bytes + added, quota)));
        }
        if own.jobs >= most.div_ceil(SHARE) {
            return refuse(
                Code::ServerBusy,
                "too many asynchronous jobs of this developer's functions are queued; retry when some have ended",
            );
        }
        Ok(())
    }

    fn enter(&self, job: JobId, (developer, input_bytes): (AccountId, u64), word: CancellationToken) {
        self.accepted.insert(job, word);
        let mut own = self.developers.entry(developer).or_default();
        own.jobs += 1;
        own.input_bytes += input_bytes;
    }

    fn leave(&self, job: JobId, (developer, input_bytes): (AccountId, u64)) {
        if self.accepted.remove(&job).is_none() {
            return;
        }
        if let Some(mut own) = self.developers.get_mut(&developer) {
            own.jobs -= 1;
            own.input_bytes -= input_bytes;
        }
        self.developers.remove_if(&developer, |_, own| own.jobs == 0);
    }

    /// Whether the job is among these.
    fn cancel(&self, job: JobId) -> bool {
        let entry = self.accepted.get(&job);
        entry.inspect(|entry| entry.value().cancel()).is_some()
    }
}

/// Ends a job that has not ended, wherever it is; returns when its end is written. Whether there was one.
pub(crate) async fn cancel(calls: &Calls, job: JobId) -> bool {
    let mut found = false;
    loop {
        let in_queue = calls.queue.cancel(job);
        let flight = calls.inflight.get(job);
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
pub(crate) async fn accept(calls: &Arc<Calls>, job: AcceptedJob) -> Answer<JobId> {
    let quota = calls.ground.store.quotas(job.developer).get(Kept::Inputs);
    calls.queue.check(
        job.developer,
        calls.ground.tuning.queued_jobs_max,
        (input_bytes(&job), quota),
    )?;
    match calls.ground.store.accept(job.clone()).await.map_err(store)? {
        Accepted::New => {
            let id = job.id;
            start(calls, job);
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
pub(crate) async fn take_up(calls: &Arc<Calls>) -> Answer<()> {
    let unfinished = calls.ground.store.unfinished().await.map_err(store)?;
    if !unfinished.is_empty() {
        tracing::info!(jobs = unfinished.len(), "resumed jobs accepted before the restart");
    }
    for job in unfinished {
        start(calls, job);
    }
    Ok(())
}

fn start(calls: &Arc<Calls>, job: AcceptedJob) {
    let word = CancellationToken::new();
    let place = Place {
        calls: calls.clone(),
        id: job.id,
        load: (job.developer, input_bytes(&job)),
    };
    calls.queue.enter(job.id, place.load, word.clone());
    calls
        .ground
        .tasks
        .spawn(async move { run(&place.calls, job, &word).await });
}

/// What it keeps on disk until it ends.
fn input_bytes(job: &AcceptedJob) -> u64 {
    (job.input.len() + job.parameters.len()) as u64
}

/// Takes the job off the queue when it has ended, however it ended.
struct Place {
    calls: Arc<Calls>,
    id: JobId,
    load: (AccountId, u64),
}

impl Drop for Place {
    fn drop(&mut self) {
        self.calls.queue.leave(self.id, self.load);
    }
}

/// Runs to the end. At shutdown a job that has not begun is left to the next start.
async fn run(calls: &Arc<Calls>, job: AcceptedJob, word: &CancellationToken) {
    let record = job.to_job();
    let outcome = tokio::select! {
        biased;
        // Before what the attempt says by then: that it may not begin any more is not how the job ended.
        () = calls.ground.shutdown.cancelled() => return,
        outcome = attempt(calls, job, word) => outcome,
    };
    let Err(refusal) = outcome else { return };
    if let Err(lost) = invoke::conclude_unrun(calls, record, &refusal).await {
        tracing::error!(error = %lost, "recording the end of a job failed; it will run again after a restart");
    }
}

async fn attempt(calls: &Arc<Calls>, job: AcceptedJob, word: &CancellationToken) -> Answer<()> {
    tokio::select! {
        // What it puts out has no place before.
        () = calls.ground.disk.taking() => {}
        () = word.cancelled() => return refuse(Code::JobCancelled, "the job was cancelled"),
    }
    let Some(live) = functions::by_id(&calls.functions, job.function).await? else {
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
        caller: Some(job.caller),
        moved: None,
        wall: None,
        streams: Streams::default(),
    };
    invoke::run(calls.clone(), invocation).await.map(drop)
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
            queue.check(developer, 10, (7, 100))?;
            queue.enter(job(number), (developer, 7), CancellationToken::new());
            Ok::<_, Box<crate::failure::Refusal>>(())
        };
        (0..5).for_each(|number| enter(number, one).expect("its part"));
        assert_eq!(enter(5, one).expect_err("more than its part").code, Code::ServerBusy);
        (5..10).for_each(|number| enter(number, other).expect("the rest"));
        assert_eq!(enter(10, AccountId([3; 20])).expect_err("full").code, Code::ServerBusy);
        let refused = queue.check(one, 100, (66, 100)).expect_err("too large");
        assert_eq!(refused.code, Code::QuotaInputs);
        queue.check(one, 100, (65, 100)).expect("room for that");
        queue.leave(job(0), (one, 7));
        enter(11, one).expect("one has ended");
        (5..10).for_each(|number| queue.leave(job(number), (other, 7)));
        assert_eq!((queue.len(), queue.developers.len()), (5, 1));
    }
}
