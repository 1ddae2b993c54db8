//! `/audit` and `/accounts/{name}/limits`: who changed what; what an operator set for an account.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// `GET /audit`: an operator's token sees everything, another what its account did or owns.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only actions that begin so, as `function.` or `token.created`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Only what was done to this.
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
    /// The account that did it; `platform` where nobody did.
    pub actor: String,
    /// Whose the changed thing is.
    pub owner: String,
    /// `function.updated`, `token.created`, `traffic.set`, ...
    pub action: String,
    /// A name or an id.
    pub target: String,
    #[schema(value_type = Value)]
    pub detail: Value,
}

/// `PUT /accounts/{name}/limits`, by an operator; what is absent goes back to the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccountLimits {
    /// Requests a second that are taken on the long run, 1 to 100000; the operator's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100_000)]
    pub requests_per_s: Option<u32>,
    /// Requests that may come at once, 1 to 100000; twice the rate if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100_000)]
    pub burst: Option<u32>,
    /// Share of the slots against other accounts while they are short, 1 to 100; 1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub weight: Option<u32>,
}
