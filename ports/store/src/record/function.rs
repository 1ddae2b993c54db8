//! Functions and their versions.

use std::collections::BTreeMap;

use piecework_model::{
    AccountId, AnyCode, BackendName, Digest, EgressList, FunctionId, FunctionName, Language, Limits, OwnerName,
};
use piecework_scheduler::Placement;
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
    #[serde(default)]
    pub policy: Policy,
}

/// What the owner and the platform decided about a function beside its versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// How calls are spread over versions; all to the live one where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// Versions that take no calls, with why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub quarantined: BTreeMap<u32, Quarantine>,
    /// Versions that run in the jail although they load in the sandbox that was chosen for them, which a call found to lack
    /// something.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub moved: BTreeMap<u32, Moved>,
    /// Versions that run in the jail because it costs less there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub chosen: BTreeMap<u32, Moved>,
    /// What the function may cost in a calendar month (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_ucr: Option<u64>,
    /// Its owner lets it take no calls.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// Where results go and how long they are kept; with their jobs, and as long, where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<ResultPolicy>,
    /// Which pages of other sites may call it; the function answers for itself where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

/// What the platform tells browsers about a function's URL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cors {
    /// As browsers write them, or `*`.
    pub origins: Vec<String>,
    pub methods: Vec<String>,
    /// Those that are asked for where absent.
    pub headers: Option<Vec<String>>,
    pub expose: Vec<String>,
    pub credentials: bool,
    pub max_age_s: u32,
}

/// What becomes of a function's results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResultPolicy {
    /// Seconds from a job's beginning until its output goes.
    pub ttl_s: Option<u64>,
    /// A sink with its credentials, sealed; in hex.
    pub sealed_sink: Option<String>,
    /// Whether the sink is told of jobs without an output too.
    pub hears_of_failures: bool,
}

/// A split between versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Version -> share; the shares of all add up to what is divided.
    pub weights: BTreeMap<u32, u32>,
    /// A version beside the live one that fails more often than this goes.
    pub errors_permille_max: u32,
    /// Calls of a version before it is judged.
    pub calls_min: u32,
    pub since_ms: u64,
}

/// Why a version was taken out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The code of the last failure.
    pub code: AnyCode,
    /// Failures in a row.
    pub failures: u32,
    pub at_ms: u64,
}

/// Why a version does not run where it was deployed to, or not any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Of its bundle: the next version of the same code goes there at once.
    pub code: Digest,
    /// A sentence.
    pub reason: String,
    pub at_ms: u64,
}

/// Why a version runs in its backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendReason {
    /// Its developer named it, and meant it for later versions too.
    AskedFor,
    /// It was left to the controller, which says why in a sentence.
    Chosen(String),
}

/// What stood where a developer had named the backend, while the reason was a sentence.
const ASKED_FOR: &str = "it was asked for";

impl std::fmt::Display for BackendReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AskedFor => f.write_str(ASKED_FOR),
            Self::Chosen(sentence) => f.write_str(sentence),
        }
    }
}

/// Also of records up to version 1, where it is a sentence.
impl<'de> Deserialize<'de> for BackendReason {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Named {
            AskedFor,
            Chosen(String),
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Kept {
            Named(Named),
            Sentence(String),
        }
        Ok(match Kept::deserialize(from)? {
            Kept::Named(Named::AskedFor) => Self::AskedFor,
            Kept::Named(Named::Chosen(sentence)) => Self::Chosen(sentence),
            Kept::Sentence(sentence) if sentence == ASKED_FOR => Self::AskedFor,
            Kept::Sentence(sentence) => Self::Chosen(sentence),
        })
    }
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
    pub backend: BackendName,
    /// Why this backend was chosen.
    pub backend_reason: BackendReason,
    pub env: BTreeMap<String, String>,
    /// Kept in a column of its own, so not part of the JSON record.
    #[serde(skip)]
    pub sealed_secrets: Vec<u8>,
    pub secret_names: Vec<String>,
    pub packages: Vec<String>,
    pub strict: bool,
    #[serde(default)]
    pub egress: EgressList,
    #[serde(default)]
    pub placement: Placement,
    /// Share of its jobs that run twice, of a version that is declared deterministic; 0 of others.
    #[serde(default)]
    pub rerun_percent: u32,
    /// What one of its runs may stream, at a plain URL.
    #[serde(default = "stream_bytes_default")]
    pub stream_bytes: u64,
    /// What is served of its bundle's `public/` at a plain URL.
    #[serde(default)]
    pub site: Site,
    /// Which container image it is, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageName>,
    /// What the bundle, and the layers of an image, take on disk; in a column of its own too.
    #[serde(skip)]
    pub bundle_bytes: u64,
    pub created_at_ms: u64,
}

/// A container image, as it was when it was deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageName {
    /// As its developer named it.
    pub reference: String,
    /// Of its manifest: `sha256:HEX`.
    pub digest: String,
    /// `linux/amd64`.
    pub platform: String,
}

/// Files that are served without a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    #[default]
    None,
    /// Before the function is asked.
    Beside,
    /// There is no function: no request runs anything.
    Alone,
}

/// Of versions that were written before there was such a limit.
fn stream_bytes_default() -> u64 {
    Limits::STREAM_BYTES_DEFAULT
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_read_as_it_was_and_as_it_is_written() {
        let chosen = BackendReason::Chosen("the code loads in wasm".to_owned());
        for (kept, due) in [
            (r#""it was asked for""#, BackendReason::AskedFor),
            (r#""the code loads in wasm""#, chosen.clone()),
            (r#""asked_for""#, BackendReason::AskedFor),
            (r#"{"chosen":"the code loads in wasm"}"#, chosen),
        ] {
            let read: BackendReason = serde_json::from_str(kept).expect("a reason");
            assert_eq!(read, due, "{kept}");
            let again = serde_json::to_string(&read).expect("JSON");
            assert_eq!(serde_json::from_str::<BackendReason>(&again).expect("a reason"), due);
        }
        // A sentence that a controller chose does not become the developer's word.
        let sentence = BackendReason::Chosen(ASKED_FOR.to_owned());
        let kept = serde_json::to_string(&sentence).expect("JSON");
        assert_eq!(
            serde_json::from_str::<BackendReason>(&kept).expect("a reason"),
            sentence
        );
    }
}
