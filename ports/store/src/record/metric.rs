//! What is asked of the metrics, and the answer.

use piecework_model::FunctionId;
use serde::{Deserialize, Serialize};

/// Whose metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricScope {
    System,
    Function(FunctionId),
    Version(FunctionId, u32),
}

/// All finished jobs of one scope that were created in `[start_ms, start_ms + step)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    pub start_ms: u64,
    pub count: u64,
    /// Failed, timed out or expired.
    pub errors: u64,
    pub cold: u64,
    /// Sums over the jobs.
    pub cpu_us: u64,
    pub duration_us: u64,
    pub price_ucr: u64,
    /// The highest of any job.
    pub memory_peak_bytes: u64,
    /// Of the handlers' wall time; within 1 % of the exact value.
    pub p50_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
}
