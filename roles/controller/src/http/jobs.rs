//! `/jobs`: a job's record, its history on the ledger, its logs; cancelling.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use piecework_api::{
    accounts::Scope,
    errors::ErrorBody,
    jobs::{JobEvent, JobEventKind, JobLogs, JobLogsQuery, JobQuery, JobView, JobsQuery, LogLevel, Movement},
    page::{List, PageQuery},
    results::{ResultState, ResultView},
    routes,
};
use piecework_model::{BackendName, Code, Credits, JobId, JobState, LeaseId};
use piecework_store::{Job, JobFilter, JobStep, Page};

use super::{Authenticated, HttpResult, Path, Query, Shared};
use crate::{
    Answer, Controller,
    accounts::{audit, auth::Caller},
    calls::{logs as job_logs, queue, results},
    clock::timestamp,
    failure::{refuse, rejected, store},
    functions,
    http::views,
    money::follow,
};

const WAIT_MS_MAX: u32 = 60_000;

fn not_found<T>(id: &str) -> Answer<T> {
    refuse(Code::JobNotFound, format!("you have no job with the id `{id}`"))
}

/// The record, from the store or, while it runs, from the list of those on their way.
async fn find(controller: &Controller, caller: &Caller, id: &str) -> Answer<Job> {
    let Ok(job_id) = id.parse::<JobId>() else {
        return not_found(id);
    };
    let stored = controller.ground.store.job(job_id).await.map_err(store)?;
    let flying = || {
        controller
            .calls
            .inflight
            .get(job_id)
            .map(|flight| flight.queued.lock().clone())
    };
    let job = match stored {
        Some(job) if job.state.is_final() => Some(job),
        other => flying().or(other),
    };
    match job {
        Some(job) if functions::sees(caller, job.developer) => {
            if job.developer != caller.account {
                audit::read(&controller.accounts, caller.account, job.developer, job.id).await?;
            }
            Ok(job)
        }
        Some(_) | None => not_found(id),
    }
}

/// Lists the caller's jobs, newest first.
#[utoipa::path(get, path = routes::JOBS, tag = "jobs", params(JobsQuery), responses(
    (status = 200, body = List<JobView>), (status = "default", body = ErrorBody)))]
pub(super) async fn list(
    State(controller): Shared,
    authenticated: Authenticated,
    Query(query): Query<JobsQuery>,
) -> HttpResult<Json<List<JobView>>> {
    let caller = authenticated.with(Scope::View)?;
    let function = match &query.function {
        Some(function) => Some(
            functions::own(&controller.functions, caller, function)
                .await?
                .function
                .id,
        ),
        None => None,
    };
    let state: Option<JobState> = query.state.as_deref().map(str::parse).transpose().map_err(rejected)?;
    let before = match query.cursor.as_deref().map(str::parse::<JobId>) {
        Some(Err(_)) => return Ok(refuse(Code::CursorMalformed, "pass the `next` of a page as cursor")?),
        Some(Ok(id)) => Some(id),
        None => None,
    };
    let limit = PageQuery {
        limit: query.limit,
        cursor: None,
    }
    .limit();
    let filter = JobFilter {
        developer: caller.account,
        function,
        state,
        before,
        limit,
    };
    // Before the store is asked: a job that ends in between is in both, not in neither.
    let flying = flying(&controller, &filter);
    let page = controller.ground.store.list_jobs(&filter).await.map_err(store)?;
    let mut next = page.next;
    let mut jobs = merged(flying, page);
    if jobs.len() > limit as usize {
        jobs.truncate(limit as usize);
        next = jobs.last().map(|job| job.id);
    }
    let mut items = Vec::with_capacity(jobs.len());
    for job in &jobs {
        items.push(views::job(&controller, job).await?);
    }
    Ok(Json(List {
        items,
        next: next.map(|id| id.to_string()),
    }))
}

fn flying(controller: &Controller, filter: &JobFilter) -> Vec<Job> {
    controller.calls.inflight.list(|job| {
        job.developer == filter.developer
            && filter.function.is_none_or(|function| job.function == function)
            && filter.state.is_none_or(|state| job.state == state)
            && filter.before.is_none_or(|before| job.id < before)
    })
}

/// The page with those of its range that are on their way, newest first.
fn merged(flying: Vec<Job>, page: Page<Job, JobId>) -> Vec<Job> {
    let in_range = |job: &Job| page.next.is_none_or(|last| job.id > last);
    let flying = flying.into_iter().filter(in_range);
    let mut jobs: BTreeMap<JobId, Job> = flying.map(|job| (job.id, job)).collect();
    for job in page.items {
        if job.state.is_final() || !jobs.contains_key(&job.id) {
            jobs.insert(job.id, job);
        }
    }
    jobs.into_values().rev().collect()
}

/// Shows a job. With `wait_ms`, waits for it to finish.
#[utoipa::path(get, path = routes::JOB, tag = "jobs", params(("id" = String, Path), JobQuery), responses(
    (status = 200, body = JobView), (status = "default", body = ErrorBody)))]
pub(super) async fn show(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
    Query(query): Query<JobQuery>,
) -> HttpResult<Json<JobView>> {
    let caller = authenticated.with(Scope::View)?;
    let mut job = find(&controller, caller, &id).await?;
    if let Some(wait_ms) = query.wait_ms.filter(|_| !job.state.is_final()) {
        let wait = Duration::from_millis(u64::from(wait_ms.min(WAIT_MS_MAX)));
        // Elapsed or ended: the record as it is then is the answer either way.
        let _ = tokio::time::timeout(wait, controller.calls.inflight.ended(job.id)).await;
        job = find(&controller, caller, &id).await?;
    }
    let mut view = views::whole_job(&controller, &job).await?;
    view.result = results::view(&controller.calls, job.id).await?;
    let gone = |result: &ResultView| matches!(result.state, ResultState::Delivered | ResultState::Expired);
    if view.result.as_ref().is_some_and(gone) {
        // It may have gone since the record was read.
        view.output = None;
    }
    Ok(Json(view))
}

/// Returns the function's output unchanged, or the error if the job failed.
#[utoipa::path(get, path = routes::JOB_RESULT, tag = "jobs", params(("id" = String, Path)), responses(
    (status = 200, body = serde_json::Value), (status = "default", body = ErrorBody)))]
pub(super) async fn result(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
) -> HttpResult<Response> {
    let job = find(&controller, authenticated.with(Scope::View)?, &id).await?;
    let output = results::output(&controller.calls, &job).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], output).into_response())
}

/// Cancels a job that has not finished. What it has used so far is billed.
#[utoipa::path(delete, path = routes::JOB, tag = "jobs", params(("id" = String, Path)), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(super) async fn cancel(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
) -> HttpResult<StatusCode> {
    let caller = authenticated.with(Scope::Invoke)?;
    let job = find(&controller, caller, &id).await?;
    let was_under_way = queue::cancel(&controller.calls, job.id).await;
    // Left to the next start by a shutdown: it ends here.
    let was_left = controller.ground.store.cancel(job.id).await.map_err(store)?.is_some();
    match was_under_way || was_left {
        true => Ok(StatusCode::NO_CONTENT),
        false => Ok(refuse(
            Code::JobFinished,
            "the job has finished and cannot be cancelled",
        )?),
    }
}

/// Shows a job's logs.
#[utoipa::path(get, path = routes::JOB_LOGS, tag = "jobs", params(("id" = String, Path), JobLogsQuery), responses(
    (status = 200, body = JobLogs), (status = "default", body = ErrorBody)))]
pub(super) async fn logs(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
    Query(query): Query<JobLogsQuery>,
) -> HttpResult<Json<JobLogs>> {
    let job = find(&controller, authenticated.with(Scope::View)?, &id).await?;
    let kept = controller
        .ground
        .store
        .logs(job.id)
        .await
        .map_err(store)?
        .unwrap_or_default();
    let read = job_logs::read(&kept, job.created_at_ms, query.level.unwrap_or(LogLevel::Debug));
    Ok(Json(JobLogs {
        job_id: job.id,
        truncated: read.truncated,
        text: read.text,
        lines: read.lines,
    }))
}

/// Lists a job's steps, oldest first.
#[utoipa::path(get, path = routes::JOB_HISTORY, tag = "jobs", params(("id" = String, Path)), responses(
    (status = 200, body = List<JobEvent>), (status = "default", body = ErrorBody)))]
pub(super) async fn history(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
) -> HttpResult<Json<List<JobEvent>>> {
    let job = find(&controller, authenticated.with(Scope::View)?, &id).await?;
    Ok(Json(List::all(events(&controller, &job).await?)))
}

/// A job as the ledger tells it from others.
fn named(job: &Job) -> (JobId, Option<LeaseId>) {
    (job.id, job.settlement.as_ref().map(|settlement| settlement.lease))
}

async fn events(controller: &Controller, job: &Job) -> Answer<Vec<JobEvent>> {
    let places = follow::places_of(&controller.money, named(job), job.paid_height).await?;
    let event = |kind, at_ms: u64, detail: Option<String>| {
        let place = ledger_step(kind).and_then(|step| places.get(&step));
        JobEvent {
            event: kind,
            at: timestamp(at_ms),
            height: place.map(|place| place.height),
            block_at: place.map(|place| timestamp(place.at_ms)),
            transaction: place.map(|place| place.transaction.to_string()),
            detail,
            moved: Vec::new(),
        }
    };
    let queued_ms = job.queued_us / 1_000;
    let ended_ms = job.created_at_ms + queued_ms + (job.pull_us + job.duration_us) / 1_000;
    let mut events = vec![event(JobEventKind::Opened, job.created_at_ms, None)];
    if let Some(provider) = job.provider {
        let backend = job.backend.map_or("", BackendName::as_str);
        let chosen = format!("{} in {backend}", controller.ground.account_name(provider).await);
        events.push(event(
            JobEventKind::Assigned,
            job.created_at_ms + queued_ms,
            Some(chosen),
        ));
    }
    if job.settlement.is_some() {
        let counted = format!(
            "{} us of CPU, {} byte-ms of memory, {} bytes sent: {} ucr",
            job.counters.cpu_us, job.counters.memory_byte_ms, job.counters.egress_bytes, job.price_ucr
        );
        events.push(event(JobEventKind::Metered, ended_ms, Some(counted)));
    }
    let failure = match job.state {
        JobState::Failed => Some(JobEventKind::Failed),
        JobState::TimedOut => Some(JobEventKind::TimedOut),
        JobState::Cancelled => Some(JobEventKind::Cancelled),
        JobState::Expired => Some(JobEventKind::Expired),
        JobState::Queued | JobState::Running | JobState::Succeeded => None,
    };
    if let Some(kind) = failure {
        events.push(event(kind, ended_ms, None));
    }
    if let Some(received_at_ms) = job.settlement.as_ref().and_then(|settlement| settlement.received_at_ms) {
        events.push(event(JobEventKind::Received, received_at_ms, None));
    }
    if let Some(height) = job.paid_height {
        events.push(paid(controller, job, height).await?);
    }
    Ok(events)
}

/// The step that the ledger notes of it, if it does.
fn ledger_step(kind: JobEventKind) -> Option<JobStep> {
    match kind {
        JobEventKind::Opened => Some(JobStep::Opened),
        JobEventKind::Metered => Some(JobStep::Metered),
        JobEventKind::Received => Some(JobStep::Received),
        JobEventKind::Assigned
        | JobEventKind::Paid
        | JobEventKind::Failed
        | JobEventKind::TimedOut
        | JobEventKind::Cancelled
        | JobEventKind::Expired
        | JobEventKind::Claimed
        | JobEventKind::Refunded
        | JobEventKind::Replaced => None,
    }
}

/// The payment as the ledger has it: every amount, adding up to zero.
async fn paid(controller: &Controller, job: &Job, height: u64) -> Answer<JobEvent> {
    let found = follow::payment_of(&controller.money, named(job), height).await?;
    let (transaction, at_ms) = found.map_or((None, job.created_at_ms), |(id, at)| (Some(id.to_string()), at));
    let (price, commission) = (i128::from(job.price_ucr), i128::from(job.commission_ucr.unwrap_or(0)));
    let mut moved = vec![Movement {
        account: controller.ground.account_name(job.developer).await,
        amount_ucr: Credits(-price),
    }];
    if let Some(provider) = job.provider {
        let account = controller.ground.account_name(provider).await;
        moved.push(Movement {
            account,
            amount_ucr: Credits(price - commission),
        });
    }
    if commission > 0 {
        moved.push(Movement {
            account: "commission".into(),
            amount_ucr: Credits(commission),
        });
    }
    Ok(JobEvent {
        event: JobEventKind::Paid,
        at: timestamp(at_ms),
        height: Some(height),
        block_at: Some(timestamp(at_ms)),
        transaction,
        detail: None,
        moved,
    })
}
