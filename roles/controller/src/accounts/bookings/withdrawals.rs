//! Withdrawals: an account's owner asks for credits to be paid outside of the ledger, and an operator settles or declines.
//!
//! ```text
//! queued --credits at the operator's account--> open --settle--> settled
//!    `--refused by the ledger--> forgotten         `--decline--> returning --credits back--> declined
//! ```
//! The decision is one record, written once, before anything follows from it: nothing is both paid and returned. What was begun
//! goes on after a restart.

use std::sync::Arc;

use piecework_api::bookings::{CreateWithdrawal, WithdrawalState, WithdrawalView, WithdrawalsQuery};
use piecework_api::page::PageQuery;
use piecework_model::{AccountId, Code, Credits, Digest};
use piecework_store::Idempotency;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Begun, Booking, BookingKind, Kept, carry_out, kept, movement, positive, reference};
use crate::{
    Answer,
    accounts::{
        Accounts, audit,
        auth::{Caller, random_text},
        on_ledger, own_key,
    },
    clock::{now_ms, timestamp},
    codecs,
    failure::{refuse, store},
};

/// By id: the credits on their way to the operator's account, or there.
pub(super) const SPACE: &str = "withdrawal";
/// By id: the credits on their way back, or there.
pub(super) const RETURNED: &str = "withdrawal_returned";
/// By id.
const DECISIONS: &str = "withdrawal_decision";
/// Ids that wait for a decision.
const OPEN: &str = "withdrawal_open";
/// Ids by the reference of the payment.
const REFERENCES: &str = "withdrawal_reference";

/// Of one account that wait for a decision: each is work for a person.
const OPEN_MAX: usize = 10;
/// Hex digits of an id that are its account's, so that an account's own are listed together.
const ACCOUNT_DIGITS: usize = 16;

/// What an operator said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Decision {
    is_settled: bool,
    /// The reference of the payment, or the reason for declining.
    detail: String,
    by: AccountId,
    at_ms: u64,
}

/// How the ids of an account's withdrawals begin.
fn prefix(account: AccountId) -> String {
    format!("wd_{}", &hex::encode(account.0)[..ACCOUNT_DIGITS])
}

fn id_of(account: AccountId, key: Option<&Idempotency>) -> String {
    match key {
        Some(key) => {
            let digest = Digest::of_value("piecework 2026 withdrawal", &(account, &key.key));
            format!("{}{}", prefix(account), &hex::encode(digest.0)[..16])
        }
        None => random_text(&prefix(account), 8),
    }
}

/// Takes the credits from the account, and answers when they have moved. With a key, a repeated request is the same withdrawal.
///
/// Refuses with `withdrawal.too_many`, `idempotency.conflict`, `transfer.insufficient` for what the account does not own,
/// `transfer.queued` while the ledger does not answer, and `account.bad_signature` where the controller does not keep the key.
pub(crate) async fn request(
    accounts: &Arc<Accounts>,
    caller: &Caller,
    body: CreateWithdrawal,
    key: Option<Idempotency>,
) -> Answer<WithdrawalView> {
    let pay_to = reference(&body.pay_to)?;
    positive(body.amount_ucr)?;
    if caller.account == accounts.ground.operator {
        let message = "withdrawals are paid to the operator's account, which has no need of one";
        return refuse(Code::TransferSelf, message);
    }
    own_key(accounts, caller.account, "transfer OPERATOR AMOUNT --key FILE").await?;
    let id = id_of(caller.account, key.as_ref());
    let booking = {
        let _turn = accounts.booking.lock().await;
        match kept(accounts, SPACE, &id).await?.and_then(|kept| kept.booking) {
            Some(earlier) if earlier.amount == body.amount_ucr && earlier.reference == pay_to => earlier,
            Some(_) => {
                let message = "the idempotency key was already used with a different request";
                return refuse(Code::IdempotencyConflict, message);
            }
            None => begin(accounts, caller.account, (&id, body.amount_ucr, pay_to)).await?,
        }
    };
    carry_out(accounts, &booking, SPACE, &id).await?;
    shown(accounts, &id).await
}

/// With the turn held.
async fn begin(
    accounts: &Accounts,
    account: AccountId,
    (id, amount, pay_to): (&str, Credits, String),
) -> Answer<Booking> {
    let under_way = check_open(accounts, account).await?;
    let owned = on_ledger(accounts, account).await?;
    let free = Credits(owned.posted.0.saturating_sub(owned.held.0).saturating_sub(under_way.0));
    if free < amount {
        let message = format!("the account owns {free} ucr that nothing holds; borrowed credits cannot be withdrawn");
        return refuse(Code::TransferInsufficient, message);
    }
    let booking = Booking {
        kind: BookingKind::Withdrawal,
        account,
        amount,
        reference: pay_to,
        by: account,
        at_ms: now_ms(),
    };
    let (_, keeper) = movement(accounts, &booking, SPACE, id).await;
    // In this order: one that is open and was never begun is found below.
    codecs::put_json(&accounts.ground, OPEN, id, &()).await?;
    keeper.begin(accounts).await?;
    Ok(booking)
}

/// What the account's withdrawals take from it whose credits have not moved yet. Refuses with `withdrawal.too_many`. Forgets those
/// that the ledger has refused.
async fn check_open(accounts: &Accounts, account: AccountId) -> Answer<Credits> {
    let values = &accounts.ground.store;
    // Some of them may be refused ones.
    let most = u32::try_from(10 * OPEN_MAX).expect("few");
    let own = prefix(account);
    let page = values.list_values(OPEN, &own, None, most);
    let (mut open, mut under_way) = (0, Credits(0));
    for (id, _) in page.await.map_err(store)?.items {
        match kept(accounts, SPACE, &id).await? {
            Some(kept) => {
                open += 1;
                let moves = kept.booking.filter(|_| kept.answer.is_none());
                under_way.0 += moves.map_or(0, |booking| booking.amount.0);
            }
            None => drop(values.take_value(OPEN, &id).await.map_err(store)?),
        }
    }
    if open < OPEN_MAX {
        return Ok(under_way);
    }
    let message =
        format!("{OPEN_MAX} withdrawals of the account wait for a decision; wait until an operator has decided");
    refuse(Code::WithdrawalTooMany, message)
}

/// Notes that an operator has paid it. With the same reference again it is the same answer.
///
/// Refuses with `withdrawal.not_found`, `withdrawal.decided`, `reference.taken`, and `transfer.queued` while the credits are on
/// their way.
pub(crate) async fn settle(accounts: &Arc<Accounts>, caller: &Caller, id: &str, paid: &str) -> Answer<WithdrawalView> {
    let paid = reference(paid)?;
    let _turn = accounts.booking.lock().await;
    let booking = decidable(accounts, id).await?;
    if let Some(earlier) = decision(accounts, id).await? {
        check_same(&earlier, (true, &paid))?;
        return shown(accounts, id).await;
    }
    let values = &accounts.ground.store;
    match values.value(REFERENCES, &paid).await.map_err(store)? {
        Some(of) if codecs::from_json::<String>(&of)? != id => {
            let message = format!("`{paid}` has already settled another withdrawal");
            return refuse(Code::ReferenceTaken, message);
        }
        Some(_) | None => codecs::put_json(&accounts.ground, REFERENCES, &paid, &id).await?,
    }
    decide(accounts, caller, (id, &booking), (true, paid)).await?;
    shown(accounts, id).await
}

/// Gives the credits back, and answers when they have moved. Said again it is the same answer.
///
/// Refuses like [`settle`], and with what the ledger says of the transfer back; the decision stays, and can be said again.
pub(crate) async fn decline(
    accounts: &Arc<Accounts>,
    caller: &Caller,
    id: &str,
    reason: &str,
) -> Answer<WithdrawalView> {
    let reason = reference(reason)?;
    let back = {
        let _turn = accounts.booking.lock().await;
        let booking = decidable(accounts, id).await?;
        match decision(accounts, id).await? {
            Some(earlier) => check_same(&earlier, (false, &reason))?,
            None => decide(accounts, caller, (id, &booking), (false, reason.clone())).await?,
        }
        let made = decision(accounts, id).await?;
        back(&booking, made.map_or(caller.account, |made| made.by), reason)
    };
    carry_out(accounts, &back, RETURNED, id).await?;
    shown(accounts, id).await
}

/// The way back of a withdrawal.
fn back(booking: &Booking, by: AccountId, reason: String) -> Booking {
    Booking {
        kind: BookingKind::WithdrawalReturned,
        reference: reason,
        by,
        ..booking.clone()
    }
}

/// The withdrawal, if its credits are here.
async fn decidable(accounts: &Accounts, id: &str) -> Answer<Booking> {
    match kept(accounts, SPACE, id).await? {
        Some(Kept {
            booking: Some(booking),
            answer: Some(_),
            ..
        }) => Ok(booking),
        Some(_) => refuse(
            Code::TransferQueued,
            "the credits have not reached the operator's account yet; decide when the withdrawal is open",
        ),
        None => refuse(Code::WithdrawalNotFound, format!("there is no withdrawal `{id}`")),
    }
}

async fn decision(accounts: &Accounts, id: &str) -> Answer<Option<Decision>> {
    let bytes = accounts.ground.store.value(DECISIONS, id).await.map_err(store)?;
    bytes.map(|bytes| codecs::from_json(&bytes)).transpose()
}

fn check_same(earlier: &Decision, (is_settled, detail): (bool, &str)) -> Answer<()> {
    if earlier.is_settled == is_settled && earlier.detail == detail {
        return Ok(());
    }
    let said = match earlier.is_settled {
        true => "settled with the reference",
        false => "declined with the reason",
    };
    refuse(
        Code::WithdrawalDecided,
        format!("the withdrawal was already {said} `{}`", earlier.detail),
    )
}

/// With the turn held, and no decision yet.
async fn decide(
    accounts: &Accounts,
    caller: &Caller,
    (id, booking): (&str, &Booking),
    (is_settled, detail): (bool, String),
) -> Answer<()> {
    let decision = Decision {
        is_settled,
        detail,
        by: caller.account,
        at_ms: now_ms(),
    };
    codecs::put_json(&accounts.ground, DECISIONS, id, &decision).await?;
    accounts.ground.store.take_value(OPEN, id).await.map_err(store)?;
    let verb = if is_settled { "settled" } else { "declined" };
    let detail = json!({"withdrawal": id, "amount_ucr": booking.amount, "detail": decision.detail});
    let target = accounts.ground.account_name(booking.account).await;
    let whose = (Some(caller.account), booking.account);
    audit::record(accounts, whose, ("withdrawal", verb), target, detail).await
}

/// A page of the caller's, or of all accounts'.
pub(crate) async fn withdrawals(
    accounts: &Accounts,
    caller: &Caller,
    query: &WithdrawalsQuery,
) -> Answer<(Vec<WithdrawalView>, Option<String>)> {
    let prefix = match query.all {
        true => "wd_".to_owned(),
        false => prefix(caller.account),
    };
    let limit = PageQuery {
        limit: query.limit,
        cursor: None,
    }
    .limit();
    let space = if query.open { OPEN } else { SPACE };
    let page = accounts
        .ground
        .store
        .list_values(space, &prefix, query.cursor.as_deref(), limit);
    let page = page.await.map_err(store)?;
    let mut views = Vec::with_capacity(page.items.len());
    for (id, _) in page.items {
        match shown(accounts, &id).await {
            Ok(view) => views.push(view),
            // Refused by the ledger meanwhile.
            Err(refused) if refused.code == Code::WithdrawalNotFound => {}
            Err(other) => return Err(other),
        }
    }
    Ok((views, page.next))
}

async fn shown(accounts: &Accounts, id: &str) -> Answer<WithdrawalView> {
    let Some(Kept {
        booking: Some(booking),
        answer,
        ..
    }) = kept(accounts, SPACE, id).await?
    else {
        return refuse(Code::WithdrawalNotFound, format!("there is no withdrawal `{id}`"));
    };
    let decision = decision(accounts, id).await?;
    let is_back = kept(accounts, RETURNED, id)
        .await?
        .is_some_and(|kept| kept.answer.is_some());
    let state = match &decision {
        None if answer.is_none() => WithdrawalState::Queued,
        None => WithdrawalState::Open,
        Some(decision) if decision.is_settled => WithdrawalState::Settled,
        Some(_) if is_back => WithdrawalState::Declined,
        Some(_) => WithdrawalState::Returning,
    };
    Ok(WithdrawalView {
        id: id.to_owned(),
        account: accounts.ground.account_name(booking.account).await,
        amount_ucr: booking.amount,
        pay_to: booking.reference,
        state,
        at: timestamp(booking.at_ms),
        by: accounts
            .ground
            .name_of(decision.as_ref().map(|decision| decision.by))
            .await,
        decided_at: decision.as_ref().map(|decision| timestamp(decision.at_ms)),
        detail: decision.map(|decision| decision.detail),
    })
}

/// Goes on with what was declined and has not begun to return.
pub(super) async fn take_up(accounts: &Accounts, begun: &mut Begun) -> Answer<()> {
    let mut after = None;
    loop {
        let page = accounts.ground.store.list_values(DECISIONS, "", after.as_deref(), 500);
        let page = page.await.map_err(store)?;
        for (id, bytes) in page.items {
            let decision: Decision = codecs::from_json(&bytes)?;
            if decision.is_settled || kept(accounts, RETURNED, &id).await?.is_some() {
                continue;
            }
            if let Some(booking) = kept(accounts, SPACE, &id).await?.and_then(|kept| kept.booking) {
                begun.push((back(&booking, decision.by, decision.detail), RETURNED, id));
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}
