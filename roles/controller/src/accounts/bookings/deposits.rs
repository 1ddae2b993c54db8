//! Deposits: an operator books credits in, once for each reference.

use std::sync::Arc;

use piecework_api::bookings::{CreateDeposit, DepositState, DepositView};
use piecework_model::Code;

use super::{Booking, BookingKind, Kept, carry_out, kept, kept_page, movement, positive, reference};
use crate::{
    Answer,
    accounts::{Accounts, auth::Caller, find},
    clock::{now_ms, timestamp},
    failure::refuse,
};

/// By reference.
pub(super) const SPACE: &str = "deposit";

/// Books a deposit, and answers when the credits have moved. Refuses with `reference.malformed`, `reference.taken`,
/// `transfer.queued` while the ledger does not answer, and what the ledger says of a transfer.
pub(crate) async fn add(accounts: &Arc<Accounts>, caller: &Caller, body: CreateDeposit) -> Answer<DepositView> {
    let reference = reference(&body.reference)?;
    positive(body.amount_ucr)?;
    let account = find(accounts, &body.account).await?;
    if account == accounts.ground.operator {
        let message = "deposits are paid from the operator's account, so it cannot receive one";
        return refuse(Code::TransferSelf, message);
    }
    let (booking, is_repeated) = {
        let _turn = accounts.booking.lock().await;
        match kept(accounts, SPACE, &reference).await?.and_then(|kept| kept.booking) {
            Some(earlier) if earlier.account == account && earlier.amount == body.amount_ucr => (earlier, true),
            Some(earlier) => {
                let name = accounts.ground.account_name(earlier.account).await;
                let message = format!("`{reference}` was already booked: {} for {name}", earlier.amount);
                return refuse(Code::ReferenceTaken, message);
            }
            None => {
                let booking = Booking {
                    kind: BookingKind::Deposit,
                    account,
                    amount: body.amount_ucr,
                    reference: reference.clone(),
                    by: caller.account,
                    at_ms: now_ms(),
                };
                let (_, keeper) = movement(accounts, &booking, SPACE, &reference).await;
                keeper.begin(accounts).await?;
                (booking, false)
            }
        }
    };
    carry_out(accounts, &booking, SPACE, &reference).await?;
    let done = kept(accounts, SPACE, &reference).await?;
    let mut view = view(accounts, &booking, done.as_ref()).await;
    view.is_repeated = is_repeated;
    Ok(view)
}

/// A page of them, by reference.
pub(crate) async fn deposits(
    accounts: &Accounts,
    after: Option<&str>,
    limit: u32,
) -> Answer<(Vec<DepositView>, Option<String>)> {
    let (items, next) = kept_page(accounts, (SPACE, ""), (after, limit)).await?;
    let mut views = Vec::with_capacity(items.len());
    for (_, kept) in &items {
        if let Some(booking) = &kept.booking {
            views.push(view(accounts, booking, Some(kept)).await);
        }
    }
    Ok((views, next))
}

async fn view(accounts: &Accounts, booking: &Booking, kept: Option<&Kept>) -> DepositView {
    let done = kept.and_then(|kept| kept.answer.as_ref());
    DepositView {
        reference: booking.reference.clone(),
        account: accounts.ground.account_name(booking.account).await,
        amount_ucr: booking.amount,
        state: match done {
            Some(_) => DepositState::Booked,
            None => DepositState::Queued,
        },
        by: accounts.ground.account_name(booking.by).await,
        at: timestamp(booking.at_ms),
        is_repeated: false,
        transaction: done.map(|done| done.transaction),
        height: done.map(|done| done.height),
    }
}
