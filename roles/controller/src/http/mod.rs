//! The HTTP API: one file per resource, handlers and their descriptions side by side.

mod accounts;
mod alerts;
mod audit;
mod bookings;
mod build_logs;
mod cors;
mod door;
mod event;
mod events;
mod execute;
mod functions;
mod held;
mod images;
mod jobs;
mod leases;
mod ledger;
mod link;
mod metrics;
pub(crate) mod origin;
mod plain;
pub(crate) mod portal;
mod routing;
mod site;
mod space;
mod streaming;
#[cfg(test)]
mod tests;
mod triggers;
mod upload;
pub(crate) mod views;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts, State},
    http::{HeaderMap, HeaderValue, Method, Uri, header, request::Parts},
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use piecework_api::{accounts::Scope, routes};
use piecework_model::Code;
use piecework_serve::{Caller as Address, requests};
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use door::Door;
pub(crate) use events::{beat, tell_of_providers};
pub(crate) use piecework_api::server::{Created, HttpError, HttpResult, Path, Query, page, read_body, read_bytes};

use crate::{
    Controller,
    accounts::{
        auth::{Caller, TOKEN_PREFIX, caller_of},
        rates::{self, Counted},
    },
    failure::{Refusal, refusal},
};

pub(crate) type Shared = State<Arc<Controller>>;

/// A bundle of 32 MiB in base64, and its settings.
pub(crate) const UPLOAD_BYTES_MAX: usize = 48 << 20;
/// An input; larger things belong into a store that the function reads.
pub(crate) const INPUT_BYTES_MAX: usize = 6 << 20;
/// Everything else.
pub(crate) const BODY_BYTES_MAX: usize = 256 << 10;
/// What somebody without a token sends: a name, a password or a key, a registration in hex.
pub(crate) const STRANGERS_BODY_BYTES_MAX: usize = 8 << 10;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Piecework",
        description = "Serverless functions on computers that would otherwise be idle; every run leaves a signed receipt on a ledger.",
        license(name = "Apache-2.0")
    ),
    modifiers(&Bearer),
    security(("bearer" = []))
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document
            .components
            .get_or_insert_with(Default::default)
            .add_security_scheme("bearer", scheme);
    }
}

fn described() -> OpenApiRouter<Arc<Controller>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(functions::create, functions::list))
        .routes(routes!(functions::show, functions::update, functions::remove))
        .routes(routes!(images::missing))
        .routes(routes!(images::upload))
        .routes(routes!(functions::versions))
        .routes(routes!(functions::code))
        .routes(routes!(build_logs::show))
        .routes(routes!(build_logs::failed))
        .routes(routes!(functions::rollback))
        .routes(routes!(
            functions::traffic,
            functions::set_traffic,
            functions::end_traffic
        ))
        .routes(routes!(functions::set_budget))
        .routes(routes!(functions::set_results))
        .routes(routes!(functions::release))
        .routes(routes!(functions::stop))
        .routes(routes!(functions::start))
        .routes(routes!(functions::restore))
        .routes(routes!(functions::quote))
        .routes(routes!(functions::logs))
        .routes(routes!(triggers::list))
        .routes(routes!(triggers::set, triggers::remove))
        .routes(routes!(triggers::all))
        .routes(routes!(execute::execute))
        .routes(routes!(execute::run_code))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::show, jobs::cancel))
        .routes(routes!(jobs::history))
        .routes(routes!(jobs::result))
        .routes(routes!(jobs::logs))
        .routes(routes!(held::list))
        .routes(routes!(held::decide))
        .routes(routes!(metrics::function))
        .routes(routes!(metrics::system))
        .routes(routes!(metrics::prometheus))
        .routes(routes!(accounts::create))
        .routes(routes!(accounts::show))
        .routes(routes!(accounts::own))
        .routes(routes!(accounts::rotate_key))
        .routes(routes!(accounts::own_provider))
        .routes(routes!(accounts::set_loan))
        .routes(routes!(accounts::pay_loan))
        .routes(routes!(audit::limits, audit::set_limits))
        .routes(routes!(audit::usage))
        .routes(routes!(audit::list))
        .routes(routes!(accounts::log_in))
        .routes(routes!(accounts::challenge))
        .routes(routes!(accounts::create_token, accounts::list_tokens))
        .routes(routes!(accounts::delete_token))
        .routes(routes!(accounts::invite))
        .routes(routes!(accounts::accept_invite))
        .routes(routes!(ledger::transfer))
        .routes(routes!(ledger::statement))
        .routes(routes!(bookings::deposit, bookings::deposits))
        .routes(routes!(bookings::withdraw, bookings::withdrawals))
        .routes(routes!(bookings::settle))
        .routes(routes!(bookings::decline))
        .routes(routes!(ledger::offers))
        .routes(routes!(ledger::providers))
        .routes(routes!(leases::list))
        .routes(routes!(leases::terms))
        .routes(routes!(leases::close))
        .routes(routes!(leases::add_payer))
        .routes(routes!(leases::remove_payer))
        .routes(routes!(routing::list, routing::set, routing::remove))
        .routes(routes!(routing::hosts))
        .routes(routes!(routing::assign, routing::unassign))
        .routes(routes!(alerts::list))
        .routes(routes!(alerts::test))
        .routes(routes!(events::stream))
        .routes(routes!(metrics::healthz))
        .routes(routes!(metrics::readyz))
}

/// The OpenAPI document of everything but `/fn/`, whose bodies are the functions' own, with what is served beside it.
pub fn openapi_document(beside: OpenApiRouter) -> utoipa::openapi::OpenApi {
    let mut document = described().into_openapi();
    document.merge(portal::described().into_openapi());
    document.merge(beside.into_openapi());
    name_operations(&mut document);
    document
}

/// After method and path, like `get_functions_id_versions`: handlers of several resources have the same name, and ids must differ.
fn name_operations(document: &mut utoipa::openapi::OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let parts = path.split('/').map(|part| part.trim_matches(['{', '}']));
        let place: Vec<String> = parts
            .filter(|part| !part.is_empty())
            .map(|part| part.replace('-', "_"))
            .collect();
        let operations = [
            ("get", &mut item.get),
            ("put", &mut item.put),
            ("post", &mut item.post),
            ("delete", &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                operation.operation_id = Some(format!("{method}_{}", place.join("_")));
            }
        }
    }
}

/// With `beside`, routes that others describe and answer: the ledger's explorer.
pub(crate) fn router(controller: Arc<Controller>, beside: OpenApiRouter) -> Router {
    let (router, mut document) = described()
        .with_state(controller.clone())
        .merge(beside)
        .split_for_parts();
    let (sessions, of_sessions) = portal::described().with_state(controller.clone()).split_for_parts();
    document.merge(of_sessions);
    name_operations(&mut document);
    let pages = portal::router(&controller, sessions, router.clone());
    let document: axum::body::Bytes = document.to_json().expect("the document is plain data").into();
    let openapi = move || {
        let document = document.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], document) }
    };
    let plain = Router::new()
        .route(routes::LINK, get(link::upgrade))
        .route(routes::ROUTED, any(routing::call))
        .route(routes::PLAIN, any(plain::call))
        .route(routes::PLAIN_ROOT, any(plain::call))
        .route(routes::PLAIN_PATH, any(plain::call))
        .with_state(controller.clone());
    let requests = controller.ground.telemetry.requests.clone();
    router
        .route(routes::OPENAPI, get(openapi))
        .merge(plain)
        .merge(pages)
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(
            Door::new(controller.clone()),
            door::pass,
        ))
        .layer(middleware::from_fn_with_state(controller, space::watch))
        .layer(middleware::from_fn_with_state(requests, requests::count))
}

async fn not_found(uri: Uri) -> HttpError {
    let refusal = Refusal::new(Code::PathNotFound, format!("there is nothing at {}", uri.path()));
    HttpError(refusal.hint("see /openapi.json for all paths").into())
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    HttpError(refusal(
        Code::MethodNotAllowed,
        format!("{} does not support {method}", uri.path()),
    ))
    .into_response()
}

/// Somebody with a good token.
pub(crate) struct Authenticated(pub(crate) Arc<Caller>);

impl Authenticated {
    pub(crate) fn with(&self, scope: Scope) -> HttpResult<&Caller> {
        self.0.needs(scope)?;
        Ok(&self.0)
    }
}

impl FromRequestParts<Arc<Controller>> for Authenticated {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> HttpResult<Self> {
        match bearer(&parts.headers) {
            Some(token) => {
                let caller = caller_of(&controller.accounts, token, Address::of(&parts.extensions)).await?;
                rates::count(&controller.accounts, Counted::Account(caller.account), &caller.limits)?;
                if !caller.operator && is_change(&parts.method, parts.uri.path()) {
                    rates::count_change(&controller.accounts, caller.account)?;
                }
                Ok(Self(caller))
            }
            None => {
                let refusal = Refusal::new(
                    Code::AuthMissingToken,
                    "the request has no `Authorization: Bearer` header",
                );
                let hint = "log in with `piecework login`, or send the token that `piecework up` wrote";
                Err(HttpError(refusal.hint(hint).into()))
            }
        }
    }
}

/// Whether a request leaves a line in the audit record or on the ledger: calls and jobs have limits of their own.
fn is_change(method: &Method, path: &str) -> bool {
    // `/execute` itself resolves packages and loads code, as a deploy does.
    !matches!(*method, Method::GET | Method::HEAD) && !["/execute/", "/jobs/"].iter().any(|job| path.starts_with(job))
}

/// Somebody with a good token, or nobody in particular. A bad token is refused; what is no token of the platform is the
/// function's own affair.
pub(crate) struct Anyone(pub(crate) Option<Arc<Caller>>);

impl FromRequestParts<Arc<Controller>> for Anyone {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> HttpResult<Self> {
        match bearer(&parts.headers).filter(|token| token.starts_with(TOKEN_PREFIX)) {
            Some(token) => {
                let caller = caller_of(&controller.accounts, token, Address::of(&parts.extensions)).await?;
                rates::count(&controller.accounts, Counted::Account(caller.account), &caller.limits)?;
                Ok(Self(Some(caller)))
            }
            None => Ok(Self(None)),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION).and_then(token_of)
}

fn token_of(authorization: &HeaderValue) -> Option<&str> {
    let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether an `Authorization` has a token of the platform, which functions never see.
fn is_the_platforms(authorization: &HeaderValue) -> bool {
    token_of(authorization).is_some_and(|token| token.starts_with(TOKEN_PREFIX))
}
