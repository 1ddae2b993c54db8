//! `/metrics`, `/healthz`, `/readyz`: counters over time and for Prometheus; whether the controller works.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use piecework_api::{
    accounts::Scope,
    errors::ErrorBody,
    metrics::{Health, MetricsQuery, MetricsView},
    routes,
};
use piecework_model::Code;
use piecework_store::MetricScope;

use super::{Authenticated, HttpResult, Path, Query, Shared};
use crate::{
    Answer, Controller,
    clock::{now_ms, timestamp},
    failure::{refuse, store},
    functions,
    http::views,
    telemetry,
};

const HOUR_MS: u64 = 3_600_000;
const POINTS_MAX: u64 = 1_500;
const STEPS: [(&str, u64); 3] = [("minute", 60_000), ("hour", HOUR_MS), ("day", 24 * HOUR_MS)];

/// Shows the counters of a function or of one version; of a deleted function by its id. A job counts in the step in
/// which it was created.
#[utoipa::path(get, path = routes::METRICS_FUNCTION, tag = "metrics", params(("id" = String, Path), MetricsQuery),
    responses((status = 200, body = MetricsView), (status = "default", body = ErrorBody)))]
pub(super) async fn function(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
    Query(query): Query<MetricsQuery>,
) -> HttpResult<Json<MetricsView>> {
    let id = functions::own_ever(&controller, authenticated.with(Scope::View)?, &id).await?;
    let scope = match query.version {
        Some(version) => MetricScope::Version(id, version),
        None => MetricScope::Function(id),
    };
    Ok(Json(points(&controller, scope, &query).await?))
}

/// Shows the counters of the whole system.
#[utoipa::path(get, path = routes::METRICS_SYSTEM, tag = "metrics", params(MetricsQuery),
    responses((status = 200, body = MetricsView), (status = "default", body = ErrorBody)))]
pub(super) async fn system(
    State(controller): Shared,
    authenticated: Authenticated,
    Query(query): Query<MetricsQuery>,
) -> HttpResult<Json<MetricsView>> {
    authenticated.with(Scope::View)?;
    Ok(Json(points(&controller, MetricScope::System, &query).await?))
}

fn unix_ms(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

async fn points(controller: &Controller, scope: MetricScope, query: &MetricsQuery) -> Answer<MetricsView> {
    let to = query.to.map_or_else(now_ms, unix_ms);
    let from = query.from.map_or(to.saturating_sub(HOUR_MS), unix_ms);
    if from >= to {
        return refuse(Code::MetricsBadRange, "`from` is not before `to`");
    }
    let (name, step) = step(query.step.as_deref(), to - from)?;
    if (to - from) / step > POINTS_MAX {
        return refuse(
            Code::MetricsBadRange,
            format!("the range has more than {POINTS_MAX} points; use a longer step"),
        );
    }
    let points = controller.store.points(scope, from, to, step).await.map_err(store)?;
    Ok(MetricsView {
        from: timestamp(from),
        to: timestamp(to),
        step: name.to_owned(),
        points: points.iter().map(views::point).collect(),
    })
}

fn step(asked: Option<&str>, span_ms: u64) -> Answer<(&'static str, u64)> {
    let found = match asked {
        Some(name) => STEPS.into_iter().find(|(known, _)| *known == name),
        None => STEPS
            .into_iter()
            .find(|(_, step)| span_ms / step <= POINTS_MAX)
            .or(Some(STEPS[2])),
    };
    found.map_or_else(
        || refuse(Code::MetricsBadStep, "the step must be minute, hour or day"),
        Ok,
    )
}

/// Metrics as Prometheus text. They reveal nothing about single functions or accounts, so they need no token.
#[utoipa::path(get, path = routes::METRICS, tag = "metrics", security(()), responses(
    (status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn prometheus(State(controller): Shared) -> Response {
    const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, KIND)], telemetry::prometheus_text(&controller)).into_response()
}

/// Tells whether the process is alive.
#[utoipa::path(get, path = routes::HEALTHZ, tag = "metrics", security(()), responses((status = 200, body = Health)))]
pub(super) async fn healthz() -> Json<Health> {
    Json(health("ok"))
}

/// Tells whether a call would succeed: the store, the ledger and a provider are available.
#[utoipa::path(get, path = routes::READYZ, tag = "metrics", security(()), responses(
    (status = 200, body = Health), (status = 503, body = Health)))]
pub(super) async fn readyz(State(controller): Shared) -> (StatusCode, Json<Health>) {
    let stored = controller.store.projected_height().await.is_ok();
    let provided = controller.providers.all().iter().any(|seen| !seen.link.load().draining);
    if stored && provided && !controller.shutdown.is_cancelled() {
        (StatusCode::OK, Json(health("ok")))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(health("starting")))
    }
}

fn health(status: &str) -> Health {
    Health {
        status: status.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
