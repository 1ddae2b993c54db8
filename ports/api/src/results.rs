//! Where results go and how long they are kept.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use piecework_model::ResultState;

use crate::schemas::ResultStateName;

/// `PUT /functions/{id}/results`, and `results` of a deploy; replaces the setting as a whole. Empty: results stay with
/// their jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SetResults {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<SinkBody>,
    /// Seconds after the start of a job after which its output is deleted; if absent, together with the job's record.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub ttl_s: Option<u64>,
}

/// The developer's destination for results. Private addresses are refused unless the operator allows them; redirects
/// are not followed. A status of 200 to 299 means that the result was delivered, 410 means do not try again, and
/// anything else is retried for a day. Credentials are encrypted at rest and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum SinkBody {
    /// `PUT` of each output; `{job}` in the URL is replaced by the job's id, which is appended if it is missing.
    Http {
        #[schema(example = "https://results.example.org/in/{job}.json")]
        url: String,
        /// Sent as `Authorization: Bearer`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
    /// `POST` of each job's outcome, failures too, signed according to Standard Webhooks.
    Webhook {
        url: String,
        /// `whsec_` and base64, or any text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        secret: Option<String>,
    },
    /// An object `PREFIX` + job id + `.json` for each output.
    S3 {
        #[schema(example = "https://s3.eu-central-1.amazonaws.com")]
        endpoint: String,
        bucket: String,
        region: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<String>,
        access_key: String,
        secret_key: String,
        /// For a temporary credential.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_token: Option<String>,
        /// When the credential expires; results then wait for a new one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
    },
}

impl fmt::Debug for SinkBody {
    /// Nearly everything in it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http { .. } => "Http",
            Self::Webhook { .. } => "Webhook",
            Self::S3 { .. } => "S3",
        })
    }
}

/// Where a function's results go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResultsView {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<SinkView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
}

/// A sink without its credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SinkView {
    /// `http`, `webhook` or `s3`.
    pub kind: String,
    pub to: String,
}

/// Where a job's result is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResultView {
    #[schema(value_type = ResultStateName)]
    pub state: ResultState,
    /// Number of delivery attempts.
    pub attempts: u32,
    /// Where it went, or the sink's last response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}
