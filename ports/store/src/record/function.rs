//! Functions and their versions.

use std::collections::BTreeMap;

use piecework_model::{AccountId, Digest, FunctionId, FunctionName, Language, Limits, OwnerName};
use serde::{Deserialize, Serialize};

/// A function: what stays the same over its versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    pub id: FunctionId,
    pub owner: AccountId,
    pub owner_name: OwnerName,
    /// Unique among the owner's functions that are not deleted.
    pub name: FunctionName,
    pub live_version: u32,
    /// Whether anybody may call it without a token.
    pub public: bool,
    /// Invocations at a time.
    pub concurrency: u32,
    pub created_at_ms: u64,
    pub updated_at_ms: u64,
}

/// One version of a function; never changed once written.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub function: FunctionId,
    /// From 1, without gaps.
    pub version: u32,
    pub language: Language,
    /// Digest of the bundle.
    pub code: Digest,
    pub handler: Option<String>,
    pub limits: Limits,
    pub backend: String,
    /// Why this backend was chosen.
    pub backend_reason: String,
    pub env: BTreeMap<String, String>,
    /// Kept in a column of its own, so not part of the JSON record.
    #[serde(skip)]
    pub sealed_secrets: Vec<u8>,
    pub secret_names: Vec<String>,
    pub packages: Vec<String>,
    pub strict: bool,
    pub created_at_ms: u64,
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Version")
            .field("function", &self.function)
            .field("version", &self.version)
            .field("language", &self.language)
            .field("code", &self.code)
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

/// Settings to change; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionSettings {
    pub public: Option<bool>,
    pub concurrency: Option<u32>,
}
