//! `/held`: receipts that are not paid, for operators.

use axum::{Json, body::Body, extract::State, http::StatusCode};
use piecework_api::{
    accounts::Scope,
    errors::ErrorBody,
    held::{Decide, HeldView},
    page::{List, PageQuery},
    routes,
};
use piecework_model::JobId;

use super::{Authenticated, BODY_BYTES_MAX, HttpResult, Path, Query, Shared, read_body};
use crate::{failure::rejected, money::withheld};

/// Lists receipts that wait for a decision, and refused ones, oldest first; operators only.
#[utoipa::path(get, path = routes::HELD, tag = "jobs", params(PageQuery), responses(
    (status = 200, body = List<HeldView>), (status = "default", body = ErrorBody)))]
pub(super) async fn list(
    State(controller): Shared,
    authenticated: Authenticated,
    Query(query): Query<PageQuery>,
) -> HttpResult<Json<List<HeldView>>> {
    authenticated.with(Scope::View)?.needs_operator()?;
    let (items, next) = withheld::list(&controller.money, query.cursor.as_deref(), query.limit()).await?;
    Ok(Json(List { items, next }))
}

/// Pays a held receipt or refuses it for good; operators only.
#[utoipa::path(post, path = routes::HELD_JOB, tag = "jobs", params(("job" = String, Path)), request_body = Decide,
    responses((status = 204), (status = "default", body = ErrorBody)))]
pub(super) async fn decide(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(job): Path<String>,
    body: Body,
) -> HttpResult<StatusCode> {
    let caller = authenticated.with(Scope::Admin)?;
    caller.needs_operator()?;
    let body: Decide = read_body(body, BODY_BYTES_MAX).await?;
    let job: JobId = job.parse().map_err(rejected)?;
    withheld::decide(&controller.money, caller.account, job, body.decision).await?;
    Ok(StatusCode::NO_CONTENT)
}
