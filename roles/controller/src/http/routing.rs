//! `/routes`, `/r/{owner}/...` and assigned hosts: paths of the accounts' own that lead to functions.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts as _, Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use piecework_api::{
    accounts::Scope,
    errors::ErrorBody,
    page::List,
    routes,
    routing::{AssignHost, HostView, RouteQuery, RouteView, SetRoute},
};
use piecework_model::Code;

use super::{
    Anyone, Authenticated, BODY_BYTES_MAX, HttpError, HttpResult, Path, Query, Shared, cors, event::Target, plain,
    read_body,
};
use crate::{
    Controller,
    failure::refusal,
    functions::routing::{self, Match},
};

/// Lists the caller's routes.
#[utoipa::path(get, path = routes::ROUTES, tag = "functions", responses(
    (status = 200, body = List<RouteView>), (status = "default", body = ErrorBody)))]
pub(super) async fn list(State(controller): Shared, authenticated: Authenticated) -> HttpResult<Json<List<RouteView>>> {
    let caller = authenticated.with(Scope::View)?;
    Ok(Json(List::all(routing::list(&controller.functions, caller.account))))
}

/// Adds a route to one of the caller's functions, or replaces its methods. Requests are answered as at the function's URL, with
/// its visibility and CORS; the route's path is the base path of their events.
#[utoipa::path(put, path = routes::ROUTES, tag = "functions", request_body = SetRoute, responses(
    (status = 200, body = RouteView), (status = "default", body = ErrorBody)))]
pub(super) async fn set(
    State(controller): Shared,
    authenticated: Authenticated,
    body: Body,
) -> HttpResult<Json<RouteView>> {
    let caller = authenticated.with(Scope::Deploy)?;
    let body: SetRoute = read_body(body, BODY_BYTES_MAX).await?;
    Ok(Json(routing::set(&controller.functions, caller, body).await?))
}

/// Removes a route of the caller's.
#[utoipa::path(delete, path = routes::ROUTES, tag = "functions", params(RouteQuery), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(super) async fn remove(
    State(controller): Shared,
    authenticated: Authenticated,
    Query(query): Query<RouteQuery>,
) -> HttpResult<StatusCode> {
    let caller = authenticated.with(Scope::Deploy)?;
    routing::remove(&controller.functions, caller, &query).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the hosts that are assigned to accounts; operators only.
#[utoipa::path(get, path = routes::ROUTE_HOSTS, tag = "functions", responses(
    (status = 200, body = List<HostView>), (status = "default", body = ErrorBody)))]
pub(super) async fn hosts(State(controller): Shared, authenticated: Authenticated) -> HttpResult<Json<List<HostView>>> {
    authenticated.with(Scope::View)?.needs_operator()?;
    Ok(Json(List::all(routing::hosts(&controller.functions).await)))
}

/// Assigns a host to an account, which may then set routes on it; operators only. DNS and certificates are the operator's.
#[utoipa::path(put, path = routes::ROUTE_HOST, tag = "functions", params(("host" = String, Path)),
    request_body = AssignHost, responses((status = 200, body = HostView), (status = "default", body = ErrorBody)))]
pub(super) async fn assign(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(host): Path<String>,
    body: Body,
) -> HttpResult<Json<HostView>> {
    let caller = authenticated.with(Scope::Admin)?;
    caller.needs_operator()?;
    let body: AssignHost = read_body(body, BODY_BYTES_MAX).await?;
    Ok(Json(
        routing::assign(&controller.functions, caller, &host, &body.owner).await?,
    ))
}

/// Takes a host back, with its routes; operators only.
#[utoipa::path(delete, path = routes::ROUTE_HOST, tag = "functions", params(("host" = String, Path)), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(super) async fn unassign(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(host): Path<String>,
) -> HttpResult<StatusCode> {
    let caller = authenticated.with(Scope::Admin)?;
    caller.needs_operator()?;
    routing::unassign(&controller.functions, caller, &host).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses with `path.not_found` and `method.not_allowed`.
fn routed(controller: &Controller, host: &str, path: &str, request: &Request) -> HttpResult<Match> {
    let Some(found) = controller.functions.routes.find(host, path) else {
        let message = format!("no route leads from {} to a function", request.uri().path());
        return Err(refusal(Code::PathNotFound, message).into());
    };
    // What a browser asks before is answered by the function's own rules.
    let is_preflight = cors::is_preflight(request.method(), request.headers());
    if !is_preflight && !found.route.takes(request.method().as_str()) {
        let message = format!("{} does not support {}", request.uri().path(), request.method());
        return Err(refusal(Code::MethodNotAllowed, message).into());
    }
    Ok(found)
}

fn target<'a>(found: &Match, base: &str, raw_path: &'a str) -> Target<'a> {
    let rest = &raw_path[found.length..];
    Target {
        owner: found.route.owner.to_string(),
        name: found.route.function.to_string(),
        raw_path: if rest.is_empty() { "/" } else { rest },
        base_path: format!("{base}{}", &raw_path[..found.length]),
    }
}

/// Where the accounts' own paths begin on the platform's host.
const BASE: &str = "/r";

/// At the platform's own origin.
pub(super) async fn call(State(controller): Shared, anyone: Anyone, request: Request) -> HttpResult<Response> {
    let path = request.uri().path().to_owned();
    let raw_path = path.strip_prefix(BASE).unwrap_or(&path);
    let found = routed(&controller, "", raw_path, &request)?;
    plain::at_shared_origin(&controller, &anyone, target(&found, BASE, raw_path), request).await
}

/// At a host of an account's own.
pub(super) async fn at_host(controller: Arc<Controller>, host: &str, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let found = match routed(&controller, host, &path, &request) {
        Ok(found) => found,
        Err(refused) => return refused.into_response(),
    };
    let (mut parts, body) = request.into_parts();
    match Anyone::from_request_parts(&mut parts, &controller).await {
        Ok(anyone) => {
            let request = Request::from_parts(parts, body);
            plain::at_an_origin(&controller, &anyone, target(&found, "", &path), request).await
        }
        Err(HttpError(refused)) => HttpError(refused).into_response(),
    }
}
