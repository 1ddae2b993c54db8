//! `/execute/{id}`: one invocation; and the shape of HTTP answers at `/fn/`.

use std::collections::BTreeMap;

use piecework_model::{Credits, JobId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use utoipa::ToSchema;

use crate::{few, functions::Changes, schemas::Ucr, units};

/// `POST /execute/{id}`. The values stay text: the function gets them unchanged.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Execute {
    /// The event; `null` if absent.
    #[serde(default = "null")]
    #[schema(value_type = Value)]
    pub input: Box<RawValue>,
    /// `context.parameters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub parameters: Option<Box<RawValue>>,
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// `POST /execute`. At most one of `code` and `bundle`; without `function`, exactly one, and its `language`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunCode {
    /// Name or id of a function of the caller's: what is not given here is as it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Which of its versions; the live one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// As in `POST /functions`, like all that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        alias = "timeout",
        deserialize_with = "units::timeout"
    )]
    #[schema(minimum = 1, maximum = 900_000)]
    pub timeout_ms: Option<u32>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        alias = "memory",
        deserialize_with = "units::memory"
    )]
    #[schema(minimum = 32, maximum = 4096)]
    pub memory_limit_mb: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 256)]
    pub process_limit: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1024)]
    pub disk_limit_mb: Option<u32>,
    /// Those named here are set, or removed if `null`; the function's others stay.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "few::map_given"
    )]
    pub env: Option<Changes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "few::list_given"
    )]
    pub egress: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 16_384)]
    pub egress_limit_mb: Option<u32>,
    /// The event; `null` if absent.
    #[serde(default = "null")]
    #[schema(value_type = Value)]
    pub input: Box<RawValue>,
    /// `context.parameters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub parameters: Option<Box<RawValue>>,
}

impl Default for RunCode {
    fn default() -> Self {
        Self {
            function: None,
            version: None,
            language: None,
            code: None,
            bundle: None,
            handler: None,
            timeout_ms: None,
            memory_limit_mb: None,
            process_limit: None,
            disk_limit_mb: None,
            env: None,
            sandbox: None,
            egress: None,
            egress_limit_mb: None,
            input: null(),
            parameters: None,
        }
    }
}

/// 200 of `POST /execute/{id}` and `POST /execute`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Executed {
    #[schema(value_type = String, example = "job_0123456789abcdef0123456789abcdef")]
    pub job_id: JobId,
    /// The function's return value.
    #[schema(value_type = Value)]
    pub output: Box<RawValue>,
    /// Whether a new instance was started for it.
    pub cold: bool,
    /// Wall time of the handler, with a fraction down to microseconds.
    pub duration_ms: f64,
    #[schema(value_type = Ucr)]
    pub price_ucr: Credits,
}

/// 202 of `POST /execute/{id}` with `Prefer: respond-async`: the job is durable.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    #[schema(value_type = String)]
    pub job_id: JobId,
}

/// The event of a call at `/fn/{owner}/{name}/...`. Trailers of the request are dropped.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct HttpEvent {
    pub method: String,
    /// The path after the function's name, percent-decoded; at least `/`. What is not UTF-8 becomes U+FFFD.
    pub path: String,
    /// The same as the client sent it.
    #[serde(default)]
    pub raw_path: String,
    /// What stood before it: `/fn/{owner}/{name}`, or nothing at the function's own origin.
    #[serde(default)]
    pub base_path: String,
    /// The last value of each name.
    pub query: BTreeMap<String, String>,
    /// Every name and value, in the order of the query.
    #[serde(default)]
    pub query_list: Vec<(String, String)>,
    /// The query as the client sent it, without the `?`; empty if there is none.
    #[serde(default)]
    pub raw_query: String,
    /// Lower-case names; the values of a name that was sent several times are joined by `, ` (cookies by `; `). Bytes that are
    /// not UTF-8 as in ISO 8859-1. A token of the platform in `authorization` is left out, and `cookie` unless the request came
    /// to the function's own origin.
    pub headers: BTreeMap<String, String>,
    /// Every name and value in their order, without those; bytes that are not ASCII as in ISO 8859-1.
    #[serde(default)]
    pub header_list: Vec<(String, String)>,
    /// `http` or `https`, as in the function's URL.
    #[serde(default)]
    pub scheme: String,
    #[serde(default)]
    pub client: HttpClient,
    /// Parsed if it is JSON, otherwise text; null if there is none, or none that is UTF-8.
    #[serde(default)]
    #[schema(value_type = Option<Value>)]
    pub body: Option<Box<RawValue>>,
    /// Where the body was parsed: its text, byte by byte as it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_body: Option<String>,
    /// The body if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// True where the body is larger than an event: `body` is null, and the function reads it as a stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub body_stream: bool,
}

/// Who sent a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HttpClient {
    /// IP address at the other end of the connection: behind a proxy of the operator's, that of the proxy.
    pub address: String,
    pub port: u16,
}

/// An explicit HTTP response: an output at `/fn/` with a whole-number `status` and no keys other than these.
/// Any other output is sent with status 200: a string as `text/plain`, bytes as `application/octet-stream`, the rest as
/// JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpAnswer {
    /// 200 to 599.
    pub status: u16,
    /// A list sends the header once for each of its values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, HeaderValues>,
    /// Sent after `headers`, in this order; names may repeat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header_list: Vec<(String, String)>,
    /// A string is sent unchanged, anything else as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub body: Option<Value>,
    /// Bytes; not together with `body`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// What a header of an [`HttpAnswer`] says: once, or several times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum HeaderValues {
    One(String),
    Several(Vec<String>),
}

impl HeaderValues {
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Several(values) => values,
        }
    }
}
