//! The audit log: who changed what, written once the change is done.

use std::time::Duration;

use moka::sync::Cache;
use piecework_model::{AccountId, JobId};
use piecework_store::Change;
use serde_json::Value;

use crate::{Answer, accounts::Accounts, clock::now_ms, failure::store};

/// What operators have read lately, and for how long that is remembered.
pub(crate) type Reads = Cache<(AccountId, JobId), ()>;
const READS_FOR: Duration = Duration::from_secs(600);
const READS_MAX: u64 = 10_000;

pub(crate) fn reads() -> Reads {
    Cache::builder().max_capacity(READS_MAX).time_to_live(READS_FOR).build()
}

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

/// An operator has looked at something of somebody else's. Once for each thing in [`READS_FOR`]: whoever waits for a job's end
/// reads it often.
pub(crate) async fn read(accounts: &Accounts, reader: AccountId, owner: AccountId, job: JobId) -> Answer<()> {
    let reads = &accounts.auth.reads;
    if reads.get(&(reader, job)).is_some() {
        return Ok(());
    }
    record(
        accounts,
        (Some(reader), owner),
        ("job", "read"),
        job.to_string(),
        serde_json::json!({}),
    )
    .await?;
    reads.insert((reader, job), ());
    Ok(())
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
