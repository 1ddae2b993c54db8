//! What a deploy and an update both say of a version.

use std::collections::BTreeMap;

use super::{CreateFunction, PlacementBody, UpdateFunction};
use crate::{cors::CorsBody, results::SetResults};

/// Settings of a version in a request: an absent field keeps its value, or gets its default in a new function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Time limit of one run: 1 to 900000; 5000 if never set.
    pub timeout_ms: Option<u32>,
    /// MiB: 32 to 4096; 128 if never set.
    pub memory_limit_mb: Option<u32>,
    /// Processes and threads that a run may have together: 1 to 256; 32 if never set.
    pub process_limit: Option<u32>,
    /// MiB that a run may keep below `/tmp`: 1 to 1024; 64 if never set.
    pub disk_limit_mb: Option<u32>,
    /// Environment variables, visible to the owner, to set or to remove.
    pub env: Option<Changes>,
    /// Encrypted at rest, never shown again, removed from logs; to set or to remove.
    pub secrets: Option<Changes>,
    /// `auto` (wasm if the function loads there, otherwise jail; later where it costs less) or a backend; if it is missing, the request is
    /// refused.
    pub sandbox: Option<String>,
    /// Record each job on the ledger before it is dispatched.
    pub strict: Option<bool>,
    /// Whether `/fn/{owner}/{name}` accepts calls without a token, at the owner's expense.
    pub public: Option<bool>,
    pub cors: Option<CorsBody>,
    /// Concurrent runs, 1 to 1000; further calls wait in a bounded queue, then get 429.
    pub concurrency: Option<u32>,
    /// Budget per calendar month (UTC); 0 removes it.
    pub budget_ucr: Option<u64>,
    /// Network allow list; an empty list turns the network off.
    pub egress: Option<Vec<String>>,
    /// Limit on network traffic per run in MiB, both directions together.
    pub egress_limit_mb: Option<u32>,
    /// MiB that one run may stream at a plain URL.
    pub stream_limit_mb: Option<u32>,
    pub placement: Option<PlacementBody>,
    /// Where results go and how long they are kept; replaces the previous setting as a whole.
    pub results: Option<SetResults>,
    pub rerun_percent: Option<u32>,
}

/// Variables by name: a value to set, or none to remove it.
pub type Changes = BTreeMap<String, Option<String>>;

fn all_set(variables: BTreeMap<String, String>) -> Changes {
    variables.into_iter().map(|(name, value)| (name, Some(value))).collect()
}

impl CreateFunction {
    pub fn settings(&self) -> Settings {
        Settings {
            timeout_ms: self.timeout_ms,
            memory_limit_mb: self.memory_limit_mb,
            process_limit: self.process_limit,
            disk_limit_mb: self.disk_limit_mb,
            env: self.env.clone().map(all_set),
            secrets: self.secrets.clone().map(all_set),
            sandbox: self.sandbox.clone(),
            strict: self.strict,
            public: self.public,
            cors: self.cors.clone(),
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
            process_limit: self.process_limit,
            disk_limit_mb: self.disk_limit_mb,
            env: self.env.clone(),
            secrets: self.secrets.clone(),
            sandbox: self.sandbox.clone(),
            strict: self.strict,
            public: self.public,
            cors: self.cors.clone(),
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
