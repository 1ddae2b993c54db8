//! Build logs: of a version, and of deploys that failed. Only their developer sees them.

use axum::{Json, extract::State};
use piecework_api::{
    accounts::Scope,
    build_logs::{BuildLogView, FailedDeploysQuery},
    errors::ErrorBody,
    page::List,
    routes,
};

use super::{Authenticated, HttpResult, Path, Query, Shared};
use crate::functions::{self, build_log};

/// Shows what resolving packages, translating TypeScript and loading the code said when a version was made.
#[utoipa::path(get, path = routes::FUNCTION_BUILD_LOG, tag = "functions",
    params(("id" = String, Path), ("version" = u32, Path)), responses(
    (status = 200, body = BuildLogView), (status = "default", body = ErrorBody)))]
pub(super) async fn show(
    State(controller): Shared,
    authenticated: Authenticated,
    Path((id, version)): Path<(String, u32)>,
) -> HttpResult<Json<BuildLogView>> {
    let caller = authenticated.with(Scope::View)?;
    let live = functions::own(&controller.functions, caller, &id).await?;
    let view = build_log::of_version(&controller.functions, &live.function, version).await?;
    Ok(Json(view))
}

/// Lists the caller's last deploys that failed with their logs, newest first: 5 of one name, 20 in all.
#[utoipa::path(get, path = routes::FAILED_DEPLOYS, tag = "functions", params(FailedDeploysQuery), responses(
    (status = 200, body = List<BuildLogView>), (status = "default", body = ErrorBody)))]
pub(super) async fn failed(
    State(controller): Shared,
    authenticated: Authenticated,
    Query(query): Query<FailedDeploysQuery>,
) -> HttpResult<Json<List<BuildLogView>>> {
    let caller = authenticated.with(Scope::View)?;
    let logs = build_log::failed(&controller.functions, caller, query.function.as_deref()).await?;
    Ok(Json(List::all(logs)))
}
