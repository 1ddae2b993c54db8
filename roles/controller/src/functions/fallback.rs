//! Where a version runs whose sandbox was found to lack something: in the jail, from then on.
//!
//! Only where the sandbox was chosen by `auto`. Which versions have moved is part of the function's policy, because a version's
//! record never changes.

use std::sync::Arc;

use piecework_model::{BackendName, Digest, Language};
use piecework_store::{BackendReason, Function, Moved, Policy, Version};

use crate::{
    Answer,
    clock::now_ms,
    functions::{self, Functions, Live, live},
};

/// Versions of one function that are remembered, the newest: those that get calls are among them.
const MOVED_MAX: usize = 64;
/// A longer reason is cut: what was touched is told by the sandbox, after what the function says.
const REASON_BYTES_MAX: usize = 512;

/// Whether another sandbox may have the calls of a version.
pub(crate) fn may_move(version: &Version) -> bool {
    version.backend == BackendName::Wasm && matches!(version.backend_reason, BackendReason::Chosen(_))
}

/// Whether some provider has the jail for this language.
pub(crate) fn has_jail(functions: &Functions, language: Language) -> bool {
    let all = functions.providers.all();
    all.iter().any(|seen| seen.runs(BackendName::Jail, language))
}

/// The version as it runs by the function's policy.
pub(crate) fn settle(version: &mut Version, policy: &Policy) {
    let number = &version.version;
    let elsewhere = policy.moved.get(number).or_else(|| policy.chosen.get(number));
    if let Some(moved) = elsewhere.filter(|_| may_move(version)) {
        version.backend = BackendName::Jail;
        version.backend_reason = BackendReason::Chosen(moved.reason.clone());
    }
}

/// Why code that is deployed again goes to the jail at once.
pub(crate) fn known(policy: &Policy, code: Digest) -> Option<&str> {
    let moved = policy.moved.values().find(|moved| moved.code == code);
    moved.map(|moved| moved.reason.as_str())
}

fn moved(live: &Live, why: &str) -> Moved {
    let mut reason = format!("the code loads in wasm, but a call ended there: {why}");
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    Moved {
        code: live.version.code,
        reason,
        at_ms: now_ms(),
    }
}

/// The same version in the jail, for one call.
pub(crate) async fn in_jail(functions: &Functions, live: &Live, why: &str) -> Answer<Arc<Live>> {
    let mut function: Function = live.function.clone();
    function.policy.moved.insert(live.version.version, moved(live, why));
    let there = live::with_version(functions, &function, live.version.clone(), live.limits).await?;
    Ok(Arc::new(there))
}

/// Has all further calls of the version run in the jail. When it returns, the next call does.
pub(crate) async fn remember(functions: &Functions, live: &Live, why: &str) -> Answer<()> {
    let version = live.version.version;
    let news = functions::change_policy(functions, live.function.id, |policy, _| {
        if policy.moved.contains_key(&version) {
            return false;
        }
        policy.moved.insert(version, moved(live, why));
        while policy.moved.len() > MOVED_MAX {
            policy.moved.pop_first();
        }
        true
    });
    if news.await? {
        tracing::info!(function = %live.function.id, version, why, "a version moves from wasm to the jail");
    }
    Ok(())
}
