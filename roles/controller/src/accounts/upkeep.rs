//! What accounts leave behind is kept for a while, not for ever.

use crate::{
    Answer,
    accounts::{Accounts, invites, transfers},
    failure::store,
};

/// Entries of the audit record that one account made: 30 MiB, more than a day of changes at the highest rate, or years of a
/// usual account's.
const AUDIT_ENTRIES_MAX: u64 = 100_000;

/// One round, at this time.
pub(crate) async fn round(accounts: &Accounts, now_ms: u64) -> Answer<()> {
    let entries = accounts.ground.store.prune_audit(AUDIT_ENTRIES_MAX, now_ms).await;
    let entries = entries.map_err(store)?;
    let points = accounts.ground.store.prune_points(now_ms).await.map_err(store)?;
    let invites = invites::forget_expired(accounts, now_ms).await?;
    let keys = transfers::forget_old(accounts, now_ms).await? + invites::forget_closed(accounts).await?;
    if entries > 0 || points > 0 || keys > 0 || invites > 0 {
        tracing::info!(entries, points, keys, invites, "old records dropped");
    }
    Ok(())
}
