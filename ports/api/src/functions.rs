//! `/functions`: deploying, listing, versions, rolling back, quoting.

use std::collections::BTreeMap;

use jiff::Timestamp;
use piecework_model::{Credits, Digest, FunctionId, Language};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    results::{ResultsView, SetResults},
    schemas::Ucr,
};

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
    /// What the function may cost in a calendar month (UTC): calls beyond get 402. 0 takes the budget away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub budget_ucr: Option<u64>,
    /// What it may reach on the network: `HOST:PORT`, where a host is a name, `*.NAME` or an IPv4 address. Absent or empty: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["api.example.com:443"]))]
    pub egress: Option<Vec<String>>,
    /// MiB that one run may move over the network, both ways together: 1 to 16384, 64 if never given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 16_384)]
    pub egress_limit_mb: Option<u32>,
    /// MiB that one run may stream at a plain URL, its answer and a large request body: 0 to 16384, 1024 if never given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 16_384)]
    pub stream_limit_mb: Option<u32>,
    /// Where its jobs may run; each part that is given replaces that part of it. Anywhere if never given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementBody>,
    /// Where results go and how long they are kept; the whole of it anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<SetResults>,
    /// Declares that equal inputs give equal outputs: this share of its jobs runs once more at another provider, at its
    /// owner's expense, and the results are compared; up to ten times as many where little is known of the provider. 0 if
    /// absent: it may not be deterministic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100)]
    pub rerun_percent: Option<u32>,
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
    /// What the function may cost in a calendar month (UTC): calls beyond get 402. 0 takes the budget away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub budget_ucr: Option<u64>,
    /// Percent of the calls that the new version gets; the live one keeps the rest and stays live. All if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 99)]
    pub canary: Option<u32>,
    /// As in `POST /functions`; an empty list shuts the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<String>>,
    /// MiB that one run may move over the network, both ways together: 1 to 16384, 64 if never given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 16_384)]
    pub egress_limit_mb: Option<u32>,
    /// MiB that one run may stream at a plain URL, its answer and a large request body: 0 to 16384, 1024 if never given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 16_384)]
    pub stream_limit_mb: Option<u32>,
    /// As in `POST /functions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementBody>,
    /// Where results go and how long they are kept; the whole of it anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<SetResults>,
    /// As in `POST /functions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100)]
    pub rerun_percent: Option<u32>,
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
    /// What the function may cost in a calendar month (UTC); 0 takes the budget away.
    pub budget_ucr: Option<u64>,
    /// What it may reach on the network; an empty list shuts it.
    pub egress: Option<Vec<String>>,
    /// MiB that one run may move over the network, both ways together.
    pub egress_limit_mb: Option<u32>,
    /// MiB that one run may stream at a plain URL.
    pub stream_limit_mb: Option<u32>,
    pub placement: Option<PlacementBody>,
    /// Where results go and how long they are kept; the whole of it anew.
    pub results: Option<SetResults>,
    pub rerun_percent: Option<u32>,
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
            budget_ucr: self.budget_ucr,
            egress: self.egress.clone(),
            egress_limit_mb: self.egress_limit_mb,
            stream_limit_mb: self.stream_limit_mb,
            placement: self.placement.clone(),
            results: self.results.clone(),
            rerun_percent: self.rerun_percent,
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
            budget_ucr: self.budget_ucr,
            egress: self.egress.clone(),
            egress_limit_mb: self.egress_limit_mb,
            stream_limit_mb: self.stream_limit_mb,
            placement: self.placement.clone(),
            results: self.results.clone(),
            rerun_percent: self.rerun_percent,
        }
    }
}

/// Where a function's jobs may run. In a request an absent part stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlacementBody {
    /// Only providers that say they are there; empty: anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "eu-north")]
    pub region: Option<String>,
    /// Only providers that have all of these; empty: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// The least trust: `new`, `known` or `trusted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "known")]
    pub trust: Option<String>,
    /// What a provider may ask for at the most; empty: what the community allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_cap: Option<PriceCap>,
    /// Only these: names or ids of providers, and `own` for those that belong to the function's owner; empty: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["own", "laptop"]))]
    pub pin: Option<Vec<String>>,
    /// `random`, `least-loaded`, `warm-first`, `cheapest`, or `default` for the community's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "cheapest")]
    pub policy: Option<String>,
}

/// The dearest prices that a provider may ask for; an absent part is the community's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PriceCap {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ucr: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ucr_per_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_ucr_per_gib_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_ucr_per_mib: Option<u64>,
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
    /// Its owner lets it take no calls.
    Stopped,
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
    /// What it may reach on the network; empty: nothing.
    pub egress: Vec<String>,
    /// MiB that one run may move over the network; 0 where it is off.
    pub egress_limit_mb: u32,
    /// MiB that one run may stream at a plain URL.
    #[serde(default)]
    pub stream_limit_mb: u32,
    /// Where its jobs may run; what is absent asks for nothing.
    #[serde(default)]
    pub placement: PlacementBody,
    /// Share of its jobs that run twice and are compared; 0 if it is not declared deterministic.
    #[serde(default)]
    pub rerun_percent: u32,
    /// Digest of the live version's bundle.
    #[schema(value_type = String)]
    pub code_digest: Digest,
    /// Where calls are spread over versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficView>,
    /// Where the live version takes no calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<QuarantineView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetView>,
    /// Where results go, unless they stay with their jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<ResultsView>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Where it was deleted and can be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
}

/// Why a version takes no calls.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QuarantineView {
    pub version: u32,
    /// The code of the last failure.
    pub code: String,
    /// Failures in a row.
    pub failures: u32,
    pub since: Timestamp,
}

/// What a function may cost in a calendar month.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BudgetView {
    #[schema(value_type = Ucr)]
    pub budget_ucr: Credits,
    /// In this month so far.
    #[schema(value_type = Ucr)]
    pub spent_ucr: Credits,
    pub month_began_at: Timestamp,
}

/// `PUT /functions/{id}/budget`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetBudget {
    /// For a calendar month (UTC); 0 takes the budget away.
    #[schema(minimum = 0)]
    pub budget_ucr: u64,
}

/// `PUT /functions/{id}/traffic`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTraffic {
    /// Version -> its share of the calls. 1 to 10 versions, shares 0 to 1000, not all zero.
    #[schema(example = json!({"3": 90, "4": 10}))]
    pub weights: BTreeMap<u32, u32>,
    /// A version other than the live one that fails more often than this, in thousandths, loses its share. 100 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1000)]
    pub errors_permille_max: Option<u32>,
    /// Calls of a version before it is judged: 1 to 100000, 20 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100_000)]
    pub calls_min: Option<u32>,
}

/// How calls are spread over versions.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TrafficView {
    pub versions: Vec<ShareView>,
    pub errors_permille_max: u32,
    pub calls_min: u32,
    pub since: Timestamp,
}

/// One version's share.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ShareView {
    pub version: u32,
    pub weight: u32,
    pub live: bool,
    /// Counted since the split was set or the server started. Only of versions other than the live one.
    pub calls: u32,
    pub errors: u32,
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
    /// What it may reach on the network; empty: nothing.
    pub egress: Vec<String>,
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
    /// Only names that contain this. `search` is taken as well.
    #[serde(skip_serializing_if = "Option::is_none", alias = "search")]
    pub name: Option<String>,
    /// Those that were deleted and can be restored, instead of those that are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
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

impl From<PricesView> for piecework_model::Prices {
    fn from(prices: PricesView) -> Self {
        Self {
            start_ucr: prices.start_ucr,
            cpu_ucr_per_s: prices.cpu_ucr_per_s,
            memory_ucr_per_gib_s: prices.memory_ucr_per_gib_s,
            egress_ucr_per_mib: prices.egress_ucr_per_mib,
        }
    }
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
