//! Where results go and how long they are kept.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `PUT /functions/{id}/results`, and `results` of a deploy: the whole of it. Empty: results stay with their jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SetResults {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<SinkBody>,
    /// Seconds from a job's beginning after which its output goes; with its job's record if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub ttl_s: Option<u64>,
}

/// A place of the developer's own for results. Private addresses are refused unless the operator allows them, redirects not
/// followed. Whoever answers with a status of 200 to 299 has the result; 410 says never again; anything else is tried again for
/// a day. What opens the door is sealed at rest and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum SinkBody {
    /// `PUT` of each output; `{job}` in the URL stands for the job's id, which is appended where it is not in it.
    Http {
        #[schema(example = "https://results.example.org/in/{job}.json")]
        url: String,
        /// Sent as `Authorization: Bearer`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
    /// `POST` of what became of each job, failures too, signed as Standard Webhooks has it.
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
        /// Of a credential that was lent for a time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_token: Option<String>,
        /// When the credential ends: results wait for another one then.
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

/// A sink without what opens it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SinkView {
    /// `http`, `webhook` or `s3`.
    pub kind: String,
    pub to: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResultState {
    /// With the job, until it expires.
    Kept,
    /// On its way to the function's sink; with the job until then.
    Delivering,
    /// At the sink, and no longer with the job.
    Delivered,
    /// The sink does not take it: it stays with the job.
    Undelivered,
    Expired,
}

/// Where a job's result is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResultView {
    pub state: ResultState,
    /// Deliveries tried.
    pub attempts: u32,
    /// Where it went, or what the sink said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}
