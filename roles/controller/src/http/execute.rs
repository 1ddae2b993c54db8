//! `/execute/{id}`: one invocation, answered when it is done or, on request, as soon as it is safe.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use piecework_api::{
    accounts::Scope,
    errors::{ErrorBody, Refusal},
    execute::{Accepted, Execute, Executed, RunCode},
    routes,
    server::aside,
};
use piecework_model::{AccountId, Code, Digest, JobId};
use piecework_store::{Accepted as Claim, AcceptedJob, Idempotency, Job};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Authenticated, HttpError, HttpResult, INPUT_BYTES_MAX, Path, Shared, UPLOAD_BYTES_MAX, plain, read_body, streaming,
};
use crate::{
    Controller,
    accounts::auth::Caller,
    calls::{
        finishing::Finishing,
        invoke::{self, Done, Invocation, Purpose},
        passing, queue, results,
        streams::{Answering, Streams},
    },
    clock::now_ms,
    failure::{failed, refusal, refuse, store},
    functions::{self, Live, budget, unsaved},
    money::leases,
};

/// A synchronous caller waits this long for a provider to begin, unless its `X-Deadline-Ms` says otherwise.
const DEADLINE_MS: u64 = 30_000;
/// Milliseconds from now until which the job must have begun.
const DEADLINE_HEADER: &str = "x-deadline-ms";
const DEADLINE_MS_MAX: u64 = 86_400_000;

/// Runs the function once. `Prefer: respond-async` answers 202 as soon as the job is durable; `Idempotency-Key` makes a
/// repetition answer what the first one did; `X-Deadline-Ms` bounds the wait for a provider. What the function streams is
/// collected into `output`, up to the output limit. With `Prefer: respond-stream`, and without an `Idempotency-Key`, it is
/// the answer's body as it comes; then `Preference-Applied: respond-stream` is on the answer, and a job that fails in the
/// middle breaks the connection off.
#[utoipa::path(post, path = routes::EXECUTE, tag = "jobs", request_body = Execute,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header), ("Prefer" = Option<String>, Header),
        ("X-Deadline-Ms" = Option<u64>, Header)),
    responses((status = 200, body = Executed), (status = 202, body = Accepted), (status = "default", body = ErrorBody)))]
pub(super) async fn execute(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> HttpResult<Response> {
    let caller = authenticated.with(Scope::Invoke)?;
    let live = functions::callable(&controller.functions, caller, &id).await?;
    let is_owner = live.function.owner == caller.account;
    let answered = called(&controller, caller, live, &headers, body).await;
    answered.map_err(|HttpError(refusal)| match is_owner {
        true => HttpError(refusal),
        false => HttpError(plain::for_strangers(refusal)),
    })
}

async fn called(
    controller: &Arc<Controller>,
    caller: &Caller,
    live: Arc<Live>,
    headers: &HeaderMap,
    body: Body,
) -> HttpResult<Response> {
    let body: Execute = read_body(body, INPUT_BYTES_MAX).await?;
    let event = Bytes::from(Box::<str>::from(body.input).into_string());
    let parameters = body.parameters.map_or(Bytes::from_static(b"null"), |text| {
        Box::<str>::from(text).into_string().into()
    });
    if caller.account != live.function.owner {
        check_is_no_tick(&event).await?;
    }
    let idempotency = idempotency(caller, headers, &event, &parameters)?;
    let deadline = deadline_ms(headers)?;
    let now = now_ms();
    let invocation = Invocation {
        id: invoke::new_job_id(now),
        live,
        event,
        parameters,
        idempotency,
        deadline_ms: now + deadline.unwrap_or(DEADLINE_MS),
        created_at_ms: now,
        accepted: false,
        purpose: Purpose::Call,
        caller: Some(caller.account),
        moved: None,
        wall: None,
        streams: Streams::default(),
    };
    if wants(headers, routes::RESPOND_ASYNC) {
        invocation.live.check_takes_calls()?;
        budget::check(&controller.functions, &invocation.live).await?;
        return accept(controller, caller, invocation, deadline).await;
    }
    if wants(headers, routes::RESPOND_STREAM) && invocation.idempotency.is_none() {
        return as_it_comes(controller.clone(), invocation).await;
    }
    let done = match invocation.idempotency.clone() {
        Some(key) => once(controller, invocation, key).await?,
        None => invoke::run(controller.calls.clone(), invocation).await?,
    };
    answer(done)
}

/// Runs code once that is not deployed, and stays so: no function and no version is made. Its run is a job like any other, at the caller's
/// expense, recorded with the digest of the code. With `function`, it has the settings, variables and secrets of that function of the
/// caller's, of its live version or of `version`; without `code` and `bundle`, that version's code as well. Only what is given differs.
/// Packages are resolved and the code is loaded first, which counts as a deploy does.
#[utoipa::path(post, path = routes::RUN_CODE, tag = "jobs", request_body = RunCode, params(("X-Deadline-Ms" = Option<u64>, Header)),
    responses((status = 200, body = Executed), (status = "default", body = ErrorBody)))]
pub(super) async fn run_code(
    State(controller): Shared,
    authenticated: Authenticated,
    headers: HeaderMap,
    body: Body,
) -> HttpResult<Response> {
    authenticated.with(Scope::Deploy)?;
    let caller = authenticated.with(Scope::Invoke)?;
    let deadline = deadline_ms(&headers)?.unwrap_or(DEADLINE_MS);
    let mut body: RunCode = read_body(body, UPLOAD_BYTES_MAX).await?;
    let input = std::mem::replace(&mut body.input, RawValue::NULL.to_owned());
    let event = Bytes::from(Box::<str>::from(input).into_string());
    let parameters = body.parameters.take().map_or(Bytes::from_static(b"null"), |text| {
        Box::<str>::from(text).into_string().into()
    });
    if event.len() + parameters.len() > INPUT_BYTES_MAX {
        return Ok(refuse(Code::BodyTooLarge, "input and parameters have at most 6 MiB")?);
    }
    leases::check_any(&controller.money, caller.account).await?;
    let (live, trying) = unsaved::load(&controller.functions, caller, body).await?;
    let mut invocation = plain_invocation(live, event, Some(caller.account));
    invocation.deadline_ms = now_ms() + deadline;
    invocation.parameters = parameters;
    let calls = controller.calls.clone();
    // The run goes on without its client, and so does what keeps and counts its code.
    let running = Finishing::new(controller.ground.tasks.clone(), async move {
        let _trying = trying;
        invoke::run(calls, invocation).await
    });
    answer(running.await?)
}

/// Refuses with `auth.role`, whatever the function's contract: which version takes the call is drawn later.
async fn check_is_no_tick(event: &Bytes) -> HttpResult<()> {
    let event = event.clone();
    match aside(event.len(), move || may_be_tick(&event)).await? {
        true => Ok(refuse(
            Code::AuthRole,
            "the event could be that of a schedule: only the function's owner and its schedules may call `scheduled()`",
        )?),
        false => Ok(()),
    }
}

/// By what a module for Workers knows the event of a schedule.
#[derive(Deserialize)]
struct Tick<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, rename = "scheduledTime")]
    scheduled_time: Option<&'a RawValue>,
}

/// Whether a module for Workers may take this event for that of a schedule. An object that is not read here counts: JavaScript reads
/// names with half a surrogate pair, and takes the last of two fields.
fn may_be_tick(event: &[u8]) -> bool {
    if !event.trim_ascii_start().starts_with(b"{") {
        return false;
    }
    let Ok(tick) = serde_json::from_slice::<Tick<'_>>(event) else {
        return true;
    };
    let kind = tick
        .kind
        .and_then(|kind| serde_json::from_str::<String>(kind.get()).ok());
    let is_number = |value: &RawValue| {
        value
            .get()
            .starts_with(|first: char| first == '-' || first.is_ascii_digit())
    };
    kind.as_deref() == Some("scheduled") && tick.scheduled_time.is_some_and(is_number)
}

/// The stream's own head is for a URL of the function's: here its type is all that counts.
async fn as_it_comes(controller: Arc<Controller>, mut invocation: Invocation) -> HttpResult<Response> {
    let (passing, passed) = passing::channel(false);
    invocation.streams.answer = Answering::Pass(passing);
    let unary = |done| std::future::ready(answer(done));
    let streaming::Responded {
        mut response,
        is_stream,
    } = streaming::respond(controller, invocation, (passed, false), unary).await?;
    if is_stream {
        *response.status_mut() = StatusCode::OK;
        let headers = response.headers_mut();
        let kept = [header::CONTENT_TYPE, HeaderName::from_static(routes::JOB_ID_HEADER)];
        let kept = kept.map(|name| headers.remove(&name).map(|value| (name, value)));
        *headers = kept.into_iter().flatten().collect();
        headers.insert("preference-applied", HeaderValue::from_static(routes::RESPOND_STREAM));
    }
    Ok(response)
}

fn wants(headers: &HeaderMap, preference: &str) -> bool {
    headers.get_all("prefer").iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case(preference)))
    })
}

/// The `Idempotency-Key`, bound to the caller and to what is asked.
pub(super) fn idempotency(
    caller: &Caller,
    headers: &HeaderMap,
    event: &[u8],
    parameters: &[u8],
) -> HttpResult<Option<Idempotency>> {
    const KEY_LENGTH_MAX: usize = 200;
    let Some(value) = headers.get(routes::IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=KEY_LENGTH_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            let request = Digest::of_value("piecework 2026 idempotent request", &(event, parameters));
            Ok(Some(Idempotency {
                account: caller.account,
                key: key.to_owned(),
                request,
            }))
        }
        _ => Ok(refuse(
            Code::IdempotencyBadKey,
            "a key is 1 to 200 visible ASCII characters",
        )?),
    }
}

fn deadline_ms(headers: &HeaderMap) -> HttpResult<Option<u64>> {
    let Some(value) = headers.get(DEADLINE_HEADER) else {
        return Ok(None);
    };
    match value.to_str().ok().and_then(|text| text.parse::<u64>().ok()) {
        Some(ms) if (1..=DEADLINE_MS_MAX).contains(&ms) => Ok(Some(ms)),
        _ => Ok(refuse(
            Code::QueryMalformed,
            "X-Deadline-Ms is a whole number from 1 to 86400000",
        )?),
    }
}

async fn accept(
    controller: &Arc<Controller>,
    caller: &Caller,
    invocation: Invocation,
    deadline_ms: Option<u64>,
) -> HttpResult<Response> {
    let Invocation {
        id,
        live,
        event,
        parameters,
        idempotency,
        created_at_ms,
        ..
    } = invocation;
    let timeout = u64::try_from(controller.ground.tuning.queue_timeout.as_millis()).unwrap_or(u64::MAX);
    let job = AcceptedJob {
        id,
        function: live.function.id,
        function_name: live.function.name.clone(),
        version: live.version.version,
        developer: live.function.owner,
        caller: caller.account,
        input: event,
        parameters: String::from_utf8(parameters.to_vec()).map_err(|error| failed("read parameters", &error))?,
        created_at_ms,
        deadline_ms: created_at_ms.saturating_add(deadline_ms.unwrap_or(timeout)),
        idempotency,
    };
    let job_id = queue::accept(&controller.calls, job).await?;
    let mut response = (StatusCode::ACCEPTED, Json(Accepted { job_id })).into_response();
    let location = format!("/jobs/{job_id}");
    response.headers_mut().insert(
        header::LOCATION,
        HeaderValue::try_from(location).expect("an id is visible ASCII"),
    );
    Ok(response)
}

/// Runs the job unless the key was used before: then waits for that job and answers what it did.
async fn once(controller: &Arc<Controller>, invocation: Invocation, key: Idempotency) -> HttpResult<Done> {
    let (function, id) = (invocation.live.function.id, invocation.id);
    match controller
        .ground
        .store
        .reserve_idempotency(function, &key, id)
        .await
        .map_err(store)?
    {
        Claim::New => match invoke::run(controller.calls.clone(), invocation).await {
            Ok(done) => Ok(done),
            Err(refused) => {
                controller.ground.store.release_idempotency(function, &key, id);
                Err(refused.into())
            }
        },
        Claim::IdempotencyConflict => Ok(refuse(
            Code::IdempotencyConflict,
            "the idempotency key was used with another request",
        )?),
        Claim::Existing(earlier) => {
            controller.calls.inflight.ended(earlier).await;
            match controller.ground.store.job(earlier).await.map_err(store)? {
                Some(job) if job.state.is_final() => {
                    if job.error.is_none() && job.output.is_none() {
                        // It went to the function's sink, or has expired: said so.
                        results::output(&controller.calls, &job).await?;
                    }
                    Ok(done(job)?)
                }
                Some(_) | None => Ok(refuse(
                    Code::ServerBusy,
                    "the first call with this key has not ended yet",
                )?),
            }
        }
    }
}

fn done(job: Job) -> crate::Answer<Done> {
    let error: Option<Refusal> = job
        .error
        .as_ref()
        .map(|text| crate::codecs::from_json(text.as_bytes()))
        .transpose()?;
    Ok(Done {
        id: job.id,
        output: job.output.map(Bytes::from),
        error: error.map(Box::new),
        cold: job.cold,
        duration_us: job.duration_us,
        price_ucr: job.price_ucr,
    })
}

/// Written by hand: the output is JSON text already and may be large.
fn answer(done: Done) -> HttpResult<Response> {
    let job_header = job_header(done.id);
    if let Some(error) = done.error {
        return Err(HttpError(error));
    }
    let Some(output) = done.output else {
        return Err(HttpError(refusal(
            Code::ServerFailed,
            "the output of this job was not kept",
        )));
    };
    let mut body = Vec::with_capacity(output.len() + 160);
    body.extend_from_slice(br#"{"job_id":""#);
    body.extend_from_slice(job_header.as_bytes());
    body.extend_from_slice(br#"","output":"#);
    body.extend_from_slice(&output);
    let rest = format!(
        r#","cold":{},"duration_ms":{},"price_ucr":{}}}"#,
        done.cold,
        done.duration_us as f64 / 1_000.0,
        serde_json::to_string(&piecework_model::Credits::from(done.price_ucr)).unwrap_or_default(),
    );
    body.extend_from_slice(rest.as_bytes());
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(routes::JOB_ID_HEADER, job_header);
    Ok(response)
}

pub(super) fn job_header(id: JobId) -> HeaderValue {
    HeaderValue::try_from(id.to_string()).expect("an id is visible ASCII")
}

/// The deadline of a call at a plain URL.
pub(super) fn plain_invocation(live: Arc<Live>, event: Bytes, caller: Option<AccountId>) -> Invocation {
    let now = now_ms();
    Invocation {
        id: invoke::new_job_id(now),
        live,
        event,
        parameters: Bytes::from_static(b"null"),
        idempotency: None,
        deadline_ms: now + DEADLINE_MS,
        created_at_ms: now,
        accepted: false,
        purpose: Purpose::Call,
        caller,
        moved: None,
        wall: None,
        streams: Streams::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduled_event_is_known_however_it_is_written() {
        let deep = format!(
            "{{\"a\":{}1{},\"scheduledTime\":0,\"type\":\"scheduled\"}}",
            "[".repeat(400),
            "]".repeat(400)
        );
        for event in [
            r#"{"type":"scheduled","scheduledTime":1}"#,
            r#" { "scheduledTime" : -1.5e3 , "type" : "scheduled" }"#,
            r#"{"type":1,"type":"scheduled","scheduledTime":0}"#,
            r#"{"t\u0079pe":"s\u0063heduled","scheduledTime":0}"#,
            r#"{"\ud800":1,"type":"scheduled","scheduledTime":0}"#,
            r#"{"type":"scheduled","scheduledTime":0,"\udc00\ud800":{}}"#,
            r#"{"a":"\ud800","type":"scheduled","scheduledTime":0}"#,
            &deep,
        ] {
            assert!(may_be_tick(event.as_bytes()), "{event}");
        }
        for event in [
            r#"{"type":"scheduled"}"#,
            r#"{"type":"scheduled","scheduledTime":"2026-01-01"}"#,
            r#"{"type":"scheduled","scheduledTime":null}"#,
            r#"{"type":"\ud800","scheduledTime":0}"#,
            r#"{"type":["scheduled"],"scheduledTime":0}"#,
            r#"{"event":{"type":"scheduled","scheduledTime":0}}"#,
            r#"["scheduled",0]"#,
            r#""{\"type\":\"scheduled\",\"scheduledTime\":0}""#,
            "{}",
            "1",
        ] {
            assert!(!may_be_tick(event.as_bytes()), "{event}");
        }
    }
}
