//! What calls functions by itself.

use jiff::Timestamp;
use piecework_model::{AnyCode, FunctionId, JobId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// `PUT /functions/{id}/triggers/{name}`; replaces the trigger as a whole.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTrigger {
    pub schedule: Schedule,
    /// Input of each call, up to 16 KiB; if absent, `{"trigger": NAME, "at": TIME}` with the time for which the call was
    /// scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub input: Option<Box<RawValue>>,
    /// A paused trigger starts nothing, and what it missed is not made up for.
    #[serde(default)]
    pub paused: bool,
}

/// At which times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Minute, hour, day of month, month and day of week; or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    #[schema(example = "30 6 * * MON-FRI")]
    pub cron: String,
    /// IANA name of the time zone in which the pattern is read. A time that the clock skips runs right after the gap; a
    /// time that the clock repeats runs once.
    #[serde(default = "utc")]
    #[schema(example = "Europe/Berlin")]
    pub time_zone: String,
    #[serde(default)]
    pub missed: Missed,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// What becomes of calls whose time passed while the server was not running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// The last of them runs as soon as possible.
    #[default]
    RunLast,
    Skip,
}

/// One trigger.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TriggerView {
    pub function: String,
    #[schema(value_type = String)]
    pub function_id: FunctionId,
    pub name: String,
    pub schedule: Schedule,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub input: Option<Box<RawValue>>,
    pub paused: bool,
    /// Absent while it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<TickView>,
}

/// What came of the last time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TickView {
    /// The time for which the call was scheduled.
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub job_id: Option<JobId>,
    /// Code of the refusal if no job was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub refused: Option<AnyCode>,
}
