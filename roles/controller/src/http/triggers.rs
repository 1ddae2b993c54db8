//! `/functions/{id}/triggers` and `/triggers`: what calls functions by itself.

use axum::{Json, body::Body, extract::State, http::StatusCode};
use piecework_api::{
    accounts::Scope,
    errors::ErrorBody,
    page::List,
    routes,
    triggers::{SetTrigger, TriggerView},
};
use piecework_model::FunctionName;

use super::{Authenticated, BODY_BYTES_MAX, HttpResult, Path, Shared, read_body};
use crate::{failure::rejected, functions, triggers};

/// Lists the triggers of all of the caller's functions.
#[utoipa::path(get, path = routes::TRIGGERS, tag = "triggers", responses(
    (status = 200, body = List<TriggerView>), (status = "default", body = ErrorBody)))]
pub(super) async fn all(
    State(controller): Shared,
    authenticated: Authenticated,
) -> HttpResult<Json<List<TriggerView>>> {
    let caller = authenticated.with(Scope::View)?;
    Ok(Json(List::all(triggers::list(
        &controller.triggers,
        caller.account,
        None,
    ))))
}

/// Lists a function's triggers.
#[utoipa::path(get, path = routes::FUNCTION_TRIGGERS, tag = "triggers", params(("id" = String, Path)), responses(
    (status = 200, body = List<TriggerView>), (status = "default", body = ErrorBody)))]
pub(super) async fn list(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
) -> HttpResult<Json<List<TriggerView>>> {
    let caller = authenticated.with(Scope::View)?;
    let live = functions::own(&controller.functions, caller, &id).await?;
    let views = triggers::list(&controller.triggers, caller.account, Some(live.function.id));
    Ok(Json(List::all(views)))
}

/// Adds or replaces a trigger. Its calls are asynchronous jobs of the function's owner.
#[utoipa::path(put, path = routes::FUNCTION_TRIGGER, tag = "triggers",
    params(("id" = String, Path), ("name" = String, Path)), request_body = SetTrigger, responses(
    (status = 200, body = TriggerView), (status = "default", body = ErrorBody)))]
pub(super) async fn set(
    State(controller): Shared,
    authenticated: Authenticated,
    Path((id, name)): Path<(String, String)>,
    body: Body,
) -> HttpResult<Json<TriggerView>> {
    let caller = authenticated.with(Scope::Deploy)?;
    let live = functions::own(&controller.functions, caller, &id).await?;
    let name: FunctionName = name.parse().map_err(rejected)?;
    let body: SetTrigger = read_body(body, BODY_BYTES_MAX).await?;
    Ok(Json(
        triggers::set(&controller.triggers, caller, &live, (name, body)).await?,
    ))
}

/// Removes a trigger; jobs that it has started continue.
#[utoipa::path(delete, path = routes::FUNCTION_TRIGGER, tag = "triggers",
    params(("id" = String, Path), ("name" = String, Path)), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(super) async fn remove(
    State(controller): Shared,
    authenticated: Authenticated,
    Path((id, name)): Path<(String, String)>,
) -> HttpResult<StatusCode> {
    let caller = authenticated.with(Scope::Deploy)?;
    let live = functions::own(&controller.functions, caller, &id).await?;
    let name: FunctionName = name.parse().map_err(rejected)?;
    triggers::remove(&controller.triggers, caller, &live, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
