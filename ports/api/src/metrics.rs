//! `/metrics`: counters over time, and the events stream.

use jiff::Timestamp;
use piecework_model::Credits;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::schemas::Ucr;

/// `GET /metrics/functions/{id}` and `GET /metrics/system`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct MetricsQuery {
    /// Start time in RFC 3339; an hour ago if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// End time in RFC 3339, exclusive; now if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// `minute`, `hour` or `day`; if absent, the finest step that gives at most 1500 points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Only this version of the function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// Counters over a period; steps in which nothing happened are left out.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MetricsView {
    pub from: Timestamp,
    pub to: Timestamp,
    pub step: String,
    pub points: Vec<MetricsPoint>,
}

/// One step.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MetricsPoint {
    /// Start of the step.
    pub at: Timestamp,
    /// Number of jobs.
    pub count: u64,
    /// Number of those jobs that did not succeed.
    pub errors: u64,
    pub cold: u64,
    /// cold / count.
    pub cold_ratio: f64,
    /// Of the handler's wall time.
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub cpu_us: u64,
    pub memory_peak_bytes: u64,
    #[schema(value_type = Ucr)]
    pub price_ucr: Credits,
}

/// Data of one server-sent event of `GET /events`; the `event:` line repeats `kind`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StreamEvent {
    /// `job`, `block` or `provider`.
    pub kind: String,
    pub at: Timestamp,
    /// A JobView, BlockView or ProviderView.
    #[schema(value_type = Value)]
    pub body: Value,
}

/// `GET /healthz` and `GET /readyz`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`, `starting`, `stalled` while no block of the ledger becomes final, or `disk_low` while new work and data are refused for want of disk space.
    pub status: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskView>,
}

/// Room on the server's disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskView {
    /// `ample`; `low`: free some space; `reserved`: new work and data are refused, the ledger and settlement go on.
    pub level: String,
    pub free_bytes: u64,
    /// Below it the level is `low`.
    pub low_bytes: u64,
    /// Below it the level is `reserved`.
    pub reserve_bytes: u64,
}
