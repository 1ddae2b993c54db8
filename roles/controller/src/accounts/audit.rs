//! The audit log: who changed what, written once the change is done.

use piecework_model::AccountId;
use piecework_store::Change;
use serde_json::Value;

use crate::{Answer, accounts::Accounts, clock::now_ms, failure::store};

/// Records a completed change. If this fails, the change stays and its caller gets the failure.
pub(crate) async fn record(
    accounts: &Accounts,
    (actor, owner): (Option<AccountId>, AccountId),
    (noun, verb): (&'static str, &'static str),
    target: impl Into<String>,
    detail: Value,
) -> Answer<()> {
    let change = change((actor, owner), (noun, verb), target, &detail);
    accounts.ground.store.record(&change).await.map_err(store)
}

/// The entry itself, for whoever writes it together with the change.
pub(crate) fn change(
    (actor, owner): (Option<AccountId>, AccountId),
    (noun, verb): (&'static str, &'static str),
    target: impl Into<String>,
    detail: &Value,
) -> Change {
    Change {
        at_ms: now_ms(),
        actor,
        owner,
        action: format!("{noun}.{verb}"),
        target: target.into(),
        detail: detail.to_string(),
    }
}

/// A change that an account made to its own things.
pub(crate) async fn own(
    accounts: &Accounts,
    account: AccountId,
    action: (&'static str, &'static str),
    target: impl Into<String>,
    detail: Value,
) -> Answer<()> {
    record(accounts, (Some(account), account), action, target, detail).await
}
