//! Which pages of other sites may call a function at its URL.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which pages of other sites may call a function at its URL. Preflight requests are answered without a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsBody {
    /// Origins like `https://app.example.com`, or `*` for all; at most 32.
    #[schema(example = json!(["https://app.example.com"]))]
    pub origins: Vec<String>,
    /// Methods that they may use; GET, HEAD, POST, PUT, PATCH and DELETE if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// Request headers that they may send; those that they ask for if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<String>>,
    /// Response headers that their scripts may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// Whether they may send cookies and other credentials; not together with the origin `*`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight request: 0 to 86400; 600 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 86_400)]
    pub max_age_s: Option<u32>,
}
