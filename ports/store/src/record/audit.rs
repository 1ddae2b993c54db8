//! The record of who changed what.

use piecework_model::AccountId;

/// One change, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Ascends with time, with gaps perhaps.
    pub id: u64,
    pub change: Change,
}

/// One change, to be recorded once it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub at_ms: u64,
    /// Who did it; `None` for the platform itself.
    pub actor: Option<AccountId>,
    /// Whose the changed thing is.
    pub owner: AccountId,
    /// `noun.verb`, as `function.updated`.
    pub action: String,
    /// A name or an id.
    pub target: String,
    /// JSON text; never a secret.
    pub detail: String,
}

/// Which entries to list, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only what this account did or owns; everything where absent.
    pub account: Option<AccountId>,
    /// Only actions that begin so.
    pub action: Option<String>,
    pub target: Option<String>,
    /// The `next` of the page before.
    pub before: Option<u64>,
    pub limit: u32,
}
