//! `/portal`: the pages that people look at, their files, and the sessions of their browsers.
//!
//! A cookie authenticates below `/portal/api`, where the whole interface is once more, and nowhere else. It does so only for requests
//! that a page of the portal sent: see [`gate`].

pub(crate) mod files;
mod gate;
pub(super) mod session;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, Uri},
    middleware,
    response::{IntoResponse as _, Response},
    routing::get,
};
use piecework_api::routes;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Shared, not_found};
use crate::Controller;

pub(super) use gate::Gate;

/// What the OpenAPI document says of it.
pub(super) fn described() -> OpenApiRouter<Arc<Controller>> {
    OpenApiRouter::new().routes(routes!(session::show, session::open, session::close))
}

/// The pages, and `api` once more behind the gate.
pub(super) fn router(controller: &Arc<Controller>, sessions: Router, api: Router) -> Router {
    let gate = Gate::new(controller);
    let behind = sessions
        .nest(routes::PORTAL_API, api)
        .layer(middleware::from_fn_with_state(gate, gate::admit));
    Router::new()
        .route("/", get(to_the_pages))
        .route(routes::PORTAL.trim_end_matches('/'), get(to_the_pages))
        .route(routes::PORTAL, get(page))
        .route("/portal/{*path}", get(any_page))
        .route("/portal/assets/{file}", get(asset))
        .with_state(controller.clone())
        .merge(behind)
}

async fn to_the_pages() -> Response {
    axum::response::Redirect::temporary(routes::PORTAL).into_response()
}

async fn page(State(controller): Shared, headers: HeaderMap) -> Response {
    files::page(controller.portal, &headers)
}

/// Each page has a path; the one file looks at it in the browser.
async fn any_page(State(controller): Shared, uri: Uri, headers: HeaderMap) -> Response {
    match uri.path().starts_with("/portal/api/") {
        true => not_found(uri).await.into_response(),
        false => files::page(controller.portal, &headers),
    }
}

async fn asset(State(controller): Shared, Path(file): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    match controller.portal.iter().find(|known| known.name == file) {
        Some(known) => files::asset(known, &headers),
        None => not_found(uri).await.into_response(),
    }
}
