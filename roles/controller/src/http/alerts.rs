//! `/alerts`: what is wrong now, and whether operators would hear of it.

use axum::{Json, extract::State, http::StatusCode};
use piecework_api::{accounts::Scope, alerts::AlertView, errors::ErrorBody, page::List, routes};

use super::{Authenticated, HttpResult, Shared};
use crate::alerts;

/// Lists the conditions that operators are told of and that are there now; operators only.
#[utoipa::path(get, path = routes::ALERTS, tag = "metrics", responses(
    (status = 200, body = List<AlertView>), (status = "default", body = ErrorBody)))]
pub(super) async fn list(State(controller): Shared, authenticated: Authenticated) -> HttpResult<Json<List<AlertView>>> {
    authenticated.with(Scope::View)?.needs_operator()?;
    Ok(Json(List::all(alerts::list(&controller.alerts))))
}

/// Sends a test message to the webhook and the command, once, and responds when they have taken it; operators only.
#[utoipa::path(post, path = routes::ALERTS_TEST, tag = "metrics", responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(super) async fn test(State(controller): Shared, authenticated: Authenticated) -> HttpResult<StatusCode> {
    authenticated.with(Scope::Admin)?.needs_operator()?;
    alerts::test(&controller.alerts).await?;
    Ok(StatusCode::NO_CONTENT)
}
