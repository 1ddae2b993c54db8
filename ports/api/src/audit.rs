//! `/audit` and `/accounts/{name}/limits`: the audit log, and limits that an operator sets for an account.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// `GET /audit`: an operator's token sees everything, any other token sees what its account did or owns.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only actions with this prefix, like `function.` or `token.created`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Only changes to this subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One change, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    pub id: u64,
    pub at: Timestamp,
    /// Account that made the change; `platform` for automatic changes.
    pub actor: String,
    /// Owner of the changed thing.
    pub owner: String,
    /// `function.updated`, `token.created`, `traffic.set`, ...
    pub action: String,
    /// Name or id.
    pub target: String,
    #[schema(value_type = Value)]
    pub detail: Value,
}

/// What an account keeps on the server, and the most it may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageView {
    pub items: Vec<UsageItem>,
}

/// One kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageItem {
    /// `outputs`, `logs`, `jobs`, `inputs`, `bundles`, `versions` or `functions`.
    pub kind: String,
    /// `bytes` or `items`.
    pub unit: String,
    pub used: u64,
    pub limit: u64,
}

/// `PUT /accounts/{name}/limits`, operators only; absent fields return to their defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccountLimits {
    /// Sustained requests per second, 1 to 100000; the operator's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100_000)]
    pub requests_per_s: Option<u32>,
    /// Burst size in requests, 1 to 100000; twice the rate if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100_000)]
    pub burst: Option<u32>,
    /// Weight against other accounts when slots are scarce, 1 to 100; 1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub weight: Option<u32>,
    /// MiB of stored outputs; the oldest are dropped beyond. 1024 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs_mb: Option<u32>,
    /// MiB of stored logs; the oldest are dropped beyond. 256 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs_mb: Option<u32>,
    /// MiB of job records; the oldest paid ones are dropped beyond. 1024 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs_mb: Option<u32>,
    /// MiB of inputs of asynchronous jobs that have not ended. 256 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs_mb: Option<u32>,
    /// MiB of bundles on disk. 512 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundles_mb: Option<u32>,
    /// Versions of all functions. 2000 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versions: Option<u32>,
    /// Functions, deleted ones included while they can be restored. 300 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub functions: Option<u32>,
}
