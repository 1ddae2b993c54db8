//! `/functions`: deploying, listing, versions, rolling back, quoting.

use std::collections::BTreeMap;

use jiff::Timestamp;
use piecework_model::{Credits, Digest, FunctionId, Language};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::schemas::Ucr;

/// `POST /functions`. Exactly one of `code` and `bundle`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateFunction {
    /// 1 to 30 of a-z, 0-9 and -; unique among the owner's functions.
    #[schema(example = "hello", min_length = 1, max_length = 30)]
    pub name: String,
    /// `python` or `javascript`.
    #[schema(example = "python")]
    pub language: String,
    /// The text of one source file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "def handler(event, context):\n    return {\"hello\": event}")]
    pub code: Option<String>,
    /// A tar archive in base64, plain or compressed by gzip or zstd; `main.py` or `main.mjs` at its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// `file` or `file:function`; `main.py:handler` and the default export of `main.mjs` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// Wall time of one run: 1 to 900000, 5000 if never given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 900_000)]
    pub timeout_ms: Option<u32>,
    /// MiB: 32 to 4096, 128 if never given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 32, maximum = 4096)]
    pub memory_limit_mb: Option<u32>,
    /// Plain variables: shown to the owner. On an update the whole set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Sealed at rest, never shown again, cut out of logs. On an update the whole set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<BTreeMap<String, String>>,
    /// `auto` (wasm where the function loads there, else jail) or one backend; a missing one is refused, never replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "auto")]
    pub sandbox: Option<String>,
    /// Record each job on the ledger before it is dispatched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Whether `/fn/{owner}/{name}` answers callers without a token; the owner pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// Runs at one time, 1 to 1000; more wait in a bounded queue, then get 429.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub concurrency: Option<u32>,
}

/// `PUT /functions/{id}`: a new version, live at once. Without `code` and `bundle` the code stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateFunction {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// As in `POST /functions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// Wall time of one run: 1 to 900000, 5000 if never given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 900_000)]
    pub timeout_ms: Option<u32>,
    /// MiB: 32 to 4096, 128 if never given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 32, maximum = 4096)]
    pub memory_limit_mb: Option<u32>,
    /// Plain variables: shown to the owner. On an update the whole set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Sealed at rest, never shown again, cut out of logs. On an update the whole set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<BTreeMap<String, String>>,
    /// `auto` (wasm where the function loads there, else jail) or one backend; a missing one is refused, never replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "auto")]
    pub sandbox: Option<String>,
    /// Record each job on the ledger before it is dispatched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Whether `/fn/{owner}/{name}` answers callers without a token; the owner pays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// Runs at one time, 1 to 1000; more wait in a bounded queue, then get 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub concurrency: Option<u32>,
}

/// What a version is run with, as a request gives it: an absent field keeps its value, or its default on a new function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Wall time of one run: 1 to 900000, 5000 if never given.
    pub timeout_ms: Option<u32>,
    /// MiB: 32 to 4096, 128 if never given.
    pub memory_limit_mb: Option<u32>,
    /// Plain variables: shown to the owner. On an update the whole set.
    pub env: Option<BTreeMap<String, String>>,
    /// Sealed at rest, never shown again, cut out of logs. On an update the whole set.
    pub secrets: Option<BTreeMap<String, String>>,
    /// `auto` (wasm where the function loads there, else jail) or one backend; a missing one is refused, never replaced.
    pub sandbox: Option<String>,
    /// Record each job on the ledger before it is dispatched.
    pub strict: Option<bool>,
    /// Whether `/fn/{owner}/{name}` answers callers without a token; the owner pays.
    pub public: Option<bool>,
    /// Runs at one time, 1 to 1000; more wait in a bounded queue, then get 429.
    pub concurrency: Option<u32>,
}

impl CreateFunction {
    pub fn settings(&self) -> Settings {
        Settings {
            timeout_ms: self.timeout_ms,
            memory_limit_mb: self.memory_limit_mb,
            env: self.env.clone(),
            secrets: self.secrets.clone(),
            sandbox: self.sandbox.clone(),
            strict: self.strict,
            public: self.public,
            concurrency: self.concurrency,
        }
    }
}

impl UpdateFunction {
    pub fn settings(&self) -> Settings {
        Settings {
            timeout_ms: self.timeout_ms,
            memory_limit_mb: self.memory_limit_mb,
            env: self.env.clone(),
            secrets: self.secrets.clone(),
            sandbox: self.sandbox.clone(),
            strict: self.strict,
            public: self.public,
            concurrency: self.concurrency,
        }
    }
}

/// Whether a function can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FunctionStatus {
    Ready,
    /// Packages are being resolved or the code is being loaded.
    Building,
    /// The newest version does not load; an older one may be live.
    Failed,
    /// Failed too often in a row; a new version lifts it.
    Quarantined,
}

/// A function as its owner sees it: the live version's settings.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FunctionView {
    #[schema(value_type = String, example = "fn_0123456789abcdef01234567")]
    pub id: FunctionId,
    pub name: String,
    pub owner: String,
    /// The live version.
    pub version: u32,
    #[schema(value_type = String)]
    pub language: Language,
    pub status: FunctionStatus,
    /// Where it answers as a plain URL.
    pub url: String,
    /// The backend that runs it.
    pub sandbox: String,
    /// Why this backend: what `auto` found, or that it was asked for.
    pub sandbox_reason: String,
    pub handler: Option<String>,
    pub timeout_ms: u32,
    pub memory_limit_mb: u32,
    pub env: BTreeMap<String, String>,
    /// Names alone: values never leave.
    pub secret_names: Vec<String>,
    /// What was resolved at deploy, as `name==version` or `name@version`.
    pub packages: Vec<String>,
    pub public: bool,
    pub concurrency: u32,
    pub strict: bool,
    /// Digest of the live version's bundle.
    #[schema(value_type = String)]
    pub code_digest: Digest,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// One version of a function. Versions count from 1 and are never changed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VersionView {
    pub version: u32,
    pub live: bool,
    #[schema(value_type = String)]
    pub language: Language,
    pub sandbox: String,
    pub sandbox_reason: String,
    #[schema(value_type = String)]
    pub code_digest: Digest,
    pub code_bytes: u64,
    pub timeout_ms: u32,
    pub memory_limit_mb: u32,
    pub packages: Vec<String>,
    pub created_at: Timestamp,
}

/// `POST /functions/{id}/rollback`: makes an old version live again.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    #[schema(minimum = 1)]
    pub version: u32,
}

/// `GET /functions`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct FunctionsQuery {
    /// Only names that contain this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Prices in whole ucr per unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PricesView {
    pub start_ucr: u64,
    pub cpu_ucr_per_s: u64,
    pub memory_ucr_per_gib_s: u64,
    pub egress_ucr_per_mib: u64,
}

impl From<piecework_model::Prices> for PricesView {
    fn from(prices: piecework_model::Prices) -> Self {
        Self {
            start_ucr: prices.start_ucr,
            cpu_ucr_per_s: prices.cpu_ucr_per_s,
            memory_ucr_per_gib_s: prices.memory_ucr_per_gib_s,
            egress_ucr_per_mib: prices.egress_ucr_per_mib,
        }
    }
}

/// `GET /functions/{id}/quote`: what a run costs before it is run.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QuoteView {
    pub function: String,
    pub version: u32,
    /// The dearest prices that a job may be given.
    pub prices: PricesView,
    /// Charged if it uses nothing.
    #[schema(value_type = Ucr)]
    pub price_min_ucr: Credits,
    /// Reserved before a run: it cannot cost more.
    #[schema(value_type = Ucr)]
    pub price_max_ucr: Credits,
    /// The median of the last jobs; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Ucr>)]
    pub price_typical_ucr: Option<Credits>,
    /// Over how many jobs the median was taken.
    pub jobs_seen: u32,
    /// The ledger's share of each payment, in thousandths; the provider gets the rest.
    pub commission_permille: u32,
}
