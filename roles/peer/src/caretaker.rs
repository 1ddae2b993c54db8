//! Maintenance of the ledger that is no one account's duty; a peer does it automatically.
//!
//! Pays out the peers' share of the commissions when there is enough of it, and closes leases whose window is over and
//! whose controller (which normally does it) is gone. Several peers may do the same: it takes effect once.

use std::{sync::Arc, time::Duration};

use piecework_chain::{Chain, ChainFailure, SubmitError};
use piecework_ledger::{
    Action, Committee, ExpireLease, Key, LeaseState, PayPeers, Pools, SignedTransaction, Transaction, Value,
};
use piecework_model::{AccountId, Code, Credits, LeaseId, OwnerName, SecretKey};
use tokio_util::sync::CancellationToken;

use crate::index::Index;

/// What the owner of a peer wants it to do.
#[derive(Clone, Debug)]
pub struct Payout {
    /// The owner's account, and its key.
    pub owner: OwnerName,
    pub key: SecretKey,
    /// A share that is smaller waits for more.
    pub least: Credits,
    pub every: Duration,
}

/// A tenth of a credit.
pub const LEAST: Credits = Credits(100_000);
pub const EVERY: Duration = Duration::from_secs(600);

/// Between two looks at leases that drain.
const LOOK: Duration = Duration::from_secs(2);
/// So long after its window a lease is left to its controller.
const GRACE_BLOCKS: u64 = 30;
/// Of one look; the rest waits for the next.
const LEASES_MAX: usize = 100;

/// What each peer would get now, if that is no less than `least`.
fn due(pools: &Pools, committee: &Committee, height: u64, least: Credits) -> Option<Credits> {
    let peers = i128::try_from(committee.at(height).len())
        .ok()
        .filter(|peers| *peers > 0)?;
    let each = Credits(pools.peers.0 / peers);
    (each.is_positive() && each >= least).then_some(each)
}

/// Has the peers' share paid out, again and again, until `shutdown`.
pub async fn pay_out(chain: Arc<dyn Chain>, payout: Payout, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(payout.every) => {}
        }
        match pay_once(&*chain, &payout).await {
            Ok(Some(each)) => tracing::info!(%each, "paid the peers' share"),
            Ok(None) => {}
            // Another peer was first, or another transaction of the owner's.
            Err(SubmitError::Rejected(rejection)) => tracing::debug!(%rejection, "paying the peers' share failed"),
            Err(SubmitError::Failed(failure)) => tracing::warn!(%failure, "paying the peers' share failed"),
        }
    }
}

async fn pay_once(chain: &dyn Chain, payout: &Payout) -> Result<Option<Credits>, SubmitError> {
    let height = chain.status().height;
    let (Some(Value::Pools(pools)), Some(Value::Committee(committee))) =
        (get(chain, Key::Pools).await?, get(chain, Key::Committee).await?)
    else {
        return Ok(None);
    };
    let Some(each) = due(&pools, &committee, height, payout.least) else {
        return Ok(None);
    };
    let Some(Value::Name(owner)) = get(chain, Key::Name(payout.owner.clone())).await? else {
        return Ok(None);
    };
    let Some(Value::Account(account)) = get(chain, Key::Account(owner)).await? else {
        return Ok(None);
    };
    send(
        chain,
        (owner, account.nonce),
        &payout.key,
        Action::PayPeers(PayPeers {}),
    )
    .await?;
    Ok(Some(each))
}

async fn get(chain: &dyn Chain, key: Key) -> Result<Option<Value>, SubmitError> {
    chain.get(&key).await.map_err(SubmitError::Failed)
}

async fn send(
    chain: &dyn Chain,
    (sender, nonce): (AccountId, u64),
    key: &SecretKey,
    action: Action,
) -> Result<(), SubmitError> {
    let transaction = Transaction { sender, nonce, action };
    let signed = SignedTransaction::sign(transaction, key, &chain.network());
    chain.submit_and_wait(signed).await.map(drop)
}

/// Closes leases whose window is over and whose controller has not closed them, until `shutdown`. Any key can sign.
pub(crate) async fn expire_leases(
    index: Arc<Index>,
    chain: Arc<dyn Chain>,
    key: SecretKey,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let over = chain.status().height.saturating_sub(GRACE_BLOCKS);
        for lease in index.drained(over, LEASES_MAX) {
            match expire(&*chain, &key, lease).await {
                Ok(true) => index.closed(lease),
                Ok(false) => {}
                Err(failure) => tracing::warn!(%lease, %failure, "closing a lease after its window failed"),
            }
        }
    }
}

/// Whether it is closed now. Claims that wait keep it open: their providers have them paid.
async fn expire(chain: &dyn Chain, key: &SecretKey, lease: LeaseId) -> Result<bool, ChainFailure> {
    let Some(Value::Lease(record)) = chain.get(&Key::Lease(lease)).await? else {
        return Ok(true);
    };
    if record.state == LeaseState::Closed {
        return Ok(true);
    }
    if record.claimed_jobs > 0 {
        return Ok(false);
    }
    let action = Action::ExpireLease(ExpireLease { lease });
    let sender = AccountId::of(&key.public());
    match send(chain, (sender, 0), key, action).await {
        Ok(()) => {
            tracing::info!(%lease, "closed a lease after its window ended");
            Ok(true)
        }
        Err(SubmitError::Rejected(rejection)) => Ok(rejection.code == Code::LeaseClosed),
        Err(SubmitError::Failed(failure)) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use piecework_ledger::Peer;

    use super::*;

    fn committee(peers: u8) -> Committee {
        let peer = |number: u8| Peer {
            key: SecretKey::from_seed([number; 32]).public(),
            owner: AccountId([number; 20]),
            address: "peer:1".into(),
            since_height: 0,
        };
        Committee {
            peers: (0..peers).map(peer).collect(),
            next: None,
        }
    }

    #[test]
    fn a_share_is_paid_out_when_it_is_worth_it() {
        let pools = |peers: i128| Pools {
            peers: Credits(peers),
            insurance: Credits(1_000_000),
        };
        assert_eq!(due(&pools(399), &committee(4), 1, Credits(100)), None);
        assert_eq!(due(&pools(403), &committee(4), 1, Credits(100)), Some(Credits(100)));
        assert_eq!(
            due(&pools(3), &committee(4), 1, Credits::ZERO),
            None,
            "less than one ucr each"
        );
        assert_eq!(due(&pools(3), &committee(0), 1, Credits::ZERO), None);
    }
}
