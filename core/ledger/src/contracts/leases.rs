//! Leases: a developer's held budget, who may draw on it, and how it ends.
//!
//! ```text
//! OpenLease -> Open -- CloseLease --> Draining{until} -- ExpireLease, after until --> Closed
//! ```
//! Settlements and claims land up to and including the height `until`; the lease can expire only after it, and only when no
//! claim waits any more. There is no way from `Draining` back to `Open`, and nothing shortens the drain.

use piecework_model::{AccountId, Credits, LeaseId, PublicKey, Rejection};

use super::Call;
use crate::{
    bounds::KEYS_PER_LEASE_MAX,
    draft::{minus, negated, plus},
    execute::Event,
    mutant::{Mutant, broken},
    rejections::{
        lease_bad_budget, lease_claims_pending, lease_closed, lease_draining, lease_insufficient_funds, lease_no_payer,
        lease_not_draining, lease_not_yours, lease_payer_exists, lease_payer_unknown, lease_still_draining,
        lease_too_many_payers,
    },
    state::{Key, Lease, LeaseState, Value},
    transaction::{CloseLease, DelegatePayer, ExpireLease, OpenLease, TopUp},
};

/// The subject is for the reader, not for the rules: the ledger sees the digest of a job's code, not whose function it is.
pub(super) fn open(call: &mut Call, open: &OpenLease) -> Result<(), Rejection> {
    let developer = call.authorize_sender()?;
    if open.payer_keys.is_empty() || open.mailboxes.is_empty() {
        return Err(lease_no_payer());
    }
    call.draft.account(open.controller)?;
    if let Some(provider) = open.provider {
        call.draft.account(provider)?;
    }
    hold_budget(call, developer, open.budget)?;
    let id = LeaseId::of(developer, call.signed.transaction.nonce);
    put(call, id, new_lease(developer, open, call.params.window_blocks));
    call.events.push(Event::LeaseOpened {
        lease: id,
        developer,
        budget: open.budget,
    });
    Ok(())
}

fn new_lease(developer: AccountId, open: &OpenLease, window_blocks: u32) -> Lease {
    Lease {
        developer,
        subject: open.subject,
        provider: open.provider,
        controller: open.controller,
        price_caps: open.price_caps,
        budget: open.budget,
        used: Credits::ZERO,
        reserved: Credits::ZERO,
        payer_keys: open.payer_keys.clone(),
        former_payers: Vec::new(),
        mailboxes: open.mailboxes.clone(),
        exposure_ucr: open.exposure_ucr,
        window_blocks,
        state: LeaseState::Open,
        open_jobs: 0,
        claimed_jobs: 0,
    }
}

fn put(call: &mut Call, id: LeaseId, lease: Lease) {
    call.draft.put(Key::Lease(id), Value::Lease(lease));
}

fn hold_budget(call: &mut Call, developer: AccountId, budget: Credits) -> Result<(), Rejection> {
    if !budget.is_positive() {
        return Err(lease_bad_budget());
    }
    let free = call.draft.account(developer)?.available();
    if free < budget {
        return Err(lease_insufficient_funds().hint(format!("{free} ucr are free")));
    }
    call.draft.move_credits(developer, Credits::ZERO, budget)
}

/// The lease, if it is the sender's.
fn own(call: &mut Call, id: LeaseId) -> Result<Lease, Rejection> {
    let sender = call.authorize_sender()?;
    let lease = call.draft.lease(id)?;
    if lease.developer == sender || broken(Mutant::AnyDelegate) {
        Ok(lease)
    } else {
        Err(lease_not_yours())
    }
}

/// Rejects with `lease.draining` or `lease.closed`.
pub(super) fn check_open(lease: &Lease) -> Result<(), Rejection> {
    match lease.state {
        LeaseState::Open => Ok(()),
        LeaseState::Draining { .. } => Err(lease_draining()),
        LeaseState::Closed => Err(lease_closed()),
    }
}

pub(super) fn top_up(call: &mut Call, top_up: &TopUp) -> Result<(), Rejection> {
    let mut lease = own(call, top_up.lease)?;
    check_open(&lease)?;
    hold_budget(call, lease.developer, top_up.amount)?;
    lease.budget = plus(lease.budget, top_up.amount)?;
    put(call, top_up.lease, lease);
    call.events.push(Event::LeaseToppedUp {
        lease: top_up.lease,
        amount: top_up.amount,
    });
    Ok(())
}

/// Also while the lease drains: a controller lost then is replaced too. Taking the last key away leaves none. What a key
/// sealed before it went can be claimed for one window more: nobody is robbed of finished work by taking its orderer away.
pub(super) fn delegate_payer(call: &mut Call, delegate: &DelegatePayer) -> Result<(), Rejection> {
    let mut lease = own(call, delegate.lease)?;
    if lease.state == LeaseState::Closed {
        return Err(lease_closed());
    }
    match (delegate.add, lease.payer_keys.contains(&delegate.key)) {
        (true, true) => return Err(lease_payer_exists()),
        (false, false) => return Err(lease_payer_unknown()),
        (true, false) => add_payer(&mut lease, delegate.key)?,
        (false, true) => remove_payer(&mut lease, delegate.key, call.context.height)?,
    }
    if delegate.mailbox {
        change_mailbox(&mut lease, delegate)?;
    }
    put(call, delegate.lease, lease);
    call.events.push(Event::PayerDelegated { lease: delegate.lease });
    Ok(())
}

fn add_payer(lease: &mut Lease, key: PublicKey) -> Result<(), Rejection> {
    if lease.payer_keys.len() >= KEYS_PER_LEASE_MAX {
        return Err(lease_too_many_payers());
    }
    lease.former_payers.retain(|(former, _)| *former != key);
    lease.payer_keys.push(key);
    Ok(())
}

/// Without any mailbox nothing is acked: until one is added, providers are paid by their claims.
fn change_mailbox(lease: &mut Lease, delegate: &DelegatePayer) -> Result<(), Rejection> {
    lease.mailboxes.retain(|mailbox| *mailbox != delegate.key);
    if !delegate.add {
        return Ok(());
    }
    if lease.mailboxes.len() >= KEYS_PER_LEASE_MAX {
        return Err(lease_too_many_payers().field("mailbox"));
    }
    lease.mailboxes.push(delegate.key);
    Ok(())
}

fn remove_payer(lease: &mut Lease, key: PublicKey, height: u64) -> Result<(), Rejection> {
    lease.former_payers.retain(|(_, until_height)| height <= *until_height);
    if lease.former_payers.len() >= KEYS_PER_LEASE_MAX {
        return Err(lease_too_many_payers().hint("of those taken away within a window"));
    }
    lease.payer_keys.retain(|known| *known != key);
    let until_height = height.saturating_add(u64::from(lease.window_blocks));
    lease.former_payers.push((key, until_height));
    Ok(())
}

pub(super) fn close(call: &mut Call, close: &CloseLease) -> Result<(), Rejection> {
    let mut lease = own(call, close.lease)?;
    check_open(&lease)?;
    let until_height = call.context.height.saturating_add(u64::from(lease.window_blocks));
    lease.state = LeaseState::Draining { until_height };
    put(call, close.lease, lease);
    call.events.push(Event::LeaseDraining {
        lease: close.lease,
        until_height,
    });
    Ok(())
}

/// Frees all that was not paid. Open jobs lapse: their records stay, but a closed lease pays none. Anybody may sign, with
/// or without an account; the nonce is not looked at, for it works only once.
pub(super) fn expire(call: &mut Call, expire: &ExpireLease) -> Result<(), Rejection> {
    let mut lease = call.draft.lease(expire.lease)?;
    match lease.state {
        LeaseState::Open => return Err(lease_not_draining()),
        LeaseState::Closed => return Err(lease_closed()),
        LeaseState::Draining { until_height } if call.context.height <= until_height => {
            return Err(lease_still_draining().hint(format!("its last height is {until_height}")));
        }
        LeaseState::Draining { .. } => call.verify_signature()?,
    }
    if lease.claimed_jobs > 0 && !broken(Mutant::ExpireWithClaims) {
        return Err(lease_claims_pending().hint(format!("{} jobs are claimed", lease.claimed_jobs)));
    }
    let freed = minus(lease.budget, lease.used)?;
    call.draft
        .move_credits(lease.developer, Credits::ZERO, negated(freed)?)?;
    lease.state = LeaseState::Closed;
    lease.reserved = Credits::ZERO;
    lease.open_jobs = 0;
    put(call, expire.lease, lease);
    call.events.push(Event::LeaseClosed {
        lease: expire.lease,
        freed,
    });
    Ok(())
}
