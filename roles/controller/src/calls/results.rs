//! Results that go to a sink of their function's, and those that expire.
//!
//! ```text
//! job ends -> note (journal) -> record with its output (journal) -> answer
//!              `-> owed -> delivered: the output leaves the record
//!                   |`---> again, later and later, for a day
//!                    `---> undelivered: it stays with the job, and the job says why
//! ```
//! Delivery is at least once. What is owed is found in the store, so a restart changes nothing but the time.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use piecework_api::{errors::Refusal, results::ResultView};
use piecework_model::{Code, Credits, Digest, FunctionId, JobId};
use piecework_sink::{Parcel, Undelivered};
use piecework_store::{Function, Job, ResultNote, ResultState};
use rand::RngExt as _;
use serde_json::{json, value::RawValue};
use tokio::sync::Notify;

use crate::{
    Answer,
    calls::Calls,
    clock::{now_ms, timestamp},
    codecs,
    failure::{refusal, store},
    functions::sinks,
    shown,
};

/// Deliveries at one time, of all functions: each is a connection and an output in memory.
const DELIVERIES_MAX: u32 = 32;
/// And of one function, so that a slow sink holds up nobody else.
const DELIVERIES_OF_ONE_MAX: u32 = 4;
/// More than can be under way at once, so that what is under way does not hide the rest.
const LOOKED_AT: u32 = 4 * DELIVERIES_MAX;
/// Between looks for what is due or has expired.
const LOOK: Duration = Duration::from_secs(1);
/// Outputs that expire in one look.
const EXPIRED_AT_ONCE: u32 = 500;
const BACK_OFF_FIRST_MS: u64 = 1_000;
const BACK_OFF_LONGEST_MS: u64 = 3_600_000;
/// A job is written down within moments of its note; one that is not there after this long died with its process.
const ORPHANED_AFTER_MS: u64 = 600_000;

/// What is on its way.
#[derive(Default)]
pub(crate) struct Deliveries {
    wake: Notify,
    flying: Mutex<Flying>,
}

#[derive(Default)]
struct Flying {
    jobs: HashSet<JobId>,
    of_function: HashMap<FunctionId, u32>,
}

impl Flying {
    fn busy(&self) -> Vec<FunctionId> {
        let full = self
            .of_function
            .iter()
            .filter(|(_, count)| **count >= DELIVERIES_OF_ONE_MAX);
        full.map(|(function, _)| *function).collect()
    }

    /// Whether there is room for it, and it is not on its way.
    fn take_off(&mut self, note: &ResultNote) -> bool {
        let of_function = self.of_function.entry(note.function).or_default();
        let room = *of_function < DELIVERIES_OF_ONE_MAX && self.jobs.len() < DELIVERIES_MAX as usize;
        let starts = room && self.jobs.insert(note.job);
        *of_function += u32::from(starts);
        starts
    }

    fn land(&mut self, note: &ResultNote) {
        self.jobs.remove(&note.job);
        if let Some(count) = self.of_function.get_mut(&note.function) {
            *count -= 1;
            if *count == 0 {
                self.of_function.remove(&note.function);
            }
        }
    }
}

/// Notes what becomes of the result of a job that ended, before the job itself is written.
pub(crate) fn begin(calls: &Calls, function: &Function, job: &Job) -> Answer<()> {
    // A rerun's result is there to be compared, nobody waits for it.
    let Some(policy) = function.policy.results.as_ref().filter(|_| job.rerun_of.is_none()) else {
        return Ok(());
    };
    let state = match (&policy.sealed_sink, &job.output) {
        (Some(_), Some(_)) => ResultState::Delivering,
        (Some(_), None) if policy.hears_of_failures => ResultState::Delivering,
        (None, Some(_)) if policy.ttl_s.is_some() => ResultState::Kept,
        (Some(_) | None, _) => return Ok(()),
    };
    let note = ResultNote {
        job: job.id,
        function: function.id,
        state,
        attempts: 0,
        next_at_ms: 0,
        expires_at_ms: policy
            .ttl_s
            .map(|ttl_s| job.created_at_ms.saturating_add(ttl_s.saturating_mul(1_000))),
        detail: String::new(),
    };
    calls.ground.store.begin_result(note).map_err(store)
}

/// The job that was noted is written.
pub(crate) fn ended(calls: &Calls, function: &Function) {
    if function.policy.results.is_some() {
        calls.deliveries.wake.notify_one();
    }
}

/// Delivers what is due and lets expire what is over, until shutdown.
pub(crate) async fn run(calls: Arc<Calls>) {
    loop {
        if let Err(refusal) = look(&calls).await {
            tracing::warn!(%refusal, "the store does not answer; results wait for delivery");
        }
        tokio::select! {
            () = calls.ground.shutdown.cancelled() => return,
            () = calls.deliveries.wake.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn look(calls: &Arc<Calls>) -> Answer<()> {
    let now = now_ms();
    for note in calls
        .ground
        .store
        .expired_results(now, EXPIRED_AT_ONCE)
        .await
        .map_err(store)?
    {
        expire(calls, note).await?;
    }
    let busy = calls.deliveries.flying.lock().busy();
    for note in calls
        .ground
        .store
        .due_results(now, &busy, LOOKED_AT)
        .await
        .map_err(store)?
    {
        if !calls.deliveries.flying.lock().take_off(&note) {
            continue;
        }
        let owned = calls.clone();
        calls.ground.tasks.spawn(async move {
            let delivered = tokio::select! {
                delivered = deliver(&owned, note.clone()) => delivered,
                // It stays owed: the next start takes it up.
                () = owned.ground.shutdown.cancelled() => Ok(()),
            };
            if let Err(refusal) = delivered {
                tracing::warn!(job = %note.job, %refusal, "the store does not answer; a result waits for delivery");
            }
            owned.deliveries.flying.lock().land(&note);
            owned.deliveries.wake.notify_one();
        });
    }
    Ok(())
}

async fn expire(calls: &Calls, note: ResultNote) -> Answer<()> {
    let expired = ResultNote {
        state: ResultState::Expired,
        ..note
    };
    calls.ground.store.note_result(&expired, false).await.map_err(store)
}

async fn deliver(calls: &Calls, note: ResultNote) -> Answer<()> {
    let now = now_ms();
    if note.expires_at_ms.is_some_and(|at_ms| at_ms <= now) {
        return expire(calls, note).await;
    }
    let job = calls.ground.store.job(note.job).await.map_err(store)?;
    let Some(job) = job.filter(|job| job.state.is_final()) else {
        return not_there(calls, note, now).await;
    };
    let function = calls.ground.store.function_ever(note.function).await.map_err(store)?;
    let policy = function.and_then(|(function, _)| function.policy.results);
    let Some(sink) = sinks::open(&calls.functions, note.function, policy.as_ref())? else {
        return give_up(calls, note, "its function has no sink any more").await;
    };
    let parcel = parcel(&job)?;
    let said = calls.functions.sinks.deliver(&sink, &parcel).await;
    let attempts = note.attempts + 1;
    let note = ResultNote { attempts, ..note };
    match said {
        Ok(()) => {
            calls.ground.telemetry.results_delivered.inc();
            let delivered = ResultNote {
                state: ResultState::Delivered,
                detail: sink.shown(),
                ..note
            };
            calls.ground.store.note_result(&delivered, false).await.map_err(store)
        }
        Err(undelivered) => put_off(calls, note, &job, &undelivered).await,
    }
}

/// The note is older than its job, by a moment or for ever.
async fn not_there(calls: &Calls, note: ResultNote, now: u64) -> Answer<()> {
    if now.saturating_sub(note.job.created_at_ms()) > ORPHANED_AFTER_MS
        && calls.ground.store.job(note.job).await.map_err(store)?.is_none()
    {
        return give_up(calls, note, "the job died before anybody was answered").await;
    }
    let later = ResultNote {
        next_at_ms: now + BACK_OFF_FIRST_MS,
        ..note
    };
    calls.ground.store.note_result(&later, true).await.map_err(store)
}

async fn put_off(calls: &Calls, note: ResultNote, job: &Job, why: &Undelivered) -> Answer<()> {
    let now = now_ms();
    let window = u64::try_from(calls.ground.tuning.delivery_window.as_millis()).unwrap_or(u64::MAX);
    if why.is_final() || now.saturating_sub(job.created_at_ms) > window {
        return give_up(calls, note, &why.to_string()).await;
    }
    let wait = back_off_ms(note.attempts);
    let later = ResultNote {
        next_at_ms: now + wait + rand::rng().random_range(0..=wait / 4),
        detail: why.to_string(),
        ..note
    };
    calls.ground.store.note_result(&later, true).await.map_err(store)
}

async fn give_up(calls: &Calls, note: ResultNote, why: &str) -> Answer<()> {
    tracing::warn!(job = %note.job, why, attempts = note.attempts, "a sink did not accept a result; the result stays with the job");
    calls.ground.telemetry.results_undelivered.inc();
    let undelivered = ResultNote {
        state: ResultState::Undelivered,
        detail: why.to_owned(),
        ..note
    };
    calls.ground.store.note_result(&undelivered, true).await.map_err(store)
}

/// Twice as long each time, up to an hour.
fn back_off_ms(attempts: u32) -> u64 {
    let doubled = BACK_OFF_FIRST_MS.checked_shl(attempts.saturating_sub(1).min(32));
    doubled.unwrap_or(u64::MAX).min(BACK_OFF_LONGEST_MS)
}

fn parcel(job: &Job) -> Answer<Parcel> {
    let output = job.output.clone().map(Bytes::from);
    let of_output = || Digest::of(output.as_deref().unwrap_or_default());
    let digest = job
        .settlement
        .as_ref()
        .map_or_else(of_output, |settlement| settlement.output);
    let raw = |text: &[u8]| -> Answer<Box<RawValue>> { codecs::from_json(text) };
    let report = json!({
        "job_id": job.id,
        "function": job.function_name,
        "function_id": job.function,
        "version": job.version,
        "state": job.state,
        "created_at": timestamp(job.created_at_ms),
        "duration_ms": shown::ms(job.duration_us),
        "price_ucr": Credits::from(job.price_ucr),
        "output_digest": digest,
        "output": output.as_deref().map(raw).transpose()?,
        "error": job.error.as_ref().map(|error| raw(error.as_bytes())).transpose()?,
    });
    Ok(Parcel {
        job: job.id,
        digest,
        output,
        report: report.to_string().into(),
    })
}

/// Where a job's result is; `None` where it is with the job as usual.
pub(crate) async fn view(calls: &Calls, job: JobId) -> Answer<Option<ResultView>> {
    let note = calls.ground.store.result(job).await.map_err(store)?;
    Ok(note.map(|note| ResultView {
        state: state(&note),
        attempts: note.attempts,
        detail: Some(note.detail).filter(|detail| !detail.is_empty()),
        expires_at: note.expires_at_ms.map(timestamp),
    }))
}

/// Expired is what is over, also where it has not been taken away yet.
fn state(note: &ResultNote) -> ResultState {
    let over = note.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms());
    match note.state {
        ResultState::Kept | ResultState::Undelivered if over => ResultState::Expired,
        state => state,
    }
}

/// What a job that ended put out. Refuses with the job's own error, with `job.not_finished`, and where the output is not here
/// with `result.expired`, `result.elsewhere` or `result.not_kept`.
pub(crate) async fn output(calls: &Calls, job: &Job) -> Answer<Bytes> {
    if !job.state.is_final() {
        return Err(Box::new(
            Refusal::new(Code::JobNotFinished, "the job has not ended")
                .hint("GET /jobs/{id}?wait_ms=60000 waits for its end")
                .job(job.id),
        ));
    }
    if let Some(error) = &job.error {
        return Err(Box::new(codecs::from_json::<Refusal>(error.as_bytes())?.job(job.id)));
    }
    let view = view(calls, job.id).await?;
    let missing = |code, message: String| Err(Box::new((*refusal(code, &message)).job(job.id)));
    match (view.as_ref().map(|view| view.state), &job.output) {
        (Some(ResultState::Expired), _) => missing(
            Code::ResultExpired,
            "the result was kept as long as it should be".into(),
        ),
        (_, Some(output)) => Ok(output.clone().into()),
        (Some(ResultState::Delivered), None) => {
            let to = view.and_then(|view| view.detail).unwrap_or_default();
            missing(
                Code::ResultElsewhere,
                format!("the result was delivered to {to} and is not kept here"),
            )
        }
        (Some(ResultState::Dropped), None) => missing(
            Code::ResultNotKept,
            "the output is not kept: the account's stored outputs took more room than they may".into(),
        ),
        (_, None) => missing(
            Code::ResultNotKept,
            "an output of this size is kept for asynchronous jobs only".into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_an_hour() {
        let waits: Vec<u64> = [1, 2, 3, 12, 13, 40, u32::MAX].map(back_off_ms).into();
        assert_eq!(waits, [1_000, 2_000, 4_000, 2_048_000, 3_600_000, 3_600_000, 3_600_000]);
    }

    #[test]
    fn a_slow_sink_holds_up_no_other() {
        let note = |function: u8, job: u8| ResultNote {
            job: JobId::new(1, [job; 10]),
            function: FunctionId([function; 12]),
            state: ResultState::Delivering,
            attempts: 0,
            next_at_ms: 0,
            expires_at_ms: None,
            detail: String::new(),
        };
        let mut flying = Flying::default();
        let slow: Vec<ResultNote> = (0..10).map(|job| note(1, job)).collect();
        let started = slow.iter().filter(|note| flying.take_off(note)).count();
        assert_eq!(
            (started as u32, flying.busy()),
            (DELIVERIES_OF_ONE_MAX, vec![FunctionId([1; 12])])
        );
        assert!(flying.take_off(&note(2, 100)));
        assert!(!flying.take_off(&note(2, 100)), "it is on its way");
        flying.land(&slow[0]);
        assert!(flying.busy().is_empty() && flying.take_off(&slow[9]));
    }
}
