//! What was said while versions were made, for their developers.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What resolving packages, translating TypeScript and loading the code said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildLogView {
    pub function: String,
    /// Absent for a deploy that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Absent if no log is kept of the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Lines; at most 64 KiB.
    pub text: String,
}

/// `GET /failed-deploys`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct FailedDeploysQuery {
    /// Only deploys of the function with this name or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
}
