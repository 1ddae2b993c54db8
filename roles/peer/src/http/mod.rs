//! The peer's query API: the explorer, raw reads for programs, transactions of anybody's, a stream of blocks.
//!
//! [`Explorer::routes`] are the same wherever the ledger is shown: a peer serves them on an address of its own with
//! [`serve`], a controller beside its own routes.
//!
//! There is no authentication: the ledger is public, and a transaction carries its own authority. So everything here is
//! bounded: bodies in size and time, pages and raw responses in size, waits in time, transactions by source address.

mod blocks;
mod history;
mod jobs;
mod limit;
mod metrics;
mod pages;
mod proofs;
mod pulse;
mod state;
mod summary;
#[cfg(test)]
mod tests;
mod transactions;
mod views;

use std::{
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, State},
    http::{Method, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse as _, Response},
    routing::get,
};
use piecework_api::{
    errors::Refusal,
    metrics::Health,
    routes,
    server::{HttpError, HttpResult, read_body, refusal},
};
use piecework_chain::{Chain, ChainFailure, PeerChanges, SubmitError};
use piecework_ledger::Genesis;
use piecework_model::{Code, PublicKey, SecretKey};
use piecework_serve::{
    Caller, Crowd, Door, Limits, Member, Proxies,
    requests::{self, Requests},
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use limit::Rates;

use crate::index::Index;

/// What is needed to show a ledger.
pub struct Options {
    pub chain: Arc<dyn Chain>,
    pub genesis: Genesis,
    /// The consensus key of the peer that runs in this process, if one does.
    pub here: Option<PublicKey>,
    /// The longest time between blocks while the ledger works.
    pub heartbeat: Duration,
    pub rates: Rates,
    /// Whom the rates do not bind: the operator's own controllers.
    pub trusted: Vec<IpAddr>,
}

/// The ledger as it is shown to people and programs.
pub struct Explorer {
    chain: Arc<dyn Chain>,
    genesis: Genesis,
    here: Option<PublicKey>,
    index: Arc<Index>,
    pulse: Arc<pulse::Pulse>,
    /// Of the peer's own server.
    requests: Requests,
    peer_changes: PeerChanges,
    limiter: limit::Limiter,
    pages: pages::Pages,
    /// Those who wait for blocks: each holds a connection for as long as it likes.
    readers: Crowd,
    shutdown: CancellationToken,
}

type Shared = State<Arc<Explorer>>;

/// A small body arrives at once; a settlement of half a megabyte over a poor line within this.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// How long a caller's question for a later state holds its connection.
const BEHIND_WITHIN: Duration = Duration::from_secs(2);
/// Heartbeats without a block, and a change of leaders or a busy machine beyond that: then the ledger has stalled.
const STALL_HEARTBEATS: u32 = 3;
const STALL_SPARE: Duration = Duration::from_secs(10);

/// Half of the connections of a peer; and the controllers behind one address.
const READERS_MAX: usize = 512;
const READERS_OF_AN_ADDRESS_MAX: usize = 64;

impl Explorer {
    /// A place among those who wait for blocks, which the operator's own need not have. Refuses with `rate.limited`.
    fn reader(&self, caller: Caller) -> HttpResult<Option<Member>> {
        let place = self.readers.enter(caller);
        if place.is_none() && !self.limiter.trusts(caller) {
            let refusal = Refusal::new(
                Code::RateLimited,
                "too many requests wait for blocks, in all or of this address",
            );
            return Err(HttpError(Box::new(refusal.hint("end some of them, or do not wait"))));
        }
        Ok(place)
    }

    /// Begins to read the history for the lists that the state itself cannot give; until `shutdown`.
    pub fn start(options: Options, shutdown: CancellationToken) -> Arc<Self> {
        let index = Arc::new(Index::default());
        let pulse = Arc::new(pulse::Pulse::new(options.heartbeat * STALL_HEARTBEATS + STALL_SPARE));
        tokio::spawn(pulse::run(pulse.clone(), options.chain.clone(), shutdown.clone()));
        let explorer = Arc::new(Self {
            index: index.clone(),
            pulse,
            requests: Requests::new(route_class),
            peer_changes: PeerChanges::default(),
            limiter: limit::Limiter::new(options.rates, &options.trusted),
            pages: pages::Pages::default(),
            readers: Crowd::new(READERS_MAX, READERS_OF_AN_ADDRESS_MAX),
            chain: options.chain.clone(),
            genesis: options.genesis,
            here: options.here,
            shutdown: shutdown.clone(),
        });
        let grants = explorer
            .genesis
            .grants
            .iter()
            .map(|grant| grant.key)
            .collect::<Vec<_>>();
        tokio::spawn(crate::index::run(index, options.chain, grants, shutdown.clone()));
        tokio::spawn(limit::forget_the_idle(explorer.clone(), shutdown));
        explorer
    }

    /// Closes leases that are over by itself, until the shutdown; `key` signs.
    pub fn expire_leases(&self, key: SecretKey) {
        let (index, chain) = (self.index.clone(), self.chain.clone());
        tokio::spawn(crate::caretaker::expire_leases(
            index,
            chain,
            key,
            self.shutdown.clone(),
        ));
    }

    /// Whether there is a first block and the history has been read: before, some answers are refused.
    fn has_started(&self) -> bool {
        self.chain.status().height > 0 && self.index.is_complete()
    }

    /// Whether transactions become final here.
    fn is_ready(&self) -> bool {
        self.has_started() && self.pulse.stalled_for(Instant::now()).is_none()
    }

    /// Resolves once questions are answered. Cancel safe.
    pub async fn ready(&self) {
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        while !self.has_started() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// `/ledger/...`, with its description.
    pub fn routes(self: Arc<Self>) -> OpenApiRouter {
        described().with_state(self)
    }
}

fn described() -> OpenApiRouter<Arc<Explorer>> {
    OpenApiRouter::new()
        .routes(routes!(blocks::status))
        .routes(routes!(blocks::list))
        .routes(routes!(blocks::show))
        .routes(routes!(blocks::raw))
        .routes(routes!(blocks::raw_page))
        .routes(routes!(blocks::events))
        .routes(routes!(history::transactions, transactions::submit))
        .routes(routes!(transactions::show))
        .routes(routes!(state::value))
        .routes(routes!(state::accounts))
        .routes(routes!(state::account))
        .routes(routes!(state::offers))
        .routes(routes!(state::leases))
        .routes(routes!(state::lease))
        .routes(routes!(state::peers))
        .routes(routes!(state::params))
        .routes(routes!(state::genesis))
        .routes(routes!(history::jobs))
        .routes(routes!(jobs::show))
        .routes(routes!(proofs::job))
        .routes(routes!(proofs::raw))
}

/// The routes without a ledger behind them: for the OpenAPI document.
pub fn description() -> OpenApiRouter {
    OpenApiRouter::with_openapi(described().into_openapi())
}

#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "Piecework ledger peer",
    description = "The ledger as seen by one of its peers: blocks, transactions, accounts, jobs.",
    license(name = "Apache-2.0")
))]
struct Document;

/// Serves a peer's API on an address of its own until the explorer's shutdown.
pub async fn serve(door: impl Into<Door>, explorer: Arc<Explorer>, limits: (Limits, Proxies)) -> io::Result<()> {
    let shutdown = explorer.shutdown.clone();
    serve_until(door, explorer, limits, async move { shutdown.cancelled().await }).await
}

async fn serve_until(
    door: impl Into<Door>,
    explorer: Arc<Explorer>,
    limits: (Limits, Proxies),
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .merge(explorer.clone().routes())
        .split_for_parts();
    let document: bytes::Bytes = document.to_json().expect("the document is plain data").into();
    let openapi = move || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    let requests = explorer.requests.clone();
    let own = Router::new()
        .route(routes::HEALTHZ, get(healthz))
        .route(routes::READYZ, get(readyz))
        .route(routes::METRICS, get(metrics::prometheus))
        .with_state(explorer);
    let app = router
        .merge(own)
        .route(routes::OPENAPI, get(openapi))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(requests, requests::count));
    piecework_serve::serve(door, app, limits, shutdown).await
}

/// As requests are counted.
fn route_class(path: &str) -> &'static str {
    let below = path.strip_prefix("/ledger/").map(|rest| rest.split('/').next());
    match (below, path) {
        (Some(Some("transactions")), _) => "transactions",
        // They wait for blocks.
        (Some(Some("raw" | "events")), _) => "blocks",
        (Some(_), _) => "ledger",
        (None, routes::METRICS) => "metrics",
        (None, routes::HEALTHZ | routes::READYZ) => "health",
        (None, _) => "other",
    }
}

async fn healthz() -> Json<Health> {
    Json(health("ok"))
}

async fn readyz(State(explorer): Shared) -> (StatusCode, Json<Health>) {
    let status = match (explorer.has_started(), explorer.is_ready()) {
        (true, true) => return (StatusCode::OK, Json(health("ok"))),
        (true, false) => "stalled",
        (false, _) => "starting",
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(health(status)))
}

fn health(status: &str) -> Health {
    Health {
        status: status.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        disk: None,
    }
}

async fn not_found(uri: Uri) -> HttpError {
    let hint = "see /openapi.json for all paths";
    HttpError(Box::new(
        Refusal::new(Code::PathNotFound, format!("there is nothing at {}", uri.path())).hint(hint),
    ))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    HttpError(refusal(
        Code::MethodNotAllowed,
        format!("{} does not support {method}", uri.path()),
    ))
    .into_response()
}

/// The body as JSON, whole and in time.
async fn read_in_time<T: DeserializeOwned + Send + 'static>(body: Body, bytes_max: usize) -> HttpResult<T> {
    match tokio::time::timeout(BODY_WITHIN, read_body(body, bytes_max)).await {
        Ok(read) => read,
        Err(_) => Err(HttpError(refusal(Code::BodyTooSlow, "the body did not arrive in time"))),
    }
}

/// The world's affair: logged here, once.
fn failed(failure: ChainFailure) -> HttpError {
    tracing::warn!(cause = %failure, "the ledger does not answer");
    let refusal = Refusal::new(Code::LedgerUnavailable, "the ledger does not answer; nothing is lost");
    HttpError(Box::new(refusal.hint("retry in a moment")))
}

fn not_taken(error: SubmitError) -> HttpError {
    match error {
        SubmitError::Rejected(rejection) => HttpError(Box::new(rejection.into())),
        SubmitError::Failed(failure) => failed(failure),
    }
}
