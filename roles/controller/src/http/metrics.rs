//! `/metrics`, `/healthz`, `/readyz`: counters over time and for Prometheus; whether the controller works.

use std::sync::{Arc, atomic::AtomicU64};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use piecework_api::{
    accounts::Scope,
    errors::ErrorBody,
    ledger::ProviderState,
    metrics::{DiskView, Health, MetricsQuery, MetricsView},
    routes,
};
use piecework_disk::Level;
use piecework_model::Code;
use piecework_store::MetricScope;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Authenticated, HttpResult, Path, Query, Shared};
use crate::{
    Answer, Controller,
    clock::{now_ms, timestamp},
    failure::{refuse, store},
    functions,
    http::views,
    providers::seen::Seen,
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
    let id = functions::own_ever(&controller.functions, authenticated.with(Scope::View)?, &id).await?;
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
    let points = controller
        .ground
        .store
        .points(scope, from, to, step)
        .await
        .map_err(store)?;
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

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<u64, AtomicU64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

/// By state and as sums: providers have names, and metrics have none.
fn of_providers(registry: &mut Registry, all: &[Arc<Seen>]) {
    let states = Family::<InState, Gauge>::default();
    let (mut slots, mut cores, mut memory) = (0, 0, 0);
    for seen in all {
        let (state, profile) = (seen.state(), seen.link.profile());
        states.get_or_create(&InState { state: state.as_str() }).inc();
        if state == ProviderState::Gone {
            continue;
        }
        slots += u64::from(profile.slots);
        cores += u64::from(profile.cores);
        memory += profile.memory_bytes;
    }
    registry.register(
        "providers_by_state",
        "Providers by state; gone ones are counted for an hour",
        states,
    );
    gauge(registry, "provider_slots", "Slots of connected providers", slots);
    gauge(
        registry,
        "provider_cores",
        "Cores that connected providers offer",
        cores,
    );
    gauge(
        registry,
        "provider_memory_bytes",
        "Memory that connected providers offer",
        memory,
    );
}

/// What Prometheus reads at this moment.
fn registry(controller: &Controller) -> Registry {
    let mut root = Registry::default();
    piecework_serve::metrics::process(&mut root, env!("CARGO_PKG_VERSION"), "controller");
    let registry = root.sub_registry_with_prefix("piecework");
    controller.ground.telemetry.register(registry);
    let lag = controller.ground.store.lag();
    let status = controller.ground.chain.status();
    let disk = controller.ground.disk.reading();
    gauge(
        registry,
        "disk_free_bytes",
        "Free bytes of the disk with the data that is nearest to its end",
        disk.free_bytes,
    );
    gauge(
        registry,
        "disk_level",
        "0 ample, 1 low, 2 reserved: new work and data are refused",
        disk.level as u64,
    );
    gauge(
        registry,
        "jobs_inflight",
        "Jobs on their way",
        controller.calls.inflight.len() as u64,
    );
    gauge(
        registry,
        "jobs_queued",
        "Accepted jobs that wait or run",
        controller.calls.queue.len() as u64,
    );
    gauge(
        registry,
        "jobs_in_line",
        "Jobs that wait for a slot",
        controller.providers.fair.waiting() as u64,
    );
    gauge(
        registry,
        "outbox_receipts",
        "Receipts that wait for their settlement",
        controller.money.outbox.len() as u64,
    );
    gauge(
        registry,
        "journal_jobs",
        "Jobs in the journal and not in the tables yet",
        lag.jobs,
    );
    gauge(
        registry,
        "ledger_height",
        "Height of the last final block",
        status.height,
    );
    gauge(
        registry,
        "ledger_queued",
        "Transactions that wait for a block",
        u64::from(status.queued),
    );
    gauge(
        registry,
        "alerts_firing",
        "Conditions that operators are told of",
        controller.alerts.firing(),
    );
    let all = controller.providers.all();
    let (instances, running) = all.iter().fold((0, 0), |(instances, running), seen| {
        let load = seen.link.load();
        (instances + u64::from(load.instances), running + u64::from(load.running))
    });
    gauge(registry, "warm_instances", "Idle instances", instances);
    gauge(registry, "running_instances", "Instances that serve a job", running);
    gauge(registry, "providers", "Providers that are connected", all.len() as u64);
    of_providers(registry, &all);
    gauge(
        registry,
        "ledger_last_block_timestamp_seconds",
        "Time of the last final block, since 1970",
        status.last_block_at_ms / 1_000,
    );
    root
}

/// Metrics as Prometheus text, in OpenMetrics format if you accept it. They reveal nothing about single functions or accounts, so they need no token.
#[utoipa::path(get, path = routes::METRICS, tag = "metrics", security(()), responses(
    (status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn prometheus(State(controller): Shared, headers: HeaderMap) -> Response {
    let (kind, text) = piecework_serve::metrics::exposition(&registry(&controller), &headers);
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Tells whether the process is alive, and how much room its disk has.
#[utoipa::path(get, path = routes::HEALTHZ, tag = "metrics", security(()), responses((status = 200, body = Health)))]
pub(super) async fn healthz(State(controller): Shared) -> Json<Health> {
    Json(health(&controller, "ok"))
}

/// Tells whether a call would succeed: the store, the ledger, a provider and room on the disk are available.
#[utoipa::path(get, path = routes::READYZ, tag = "metrics", security(()), responses(
    (status = 200, body = Health), (status = 503, body = Health)))]
pub(super) async fn readyz(State(controller): Shared) -> (StatusCode, Json<Health>) {
    let stored = controller.ground.store.projected_height().await.is_ok();
    let provided = controller.providers.all().iter().any(|seen| !seen.link.load().draining);
    let works = stored && provided && !controller.ground.shutdown.is_cancelled();
    let status = match (works, has_room(&controller)) {
        (_, false) => "disk_low",
        (false, true) => "starting",
        (true, true) => return (StatusCode::OK, Json(health(&controller, "ok"))),
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(health(&controller, status)))
}

fn has_room(controller: &Controller) -> bool {
    controller.ground.disk.reading().level != Level::Reserved
}

/// How much room there is tells nobody anything but whether to come back later.
fn health(controller: &Controller, status: &str) -> Health {
    let disk = controller.ground.disk.reading();
    Health {
        status: status.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        disk: Some(DiskView {
            level: disk.level.as_str().to_owned(),
            free_bytes: disk.free_bytes,
            low_bytes: disk.marks.low_bytes,
            reserve_bytes: disk.marks.reserve_bytes,
        }),
    }
}
