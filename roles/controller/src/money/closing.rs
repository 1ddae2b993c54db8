//! Leases that end: closed by their developer, drained for their window, then what was not spent is free again.
//!
//! ```text
//! CloseLease -> LeaseDraining: no new tickets from it; what ran is settled, what is held is paid
//!            -> window over, claims paid: ExpireLease -> LeaseClosed: noted no longer
//! ```
//! The next call opens another lease, as the first one did. What is noted here outlives this process.

use std::{sync::Arc, time::Duration};

use piecework_ledger::{Action, CloseLease, DelegatePayer, ExpireLease, Key, Lease, LeaseState, Value};
use piecework_model::{AccountId, Code, Credits, LeaseId, PublicKey};
use piecework_store::{Put, Take};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Answer,
    accounts::{self, audit, auth::Caller},
    again::again,
    codecs,
    failure::{chain, refuse, store},
    money::{Money, leases, withheld},
};

/// `developer/lease` -> [`Closing`].
const SPACE: &str = "closing";
const EVERY: Duration = Duration::from_secs(2);
const PAGE: u32 = 200;

/// A lease of this controller's that drains.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Closing {
    pub(crate) lease: LeaseId,
    pub(crate) developer: AccountId,
    pub(crate) until_height: u64,
}

fn place(developer: AccountId, lease: LeaseId) -> String {
    format!("{developer}/{lease}")
}

/// The lease as the ledger has it.
pub(crate) async fn on_ledger(money: &Money, lease: LeaseId) -> Answer<Option<Lease>> {
    match money.ground.chain.get(&Key::Lease(lease)).await.map_err(chain)? {
        Some(Value::Lease(lease)) => Ok(Some(lease)),
        Some(_) | None => Ok(None),
    }
}

/// The ledger says that a lease drains: nothing new is ordered from it. What is to be kept of it comes back, where it is
/// this controller's; what is held of it is then to be released. May be repeated.
pub(crate) async fn began(money: &Money, lease: LeaseId, until_height: u64) -> Answer<Option<Put>> {
    let Some(record) = on_ledger(money, lease).await? else {
        return Ok(None);
    };
    if !record.payer_keys.contains(&money.ground.payer) || record.state == LeaseState::Closed {
        return Ok(None);
    }
    let developer = record.developer;
    money.leases.end(developer, lease);
    let closing = Closing {
        lease,
        developer,
        until_height,
    };
    codecs::json(SPACE, &place(developer, lease), &closing).map(Some)
}

/// The ledger says that a lease is closed: what is kept of it goes, and is recorded as it does. May be repeated.
pub(crate) async fn ended(money: &Money, lease: LeaseId, freed: Credits) -> Answer<Option<Take>> {
    money.leases.forget(lease);
    let Some(record) = on_ledger(money, lease).await? else {
        return Ok(None);
    };
    let developer = record.developer;
    let detail = json!({"freed_ucr": freed});
    Ok(Some(Take {
        space: SPACE.to_owned(),
        key: place(developer, lease),
        change: Some(audit::change(
            (None, developer),
            ("lease", "closed"),
            lease.to_string(),
            &detail,
        )),
    }))
}

/// The same for one that the follower has not seen close.
async fn end(money: &Money, lease: LeaseId) -> Answer<()> {
    let Some(take) = ended(money, lease, Credits::ZERO).await? else {
        return Ok(());
    };
    let taken = money.ground.store.take_value(&take.space, &take.key).await;
    match (taken.map_err(store)?, take.change) {
        (Some(_), Some(change)) => money.ground.store.record(&change).await.map_err(store),
        (Some(_), None) | (None, _) => Ok(()),
    }
}

/// Those of one developer that drain.
pub(crate) async fn of(money: &Money, developer: AccountId) -> Answer<Vec<Closing>> {
    let prefix = format!("{developer}/");
    let page = money.ground.store.list_values(SPACE, &prefix, None, PAGE);
    let page = page.await.map_err(store)?;
    page.items.iter().map(|(_, bytes)| codecs::from_json(bytes)).collect()
}

/// Goes through the leases that drain again and again, until shutdown.
pub(crate) async fn run(money: Arc<Money>) {
    again(&money.ground, EVERY, "leases that close", || round(&money)).await;
}

async fn round(money: &Money) -> Answer<()> {
    let mut after: Option<String> = None;
    loop {
        let page = money.ground.store.list_values(SPACE, "", after.as_deref(), PAGE);
        let page = page.await.map_err(store)?;
        for (_, bytes) in page.items {
            let closing: Closing = codecs::from_json(&bytes)?;
            // What was held since it began to drain, or before a restart.
            withheld::release_of(money, closing.lease).await?;
            if closing.until_height < money.ground.chain.status().height
                && let Err(refusal) = expire(money, &closing).await
            {
                tracing::warn!(lease = %closing.lease, %refusal, "a lease cannot be closed yet although its window ended");
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Frees what the lease still holds, once no claim on it waits.
async fn expire(money: &Money, closing: &Closing) -> Answer<()> {
    match on_ledger(money, closing.lease).await? {
        Some(record) if record.claimed_jobs > 0 => Ok(()),
        Some(record) if record.state != LeaseState::Closed => {
            let action = Action::ExpireLease(ExpireLease { lease: closing.lease });
            match leases::submit_as_payer(money, action).await {
                // Anybody may have been first.
                Err(refusal) if refusal.code != Code::LeaseClosed => Err(refusal),
                Ok(_) | Err(_) => Ok(()),
            }
        }
        Some(_) | None => end(money, closing.lease).await,
    }
}

/// A lease of the caller's, and the key to sign with. Refuses with `lease.not_found`, and `account.bad_signature` where
/// its developer keeps the key.
async fn own(money: &Money, caller: &Caller, lease: LeaseId) -> Answer<piecework_model::SecretKey> {
    match on_ledger(money, lease).await? {
        Some(record) if record.developer == caller.account => {}
        Some(_) | None => return refuse(Code::LeaseNotFound, format!("no lease of yours has the id {lease}")),
    }
    accounts::own_key(&money.accounts, caller.account, "leases ... --key FILE").await
}

/// Closes a lease of the caller's; it drains when this returns.
pub(crate) async fn close(money: &Arc<Money>, caller: &Caller, lease: LeaseId) -> Answer<()> {
    let key = own(money, caller, lease).await?;
    let action = Action::CloseLease(CloseLease { lease });
    let sent = accounts::send(&money.accounts, caller.account, &key, action).await?;
    if let Some(LeaseState::Draining { until_height }) = on_ledger(money, lease).await?.map(|record| record.state) {
        if let Some(put) = began(money, lease, until_height).await? {
            codecs::keep(&money.ground, &put).await?;
        }
        // There may be no time left for a decision about it.
        withheld::release_of(money, lease).await?;
    }
    let detail = json!({"height": sent.done.height, "transaction": sent.done.id});
    audit::own(
        &money.accounts,
        caller.account,
        ("lease", "closing"),
        lease.to_string(),
        detail,
    )
    .await
}

/// Lets another controller's key pay from a lease of the caller's, and ack, or no longer.
pub(crate) async fn delegate(
    money: &Money,
    caller: &Caller,
    lease: LeaseId,
    (payer, add): (PublicKey, bool),
) -> Answer<()> {
    let key = own(money, caller, lease).await?;
    let action = Action::DelegatePayer(DelegatePayer {
        lease,
        key: payer,
        add,
        mailbox: true,
    });
    let sent = accounts::send(&money.accounts, caller.account, &key, action).await?;
    if let Some(put) = leases::noticed(money, caller.account, lease).await? {
        codecs::keep(&money.ground, &put).await?;
    }
    let verb = if add { "payer_added" } else { "payer_removed" };
    let detail = json!({"payer": payer, "height": sent.done.height, "transaction": sent.done.id});
    audit::own(
        &money.accounts,
        caller.account,
        ("lease", verb),
        lease.to_string(),
        detail,
    )
    .await
}
