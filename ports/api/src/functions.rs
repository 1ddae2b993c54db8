//! `/functions`: deploying, listing, versions, rolling back, quoting.

mod settings;

use std::collections::BTreeMap;

use jiff::Timestamp;
use piecework_model::{AnyCode, Contract, Credits, Digest, FunctionId, Language};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    cors::CorsBody,
    few,
    results::{ResultsView, SetResults},
    schemas::Ucr,
    units,
};
pub use settings::{Changes, Settings};

/// `POST /functions`. Exactly one of `code` and `bundle`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateFunction {
    /// 1 to 30 characters from a-z, 0-9 and -; unique among the owner's functions.
    #[schema(example = "hello", min_length = 1, max_length = 30)]
    pub name: String,
    /// `python`, `javascript` or `typescript`, which is JavaScript with a file `main.ts` if only `code` is given; or `image`, whose
    /// bundle describes a container image (docs/images.md).
    #[schema(example = "python")]
    pub language: String,
    /// Text of a single source file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "def handler(event, context):\n    return {\"hello\": event}")]
    pub code: Option<String>,
    /// Archive in base64 with `main.py` or `main.mjs` at its root: zip, or tar that may be compressed with gzip or zstd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// `file` or `file:function`; `main.py:handler` and the default export of `main.mjs` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// Time limit of one run: 1 to 900000; 5000 if never set. Also text such as `5s`, and under the name `timeout`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        alias = "timeout",
        deserialize_with = "units::timeout"
    )]
    #[schema(minimum = 1, maximum = 900_000)]
    pub timeout_ms: Option<u32>,
    /// MiB: 32 to 4096; 128 if never set. Also text such as `128MiB`, and under the name `memory`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        alias = "memory",
        deserialize_with = "units::memory"
    )]
    #[schema(minimum = 32, maximum = 4096)]
    pub memory_limit_mb: Option<u32>,
    /// Processes and threads that a run may have together: 1 to 256; 32 if never set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 256)]
    pub process_limit: Option<u32>,
    /// MiB that a run may keep below `/tmp`: 1 to 1024; 64 if never set. It counts towards the memory limit, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1024)]
    pub disk_limit_mb: Option<u32>,
    /// Environment variables, visible to the owner.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "few::map_given"
    )]
    pub env: Option<BTreeMap<String, String>>,
    /// Encrypted at rest, never shown again, removed from logs.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "few::map_given"
    )]
    pub secrets: Option<BTreeMap<String, String>>,
    /// `auto` (wasm if the function loads there, otherwise jail; later where it costs less) or a backend; if it is missing, the request is
    /// refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "auto")]
    pub sandbox: Option<String>,
    /// Record each job on the ledger before it is dispatched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Whether `/fn/{owner}/{name}` accepts calls without a token, at the owner's expense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// Which other sites' pages may call the URL. The platform answers for it, without a job. If absent, the function does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<CorsBody>,
    /// Concurrent runs, 1 to 1000; further calls wait in a bounded queue, then get 429.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub concurrency: Option<u32>,
    /// Budget per calendar month (UTC); calls beyond it get 402. 0 removes the budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub budget_ucr: Option<u64>,
    /// Network allow list: `HOST:PORT`, where the host is a name, `*.NAME` or an IPv4 address. Absent or empty: no
    /// network.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "few::list_given"
    )]
    #[schema(example = json!(["api.example.com:443"]))]
    pub egress: Option<Vec<String>>,
    /// Limit on network traffic per run in MiB, both directions together: 1 to 16384; 64 if never set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 16_384)]
    pub egress_limit_mb: Option<u32>,
    /// MiB that one run may stream at a plain URL, response and large request body together: 0 to 16384, 1024 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 16_384)]
    pub stream_limit_mb: Option<u32>,
    /// Where its jobs may run; each part that is present replaces that part. Anywhere if never set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementBody>,
    /// Where results go and how long they are kept; replaces the previous setting as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<SetResults>,
    /// Declares that equal inputs give equal outputs: this percentage of its jobs runs a second time at another
    /// provider, at the owner's expense, and the results are compared; up to ten times as many if little is known about
    /// the provider. 0 if absent: the function may not be deterministic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100)]
    pub rerun_percent: Option<u32>,
}

/// A container image, as it was when it was deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageView {
    /// As its developer named it.
    #[schema(example = "ghcr.io/me/web:1.2")]
    pub reference: String,
    /// Of its manifest; what runs is this, whatever the reference names by now.
    #[schema(example = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    pub digest: String,
    #[schema(example = "linux/amd64")]
    pub platform: String,
}

/// `POST /images/parts`: which of these parts have to be uploaded.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PartsQuery {
    /// BLAKE3 digests of parts of layers, 4 MiB each but for a layer's last; at most 2000.
    #[schema(value_type = Vec<String>)]
    pub parts: Vec<Digest>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PartsView {
    /// Those that the account's images do not have, and that it has not uploaded in the last hour.
    #[schema(value_type = Vec<String>)]
    pub missing: Vec<Digest>,
}

/// `DELETE /functions/{id}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// It cannot be restored, and its versions are gone at once.
    pub for_good: bool,
}

/// `PUT /functions/{id}`: creates a new version, live at once. What is absent stays as it is. A request without `code` and
/// `bundle` that changes nothing of the version (only `public`, `cors`, `concurrency`, `budget_ucr` or `results`) creates none.
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
    /// As in `POST /functions`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        alias = "timeout",
        deserialize_with = "units::timeout"
    )]
    #[schema(minimum = 1, maximum = 900_000)]
    pub timeout_ms: Option<u32>,
    /// As in `POST /functions`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        alias = "memory",
        deserialize_with = "units::memory"
    )]
    #[schema(minimum = 32, maximum = 4096)]
    pub memory_limit_mb: Option<u32>,
    /// Processes and threads that a run may have together: 1 to 256; 32 if never set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 256)]
    pub process_limit: Option<u32>,
    /// MiB that a run may keep below `/tmp`: 1 to 1024; 64 if never set. It counts towards the memory limit, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1024)]
    pub disk_limit_mb: Option<u32>,
    /// Environment variables, visible to the owner. Those named here are set, or removed if `null`; the others stay.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "few::map_given")]
    pub env: Option<Changes>,
    /// Encrypted at rest, never shown again, removed from logs. Those named here are set, or removed if `null`; the others stay.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "few::map_given")]
    pub secrets: Option<Changes>,
    /// `auto` (wasm if the function loads there, otherwise jail; later where it costs less) or a backend; if it is missing, the request is
    /// refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "auto")]
    pub sandbox: Option<String>,
    /// Record each job on the ledger before it is dispatched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Whether `/fn/{owner}/{name}` accepts calls without a token, at the owner's expense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// Which other sites' pages may call the URL; replaces the previous setting, and no origins remove it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<CorsBody>,
    /// Concurrent runs, 1 to 1000; further calls wait in a bounded queue, then get 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub concurrency: Option<u32>,
    /// Budget per calendar month (UTC); calls beyond it get 402. 0 removes the budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub budget_ucr: Option<u64>,
    /// Percentage of calls for the new version; the live version keeps the rest and stays live. All calls if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 99)]
    pub canary: Option<u32>,
    /// As in `POST /functions`; an empty list turns the network off.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "few::list_given")]
    pub egress: Option<Vec<String>>,
    /// Limit on network traffic per run in MiB, both directions together: 1 to 16384; 64 if never set.
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
    /// Where results go and how long they are kept; replaces the previous setting as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<SetResults>,
    /// As in `POST /functions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100)]
    pub rerun_percent: Option<u32>,
}

/// Where a function's jobs may run. In a request, absent parts stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlacementBody {
    /// Only providers in this region; empty: anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "eu-north")]
    pub region: Option<String>,
    /// Only providers with all of these labels; empty: any.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "few::list_given")]
    pub labels: Option<Vec<String>>,
    /// Minimum trust class: `any`, `known` or `trusted` (`new` means `any`). `default`: `known` where the function has secrets
    /// or an allow list and is not pinned, except for computers of its owner and of the operator; otherwise `any`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "known")]
    pub trust: Option<String>,
    /// Maximum prices that a provider may charge; empty: the controller's caps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_cap: Option<PriceCap>,
    /// Only these providers: names, ids, or `own` for those that belong to the function's owner; empty: any.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "few::list_given")]
    #[schema(example = json!(["own", "laptop"]))]
    pub pin: Option<Vec<String>>,
    /// `random`, `least-loaded`, `warm-first`, `cheapest`, or `default` for the controller's policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "cheapest")]
    pub policy: Option<String>,
}

/// Maximum prices that a provider may charge; an absent part uses the controller's cap.
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
    /// Crashed too often in a row; a new version ends the quarantine.
    Quarantined,
    /// Stopped by its owner; takes no calls.
    Stopped,
}

/// Which version's code is meant; the live one's if absent.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct CodeQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// Code as it was sent, ready to be deployed again.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CodeView {
    pub version: u32,
    #[schema(value_type = String, example = "python")]
    pub language: Language,
    /// With the contract that was found, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// Tar archive in base64, without resolved packages and without what a deploy has added.
    pub bundle: String,
}

/// Files that are served without a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SiteView {
    /// Requests that name no file are the function's.
    Beside,
    /// There is no function.
    Alone,
}

/// A function as its owner sees it, with the live version's settings.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FunctionView {
    #[schema(value_type = String, example = "fn_0123456789abcdef01234567")]
    pub id: FunctionId,
    pub name: String,
    pub owner: String,
    /// The live version.
    pub version: u32,
    /// The version that this request has made: a canary is not the live one. Absent if it made none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed_version: Option<u32>,
    #[schema(value_type = String)]
    pub language: Language,
    pub status: FunctionStatus,
    /// Its plain URL, at the platform's own origin: browsers keep nothing there that the function sets, and run its pages
    /// in a sandbox.
    pub url: String,
    /// The function at an origin of its own. Absent where the platform's host is an address without names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_url: Option<String>,
    /// The backend that runs it.
    pub sandbox: String,
    /// Why this backend: the finding of `auto`, or that it was requested.
    pub sandbox_reason: String,
    pub handler: Option<String>,
    /// What the code is called by, where that is not a handler of an event and a context: `asgi`, `wsgi`, `fetch`, `node`,
    /// `lambda`, `functions-framework` or `openfaas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "asgi")]
    pub contract: Option<Contract>,
    /// Whether the files of `public/` are served at the URL, and whether there is a function beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteView>,
    pub timeout_ms: u32,
    pub memory_limit_mb: u32,
    /// Processes and threads of a run together.
    #[serde(default)]
    pub process_limit: u32,
    /// MiB below `/tmp`.
    #[serde(default)]
    pub disk_limit_mb: u32,
    pub env: BTreeMap<String, String>,
    /// Names only; values are never returned.
    pub secret_names: Vec<String>,
    /// Packages resolved at deploy time, as `name==version` or `name@version`.
    pub packages: Vec<String>,
    /// Which container image it is, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageView>,
    pub public: bool,
    /// Present if the platform answers for other sites' pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<CorsBody>,
    pub concurrency: u32,
    pub strict: bool,
    /// Network allow list; empty: no network.
    pub egress: Vec<String>,
    /// Limit on network traffic per run in MiB; 0 if the network is off.
    pub egress_limit_mb: u32,
    /// MiB that one run may stream at a plain URL.
    #[serde(default)]
    pub stream_limit_mb: u32,
    /// Where its jobs may run; an absent part means no restriction.
    #[serde(default)]
    pub placement: PlacementBody,
    /// Its jobs go only to providers of class `known` or better and to computers of its owner or the operator, because it
    /// has secrets or an allow list and `placement.trust` is not set.
    #[serde(default)]
    pub confidential: bool,
    /// Percentage of its jobs that run twice and are compared; 0 if it is not declared deterministic.
    #[serde(default)]
    pub rerun_percent: u32,
    /// Digest of the live version's bundle.
    #[schema(value_type = String)]
    pub code_digest: Digest,
    /// Present if calls are split between versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficView>,
    /// Present if the live version takes no calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<QuarantineView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetView>,
    /// Where results go; absent if they stay with their jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<ResultsView>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Present if it was deleted and can be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
}

/// Why a version takes no calls.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QuarantineView {
    pub version: u32,
    /// The code of the last failure.
    #[schema(value_type = String)]
    pub code: AnyCode,
    /// Failures in a row.
    pub failures: u32,
    pub since: Timestamp,
}

/// Budget of a function per calendar month.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BudgetView {
    #[schema(value_type = Ucr)]
    pub budget_ucr: Credits,
    /// Spent so far this month.
    #[schema(value_type = Ucr)]
    pub spent_ucr: Credits,
    pub month_began_at: Timestamp,
}

/// `PUT /functions/{id}/budget`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetBudget {
    /// Per calendar month (UTC); 0 removes the budget.
    #[schema(minimum = 0)]
    pub budget_ucr: u64,
}

/// `PUT /functions/{id}/traffic`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTraffic {
    /// Version and its share of the calls. The live version gets the rest of 100 if it is not named. 1 to 10 versions, shares 0 to 1000, not all zero.
    #[schema(example = json!({"3": 90, "4": 10}))]
    #[serde(deserialize_with = "few::map")]
    pub weights: BTreeMap<u32, u32>,
    /// Error rate in thousandths above which a version other than the live one loses its share. 100 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1000)]
    pub errors_permille_max: Option<u32>,
    /// Number of calls before a version is judged: 1 to 100000; 20 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100_000)]
    pub calls_min: Option<u32>,
}

/// How calls are split between versions.
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
    /// Counted since the split was set or the server started. Only for versions other than the live one.
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
    /// Processes and threads of a run together.
    #[serde(default)]
    pub process_limit: u32,
    /// MiB below `/tmp`.
    #[serde(default)]
    pub disk_limit_mb: u32,
    pub packages: Vec<String>,
    /// Which container image it is, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageView>,
    /// Network allow list; empty: no network.
    pub egress: Vec<String>,
    pub created_at: Timestamp,
}

/// `POST /functions/{id}/rollback`: makes an older version live again.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// If absent, the newest version before the live one; if calls are split, the split ends and the live version stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub version: Option<u32>,
}

/// `GET /functions`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct FunctionsQuery {
    /// Only names that contain this. `search` works too.
    #[serde(skip_serializing_if = "Option::is_none", alias = "search")]
    pub name: Option<String>,
    /// List deleted functions that can be restored instead of existing ones.
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

/// `GET /functions/{id}/quote`: the cost of a run, before you run it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QuoteView {
    pub function: String,
    pub version: u32,
    /// Maximum prices of a job.
    pub prices: PricesView,
    /// Charged even if it uses nothing.
    #[schema(value_type = Ucr)]
    pub price_min_ucr: Credits,
    /// Reserved before a run; it cannot cost more.
    #[schema(value_type = Ucr)]
    pub price_max_ucr: Credits,
    /// Median of the last jobs; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Ucr>)]
    pub price_typical_ucr: Option<Credits>,
    /// Number of jobs in the median.
    pub jobs_seen: u32,
    /// Commission on each payment, in thousandths; the provider gets the rest.
    pub commission_permille: u32,
}
