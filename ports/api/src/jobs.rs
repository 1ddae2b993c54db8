//! `/jobs`: a job's record, its history on the ledger, its logs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use piecework_model::{Credits, Digest, FunctionId, JobId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

pub use piecework_model::JobState;

use crate::{
    errors::Refusal,
    results::ResultView,
    schemas::{JobStateName, Ucr},
};

/// One job.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    #[schema(value_type = String)]
    pub id: JobId,
    /// The function's name. Its id stays valid after a deletion.
    pub function: String,
    #[schema(value_type = String)]
    pub function_id: FunctionId,
    /// 0 of code that was not deployed (`POST /execute`).
    pub version: u32,
    /// Digest of the code that ran, with its packages; absent while queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub code_digest: Option<Digest>,
    /// The account that pays.
    pub developer: String,
    /// The account that ran it; absent while queued.
    pub provider: Option<String>,
    /// The backend that ran it.
    pub sandbox: Option<String>,
    /// Why this backend ran it: the reason of this job, else that of its version. Only in `GET /jobs/{id}`; absent where the job has
    /// not run, and where its version runs elsewhere by now or is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_reason: Option<String>,
    #[schema(value_type = JobStateName)]
    pub state: JobState,
    /// Whether its instance was started for it; `null` if it has not run.
    pub cold: Option<bool>,
    pub created_at: Timestamp,
    /// Time from arrival to the start on a provider.
    pub queued_ms: f64,
    /// Time to fetch and load the code; never billed.
    pub pull_ms: f64,
    /// Wall time of the handler.
    pub duration_ms: f64,
    pub cpu_us: u64,
    /// Memory used over time: bytes x milliseconds.
    pub memory_byte_ms: u64,
    pub memory_peak_bytes: u64,
    pub egress_bytes: u64,
    #[schema(value_type = Ucr)]
    pub price_ucr: Credits,
    /// Part of the price that does not go to the provider; known once paid.
    #[schema(value_type = Option<Ucr>)]
    pub commission_ucr: Option<Credits>,
    /// Whether the result arrived at the developer's mailbox.
    pub received: bool,
    /// Whether the job is paid on the ledger.
    pub paid: bool,
    /// Block of the payment.
    pub paid_height: Option<u64>,
    /// Only in `GET /jobs/{id}`, not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub output: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Refusal>,
    /// Where the output is, if it is not in `output`. Only in `GET /jobs/{id}`, not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ResultView>,
    /// The job that this one replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub replaces: Option<JobId>,
    /// The job whose result was compared with this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub rerun_of: Option<JobId>,
    /// What its digests on the ledger are salted with, in hex: show it to those who are to check them. Without it nobody can try
    /// out what the job's input or output was. Absent where no receipt came; of no use where the provider's program is too old
    /// to salt digests, or the job is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest_salt: Option<String>,
    /// Why its receipt is not paid, or waits for a decision; only in `GET /jobs/{id}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<crate::held::HeldView>,
    /// Why other providers did not get the job; only in `GET /jobs/{id}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<PassedOverView>,
}

/// Why providers did not get a job: at most 20 of them, and counts of the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PassedOverView {
    pub providers: Vec<PassedOverProvider>,
    /// Providers that are not listed, counted by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PassedOverProvider {
    /// The provider's name.
    pub provider: String,
    /// `not_pinned`, `silent`, `draining`, `no_backend`, `no_egress`, `too_little_memory`, `too_dear`, `wrong_region`,
    /// `missing_label`, `too_little_trust`, `no_free_slot`, `no_free_memory`, `refused`, `has_run` or `outranked`.
    pub reason: String,
}

/// `GET /jobs`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct JobsQuery {
    /// Id or name of a function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// One of the states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `GET /jobs/{id}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct JobQuery {
    /// Wait for the job to finish, at most this long (maximum 60000).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u32>,
}

/// A step in the life of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobEventKind {
    /// It has a ticket (if strict, it is also on the ledger).
    Opened,
    Assigned,
    /// The provider's signed receipt was checked.
    Metered,
    /// The result arrived and was acked.
    Received,
    /// The credits moved.
    Paid,
    Failed,
    TimedOut,
    Cancelled,
    Expired,
    Claimed,
    Refunded,
    /// Another job replaced it.
    Replaced,
}

impl JobEventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Assigned => "assigned",
            Self::Metered => "metered",
            Self::Received => "received",
            Self::Paid => "paid",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Claimed => "claimed",
            Self::Refunded => "refunded",
            Self::Replaced => "replaced",
        }
    }
}

/// One line of `GET /jobs/{id}/history`, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobEvent {
    pub event: JobEventKind,
    /// When it happened, by the observer's clock.
    pub at: Timestamp,
    /// Block, block time and transaction, if it is on the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<String>,
    /// A sentence: the chosen provider and why, the error, the counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// With `paid`: the credits that moved; the amounts add up to zero.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<Movement>,
}

/// Credits that moved on one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Movement {
    /// Name of an account, or `pool:peers` or `pool:insurance`.
    pub account: String,
    /// Negative for the payer.
    #[schema(value_type = Ucr)]
    pub amount_ucr: Credits,
}

/// `GET /jobs/{id}/logs`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobLogs {
    #[schema(value_type = String)]
    pub job_id: JobId,
    /// Standard output and standard error in order, without levels and times.
    pub text: String,
    /// The same, line by line.
    #[serde(default)]
    pub lines: Vec<LogLineView>,
    /// Whether it was truncated; a marker shows where.
    pub truncated: bool,
}

/// Severity of a line. Standard output is `info`, standard error is `error`. A line can set its own level with a prefix
/// `<0>` to `<7>` (syslog severities), as lines from Python's `logging` and JavaScript's `console` do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    pub const ALL: [Self; 4] = [Self::Debug, Self::Info, Self::Warn, Self::Error];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One line of a job's logs. The job's id is the trace id: every response about the job has it in `X-Job-Id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLineView {
    pub at: Timestamp,
    pub level: LogLevel,
    pub text: String,
}

/// `GET /jobs/{id}/logs`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct JobLogsQuery {
    /// Only lines at this level or above: `debug`, `info`, `warn` or `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub level: Option<LogLevel>,
}

/// One job's logs in `GET /functions/{id}/logs`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FunctionLogsItem {
    #[schema(value_type = String)]
    pub job_id: JobId,
    pub version: u32,
    #[schema(value_type = JobStateName)]
    pub state: JobState,
    pub at: Timestamp,
    pub text: String,
    /// The same, line by line.
    #[serde(default)]
    pub lines: Vec<LogLineView>,
    pub truncated: bool,
}

/// `GET /functions/{id}/logs`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct FunctionLogsQuery {
    /// Only jobs newer than this one; use it to follow the logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Wait until there is something new, at most this long (maximum 30000).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u32>,
    /// Number of newest jobs, 1 to 1000; 20 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only lines at this level or above: `debug`, `info`, `warn` or `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub level: Option<LogLevel>,
}
