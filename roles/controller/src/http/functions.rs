//! `/functions`: deploying, listing, versions, rolling back, quoting, logs.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use piecework_api::{
    accounts::Scope,
    errors::ErrorBody,
    functions::{
        CodeQuery, CodeView, CreateFunction, DeleteQuery, FunctionView, FunctionsQuery, QuoteView, Rollback, SetBudget,
        SetTraffic, TrafficView, UpdateFunction, VersionView,
    },
    jobs::{FunctionLogsItem, FunctionLogsQuery, LogLevel},
    page::{List, PageQuery},
    results::SetResults,
    routes,
};
use piecework_model::{Code, Counters, Credits, FunctionName};
use piecework_store::{Job, JobFilter};

use super::{
    Authenticated, BODY_BYTES_MAX, Created, HttpError, HttpResult, Path, Query, Shared, page, read_body, upload,
};
use crate::{
    Answer, Controller,
    accounts::auth::Caller,
    calls::{finishing::Finishing, logs as job_logs},
    clock::timestamp,
    failure::{blobs, refuse, rejected, store},
    functions::{
        self, Live, as_sent, budget,
        condition::{self, Condition},
        deploy, keeping, sinks, traffic, update,
    },
    http::views,
};

/// A function of the caller's own, named by the path's `{id}`, which this token may see.
pub(super) struct MayView {
    caller: Arc<Caller>,
    live: Arc<Live>,
}

/// A function of the caller's own, named by the path's `{id}`, which this token may change.
pub(super) struct MayDeploy {
    caller: Arc<Caller>,
    live: Arc<Live>,
}

async fn own(parts: &mut Parts, controller: &Arc<Controller>, scope: Scope) -> HttpResult<(Arc<Caller>, Arc<Live>)> {
    let authenticated = Authenticated::from_request_parts(parts, controller).await?;
    let caller = authenticated.with(scope)?;
    let Path(id) = Path::<String>::from_request_parts(parts, controller).await?;
    let live = functions::own(&controller.functions, caller, &id).await?;
    Ok((authenticated.0, live))
}

impl FromRequestParts<Arc<Controller>> for MayView {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> HttpResult<Self> {
        let (caller, live) = own(parts, controller, Scope::View).await?;
        Ok(Self { caller, live })
    }
}

impl FromRequestParts<Arc<Controller>> for MayDeploy {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> HttpResult<Self> {
        let (caller, live) = own(parts, controller, Scope::Deploy).await?;
        caller.needs_developer()?;
        Ok(Self { caller, live })
    }
}

/// Creates a function. The body is JSON, or `multipart/form-data` with the same fields, whose `code` may be a file: source, or a zip
/// or tar of it.
#[utoipa::path(post, path = routes::FUNCTIONS, tag = "functions", request_body = CreateFunction, responses(
    (status = 201, body = FunctionView), (status = "default", body = ErrorBody)))]
pub(super) async fn create(
    State(controller): Shared,
    authenticated: Authenticated,
    headers: HeaderMap,
    body: Body,
) -> HttpResult<Response> {
    let caller = authenticated.with(Scope::Deploy)?;
    caller.needs_developer()?;
    let body: CreateFunction = upload::read(&headers, body).await?;
    let live = deploy::create(&controller.functions, caller, body).await?;
    let mut view = views::function(&controller, &live).await?;
    view.deployed_version = Some(view.version);
    Ok(tagged(&live, Created(view)))
}

/// With the `ETag` that a change can name in `If-Match`.
fn tagged(live: &Live, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    response.headers_mut().insert(header::ETAG, condition::header(live));
    response
}

/// Lists the caller's functions.
#[utoipa::path(get, path = routes::FUNCTIONS, tag = "functions", params(FunctionsQuery), responses(
    (status = 200, body = List<FunctionView>), (status = "default", body = ErrorBody)))]
pub(super) async fn list(
    State(controller): Shared,
    authenticated: Authenticated,
    Query(query): Query<FunctionsQuery>,
) -> HttpResult<Json<List<FunctionView>>> {
    let caller = authenticated.with(Scope::View)?;
    let limit = PageQuery {
        limit: query.limit,
        cursor: None,
    }
    .limit();
    let mut after: Option<FunctionName> = match &query.cursor {
        Some(cursor) => match cursor.parse() {
            Ok(name) => Some(name),
            Err(_) => return Ok(refuse(Code::CursorMalformed, "pass the `next` of a page as cursor")?),
        },
        None => None,
    };
    let part = query.name.as_deref().unwrap_or_default();
    if query.deleted == Some(true) {
        return Ok(Json(deleted(&controller, caller, part).await?));
    }
    let mut items = Vec::new();
    loop {
        let page = controller
            .ground
            .store
            .list_functions(caller.account, part, after.as_ref(), limit - items.len() as u32)
            .await
            .map_err(store)?;
        for function in page.items {
            // One that was deleted in this moment leaves its place to the next.
            if let Some(live) = functions::by_id(&controller.functions, function.id).await? {
                items.push(views::function(&controller, &live).await?);
            }
        }
        after = page.next;
        if after.is_none() || items.len() >= limit as usize {
            break;
        }
    }
    Ok(Json(List {
        items,
        next: after.map(String::from),
    }))
}

async fn deleted(controller: &Controller, caller: &Caller, part: &str) -> Answer<List<FunctionView>> {
    let mut items = Vec::new();
    for (function, deleted_at_ms) in functions::deleted(&controller.functions, caller).await? {
        if function.name.as_str().contains(part) {
            let live = functions::ready_unkept(&controller.functions, function).await?;
            let mut view = views::function(controller, &live).await?;
            view.deleted_at = Some(timestamp(deleted_at_ms));
            items.push(view);
        }
    }
    Ok(List::all(items))
}

/// Shows a function, by name or id. `If-None-Match` with the `ETag` of an earlier response: 304 if nothing has changed.
#[utoipa::path(get, path = routes::FUNCTION, tag = "functions",
    params(("id" = String, Path), ("If-None-Match" = Option<String>, Header)), responses(
    (status = 200, body = FunctionView), (status = 304), (status = "default", body = ErrorBody)))]
pub(super) async fn show(
    State(controller): Shared,
    MayView { live, .. }: MayView,
    headers: HeaderMap,
) -> HttpResult<Response> {
    if condition::is_known(&headers, &live) {
        return Ok(tagged(&live, StatusCode::NOT_MODIFIED));
    }
    let view = views::function(&controller, &live).await?;
    Ok(tagged(&live, Json(view)))
}

/// Creates a new version of a function, or changes only what its versions share. `If-Match` with the `ETag` of an earlier
/// response: 412 if the function has changed since.
#[utoipa::path(put, path = routes::FUNCTION, tag = "functions",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = UpdateFunction, responses(
    (status = 200, body = FunctionView), (status = "default", body = ErrorBody)))]
pub(super) async fn update(
    State(controller): Shared,
    MayDeploy { caller, live }: MayDeploy,
    headers: HeaderMap,
    body: Body,
) -> HttpResult<Response> {
    let body: UpdateFunction = upload::read(&headers, body).await?;
    let asked = (body, &Condition::of(&headers));
    let (live, deployed) = update::update(&controller.functions, &caller, &live, asked).await?;
    let mut view = views::function(&controller, &live).await?;
    view.deployed_version = deployed;
    Ok(tagged(&live, Json(view)))
}

/// Deletes a function. Its jobs stay on record. With `for_good` it cannot be restored and its versions are gone at once, also
/// where it was deleted before. `If-Match` as for a change.
#[utoipa::path(delete, path = routes::FUNCTION, tag = "functions",
    params(("id" = String, Path), DeleteQuery, ("If-Match" = Option<String>, Header)), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(super) async fn remove(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
    Query(query): Query<DeleteQuery>,
    headers: HeaderMap,
) -> HttpResult<StatusCode> {
    let caller = authenticated.with(Scope::Deploy)?;
    let functions = &controller.functions;
    let deleted = match functions::own(functions, caller, &id).await {
        Ok(live) => {
            let condition = Condition::of(&headers);
            deploy::delete(functions, caller, &live, (query.for_good, &condition)).await
        }
        Err(refused) if query.for_good && refused.code == Code::FunctionNotFound => {
            keeping::delete_for_good(functions, caller, &id).await
        }
        Err(refused) => Err(refused),
    };
    deleted?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows the code of a version as it was sent, which a token that may deploy can deploy again. Packages that were resolved, and the
/// JavaScript of TypeScript files, are left out.
#[utoipa::path(get, path = routes::FUNCTION_CODE, tag = "functions", params(("id" = String, Path), CodeQuery), responses(
    (status = 200, body = CodeView), (status = "default", body = ErrorBody)))]
pub(super) async fn code(
    State(controller): Shared,
    MayDeploy { caller, live }: MayDeploy,
    Query(query): Query<CodeQuery>,
) -> HttpResult<Response> {
    let (function, number) = (&live.function, query.version.unwrap_or(live.version.version));
    let version = controller.ground.store.version(function.id, number).await;
    let Some(version) = version.map_err(store)? else {
        let message = format!("`{}` has no version {number}", function.name);
        return Ok(refuse(Code::VersionNotFound, message)?);
    };
    let view = as_sent::view(controller.functions.clone(), caller.account, version);
    // To its end: what is in memory counts until then, also where the caller goes away.
    let json = Finishing::new(controller.ground.tasks.clone(), view).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// Lists a function's versions, newest first.
#[utoipa::path(get, path = routes::FUNCTION_VERSIONS, tag = "functions", params(("id" = String, Path), PageQuery), responses(
    (status = 200, body = List<VersionView>), (status = "default", body = ErrorBody)))]
pub(super) async fn versions(
    State(controller): Shared,
    MayView { live, .. }: MayView,
    Query(query): Query<PageQuery>,
) -> HttpResult<Json<List<VersionView>>> {
    let all = controller
        .ground
        .store
        .versions(live.function.id)
        .await
        .map_err(store)?;
    let Json(List { items, next }) = page(all, &query, |version| version.version.to_string())?;
    let mut views = Vec::with_capacity(items.len());
    for version in &items {
        let size = controller.ground.blobs.size(&version.code).await.map_err(blobs)?;
        let code_bytes = size.map_or(0, |size| size.bytes);
        views.push(views::version(version, live.function.live_version, code_bytes));
    }
    Ok(Json(List { items: views, next }))
}

/// Makes an older version live again. `If-Match` as for a change.
#[utoipa::path(post, path = routes::FUNCTION_ROLLBACK, tag = "functions",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = Rollback, responses(
    (status = 200, body = FunctionView), (status = "default", body = ErrorBody)))]
pub(super) async fn rollback(
    State(controller): Shared,
    MayDeploy { caller, live }: MayDeploy,
    headers: HeaderMap,
    body: Body,
) -> HttpResult<Response> {
    let body: Rollback = read_body(body, BODY_BYTES_MAX).await?;
    let asked = (body.version, &Condition::of(&headers));
    let live = update::rollback(&controller.functions, &caller, &live, asked).await?;
    let view = views::function(&controller, &live).await?;
    Ok(tagged(&live, Json(view)))
}

/// As it is after a change.
async fn again(controller: &Controller, live: &Live) -> Answer<Arc<Live>> {
    let found = functions::by_id(&controller.functions, live.function.id).await?;
    found.map_or_else(|| functions::not_found(live.function.name.as_str()), Ok)
}

async fn changed(controller: &Controller, live: &Live) -> HttpResult<Json<FunctionView>> {
    let live = again(controller, live).await?;
    Ok(Json(views::function(controller, &live).await?))
}

fn traffic_of(controller: &Controller, live: &Live) -> TrafficView {
    traffic::view(&controller.functions, &live.function).unwrap_or_else(|| traffic::undivided(&live.function))
}

/// Shows how calls are split between versions, and the error rates of the versions that are not live.
#[utoipa::path(get, path = routes::FUNCTION_TRAFFIC, tag = "functions", params(("id" = String, Path)), responses(
    (status = 200, body = TrafficView), (status = "default", body = ErrorBody)))]
pub(super) async fn traffic(State(controller): Shared, MayView { live, .. }: MayView) -> HttpResult<Json<TrafficView>> {
    Ok(Json(traffic_of(&controller, &live)))
}

/// Splits calls between versions. The live version stays live and gets the share of a version that fails too often.
#[utoipa::path(put, path = routes::FUNCTION_TRAFFIC, tag = "functions", params(("id" = String, Path)),
    request_body = SetTraffic, responses(
    (status = 200, body = TrafficView), (status = "default", body = ErrorBody)))]
pub(super) async fn set_traffic(
    State(controller): Shared,
    MayDeploy { caller, live }: MayDeploy,
    body: Body,
) -> HttpResult<Json<TrafficView>> {
    let body: SetTraffic = read_body(body, BODY_BYTES_MAX).await?;
    traffic::set(&controller.functions, &caller, &live, &body).await?;
    let live = again(&controller, &live).await?;
    Ok(Json(traffic_of(&controller, &live)))
}

/// Sends all calls to the live version again.
#[utoipa::path(delete, path = routes::FUNCTION_TRAFFIC, tag = "functions", params(("id" = String, Path)), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(super) async fn end_traffic(
    State(controller): Shared,
    MayDeploy { caller, live }: MayDeploy,
) -> HttpResult<StatusCode> {
    traffic::end(&controller.functions, &caller, &live.function).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets or removes the function's monthly budget, without a new version.
#[utoipa::path(put, path = routes::FUNCTION_BUDGET, tag = "functions", params(("id" = String, Path)),
    request_body = SetBudget, responses(
    (status = 200, body = FunctionView), (status = "default", body = ErrorBody)))]
pub(super) async fn set_budget(
    State(controller): Shared,
    MayDeploy { caller, live }: MayDeploy,
    body: Body,
) -> HttpResult<Json<FunctionView>> {
    let body: SetBudget = read_body(body, BODY_BYTES_MAX).await?;
    budget::set(&controller.functions, &caller, &live.function, body.budget_ucr).await?;
    changed(&controller, &live).await
}

/// Sets where a function's results go and how long they are kept, without a new version. Replaces the setting as a
/// whole.
#[utoipa::path(put, path = routes::FUNCTION_RESULTS, tag = "functions", params(("id" = String, Path)),
    request_body = SetResults, responses(
    (status = 200, body = FunctionView), (status = "default", body = ErrorBody)))]
pub(super) async fn set_results(
    State(controller): Shared,
    MayDeploy { caller, live }: MayDeploy,
    body: Body,
) -> HttpResult<Json<FunctionView>> {
    let body: SetResults = read_body(body, BODY_BYTES_MAX).await?;
    sinks::set(&controller.functions, &caller, &live.function, &body).await?;
    changed(&controller, &live).await
}

/// Ends the quarantine of a function's versions.
#[utoipa::path(post, path = routes::FUNCTION_RELEASE, tag = "functions", params(("id" = String, Path)), responses(
    (status = 200, body = FunctionView), (status = "default", body = ErrorBody)))]
pub(super) async fn release(
    State(controller): Shared,
    MayDeploy { caller, live }: MayDeploy,
) -> HttpResult<Json<FunctionView>> {
    traffic::release(&controller.functions, &caller, &live.function).await?;
    changed(&controller, &live).await
}

/// Stops the function: new calls are refused with `function.stopped`, running jobs finish.
#[utoipa::path(post, path = routes::FUNCTION_STOP, tag = "functions", params(("id" = String, Path)), responses(
    (status = 200, body = FunctionView), (status = "default", body = ErrorBody)))]
pub(super) async fn stop(
    State(controller): Shared,
    MayDeploy { caller, live }: MayDeploy,
) -> HttpResult<Json<FunctionView>> {
    traffic::set_stopped(&controller.functions, &caller, &live, true).await?;
    changed(&controller, &live).await
}

/// Starts a stopped function: it takes calls again.
#[utoipa::path(post, path = routes::FUNCTION_START, tag = "functions", params(("id" = String, Path)), responses(
    (status = 200, body = FunctionView), (status = "default", body = ErrorBody)))]
pub(super) async fn start(
    State(controller): Shared,
    MayDeploy { caller, live }: MayDeploy,
) -> HttpResult<Json<FunctionView>> {
    traffic::set_stopped(&controller.functions, &caller, &live, false).await?;
    changed(&controller, &live).await
}

/// Restores a recently deleted function, by its id or by its name (the last one deleted).
#[utoipa::path(post, path = routes::FUNCTION_RESTORE, tag = "functions", params(("id" = String, Path)), responses(
    (status = 200, body = FunctionView), (status = "default", body = ErrorBody)))]
pub(super) async fn restore(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
) -> HttpResult<Json<FunctionView>> {
    let caller = authenticated.with(Scope::Deploy)?;
    let live = deploy::restore(&controller.functions, caller, &id).await?;
    Ok(Json(views::function(&controller, &live).await?))
}

/// Jobs whose median price is told.
const QUOTE_JOBS: u32 = 100;

/// Shows the cost of a run before you run it.
#[utoipa::path(get, path = routes::FUNCTION_QUOTE, tag = "functions", params(("id" = String, Path)), responses(
    (status = 200, body = QuoteView), (status = "default", body = ErrorBody)))]
pub(super) async fn quote(State(controller): Shared, MayView { caller, live }: MayView) -> HttpResult<Json<QuoteView>> {
    let all = controller.providers.all();
    let profiles: Vec<_> = all.iter().map(|seen| seen.link.profile()).collect();
    let dearest = profiles
        .iter()
        .max_by_key(|profile| live.limits_max().price_max(&profile.prices, profile.cores).ok());
    let Some(profile) = dearest else {
        return Ok(refuse(Code::ProviderNone, "no provider has an offer")?);
    };
    let out_of_range = |_| {
        rejected(piecework_model::Rejection::new(
            Code::FunctionBadTimeout,
            "the price is out of range",
        ))
    };
    let filter = JobFilter {
        developer: caller.account,
        function: Some(live.function.id),
        state: None,
        before: None,
        limit: QUOTE_JOBS,
    };
    let jobs = controller.ground.store.list_jobs(&filter).await.map_err(store)?.items;
    let mut prices: Vec<u64> = jobs
        .iter()
        .filter(|job| job.settlement.is_some())
        .map(|job| job.price_ucr)
        .collect();
    prices.sort_unstable();
    Ok(Json(QuoteView {
        function: live.function.name.to_string(),
        version: live.version.version,
        prices: profile.prices.into(),
        price_min_ucr: Credits::from(profile.prices.price(&Counters::default()).map_err(out_of_range)?),
        price_max_ucr: Credits::from(
            live.limits_max()
                .price_max(&profile.prices, profile.cores)
                .map_err(out_of_range)?,
        ),
        price_typical_ucr: prices.get(prices.len() / 2).copied().map(Credits::from),
        jobs_seen: u32::try_from(prices.len()).unwrap_or(u32::MAX),
        commission_permille: super::ledger::commission_ppm(&controller).await? / 1_000,
    }))
}

/// How often a waiting reader of logs looks again.
const LOGS_POLL_MS: u64 = 100;
const LOGS_WAIT_MS_MAX: u32 = 30_000;
const LOGS_DEFAULT: u32 = 20;
const LOGS_MAX: u32 = 1_000;

/// Shows the logs of a function's newest jobs, oldest line first.
#[utoipa::path(get, path = routes::FUNCTION_LOGS, tag = "functions",
    params(("id" = String, Path), FunctionLogsQuery), responses(
    (status = 200, body = List<FunctionLogsItem>), (status = "default", body = ErrorBody)))]
pub(super) async fn logs(
    State(controller): Shared,
    MayView { caller, live }: MayView,
    Query(query): Query<FunctionLogsQuery>,
) -> HttpResult<Json<List<FunctionLogsItem>>> {
    let after = query.after.as_deref().map(str::parse).transpose().map_err(rejected)?;
    let filter = JobFilter {
        developer: caller.account,
        function: Some(live.function.id),
        state: None,
        before: None,
        limit: query.limit.unwrap_or(LOGS_DEFAULT).clamp(1, LOGS_MAX),
    };
    let deadline = tokio::time::Instant::now()
        + std::time::Duration::from_millis(u64::from(query.wait_ms.unwrap_or(0).min(LOGS_WAIT_MS_MAX)));
    loop {
        let mut jobs = controller.ground.store.list_jobs(&filter).await.map_err(store)?.items;
        jobs.retain(|job| job.state.is_final() && after.is_none_or(|after| job.id > after));
        if !jobs.is_empty() || tokio::time::Instant::now() >= deadline {
            jobs.reverse();
            return Ok(Json(List::all(log_items(&controller, jobs, query.level).await?)));
        }
        tokio::time::sleep(std::time::Duration::from_millis(LOGS_POLL_MS)).await;
    }
}

async fn log_items(
    controller: &Controller,
    jobs: Vec<Job>,
    level: Option<LogLevel>,
) -> HttpResult<Vec<FunctionLogsItem>> {
    let mut items = Vec::with_capacity(jobs.len());
    for job in jobs {
        let kept = controller
            .ground
            .store
            .logs(job.id)
            .await
            .map_err(store)?
            .unwrap_or_default();
        let read = job_logs::read(&kept, job.created_at_ms, level.unwrap_or(LogLevel::Debug));
        items.push(FunctionLogsItem {
            job_id: job.id,
            version: job.version,
            state: job.state,
            at: timestamp(job.created_at_ms),
            truncated: read.truncated,
            text: read.text,
            lines: read.lines,
        });
    }
    Ok(items)
}
