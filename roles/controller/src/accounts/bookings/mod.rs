//! Credits booked in and out against something outside of the ledger: a bank transfer, an invoice.
//!
//! No credits begin or end here. What comes in is paid from the operator's account, and what goes out is paid to it; the ledger
//! knows both as transfers. Each reference moves credits once.

mod deposits;
mod withdrawals;

pub(crate) use deposits::{add, deposits};
pub(crate) use withdrawals::{decline, request, settle, withdrawals};

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use piecework_api::{errors::Refusal, ledger::TransferView};
use piecework_model::{AccountId, Code, Credits, Digest};

use crate::{
    Answer,
    accounts::{
        Accounts,
        transfers::{self, Booking, BookingKind, Keeper, Kept, Order, Purpose},
    },
    codecs,
    failure::{refuse, store},
};

const REFERENCE_LENGTH_MAX: usize = 100;

/// Refuses with `reference.malformed`. Control characters would reach the terminals and spreadsheets of others.
fn reference(text: &str) -> Answer<String> {
    let text = text.trim();
    let length = text.chars().count();
    if length == 0 || length > REFERENCE_LENGTH_MAX || text.chars().any(char::is_control) {
        let message = "a reference has 1 to 100 characters and no control characters";
        return refuse(Code::ReferenceMalformed, message);
    }
    Ok(text.to_owned())
}

fn positive(amount: Credits) -> Answer<()> {
    if amount.is_positive() {
        return Ok(());
    }
    let mut refused = Refusal::new(Code::TransferNotPositive, "the amount must be above zero");
    refused.field = Some("amount_ucr".into());
    Err(refused.into())
}

/// A booking's movement, and where it is remembered.
async fn movement(accounts: &Accounts, booking: &Booking, space: &str, key: &str) -> (Order, Keeper) {
    let operator = accounts.ground.operator;
    let (from, to) = match booking.kind {
        BookingKind::Deposit | BookingKind::WithdrawalReturned => (operator, booking.account),
        BookingKind::Withdrawal => (booking.account, operator),
    };
    let order = Order {
        from,
        from_name: accounts.ground.account_name(from).await,
        to,
        amount: booking.amount,
        purpose: Purpose::Booking {
            actor: booking.by,
            booking: booking.clone(),
        },
    };
    let keeper = Keeper {
        space: space.to_owned(),
        key: key.to_owned(),
        request: request_of(booking.account, booking.amount, booking.kind),
        booking: Some(booking.clone()),
    };
    (order, keeper)
}

/// What a repeated booking must have in common with the first.
fn request_of(account: AccountId, amount: Credits, kind: BookingKind) -> Digest {
    Digest::of_value("piecework 2026 booking", &(account, amount, kind.as_str()))
}

async fn carry_out(accounts: &Arc<Accounts>, booking: &Booking, space: &str, key: &str) -> Answer<TransferView> {
    let (order, keeper) = movement(accounts, booking, space, key).await;
    transfers::once_for(accounts, order, keeper).await
}

async fn kept(accounts: &Accounts, space: &str, key: &str) -> Answer<Option<Kept>> {
    let bytes = accounts.ground.store.value(space, key).await.map_err(store)?;
    bytes.map(|bytes| codecs::from_json(&bytes)).transpose()
}

/// A page of those.
async fn kept_page(
    accounts: &Accounts,
    (space, prefix): (&str, &str),
    (after, limit): (Option<&str>, u32),
) -> Answer<(Vec<(String, Kept)>, Option<String>)> {
    let page = accounts.ground.store.list_values(space, prefix, after, limit);
    let page = page.await.map_err(store)?;
    let items = page.items.into_iter();
    let items: Answer<Vec<_>> = items
        .map(|(key, bytes)| Ok((key, codecs::from_json(&bytes)?)))
        .collect();
    Ok((items?, page.next))
}

const TAKEN_UP_AT_ONCE: u32 = 500;
/// Bookings of an earlier run that are sent at a time: half of what one account may have under way, so that new ones get through.
const SENT_AT_ONCE: usize = 16;
/// Where as many are under way as may be: until the next try, and tries. An hour is longer than anybody's transfers take.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const TRIES_MAX: u32 = 3_600;

/// Goes on with what an earlier run of this process has begun and not seen final.
pub(crate) async fn take_up(accounts: &Arc<Accounts>) -> Answer<()> {
    let mut begun = Begun::default();
    for space in [deposits::SPACE, withdrawals::SPACE, withdrawals::RETURNED] {
        let mut after = None;
        loop {
            let (items, next) = kept_page(accounts, (space, ""), (after.as_deref(), TAKEN_UP_AT_ONCE)).await?;
            for (key, kept) in items {
                if let (None, Some(booking)) = (kept.answer, kept.booking) {
                    begun.push((booking, space, key));
                }
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    withdrawals::take_up(accounts, &mut begun).await?;
    let work = accounts.clone();
    accounts.ground.tasks.spawn(async move {
        let all = stream::iter(begun).for_each_concurrent(SENT_AT_ONCE, |begun| go_on(&work, begun));
        tokio::select! {
            () = work.ground.shutdown.cancelled() => {}
            () = all => {}
        }
    });
    Ok(())
}

/// Bookings without an end, each with where it is remembered.
type Begun = Vec<(Booking, &'static str, String)>;

/// To its end: the ledger may be silent, and other transfers may be under way.
async fn go_on(accounts: &Arc<Accounts>, (booking, space, key): (Booking, &'static str, String)) {
    let mut tries = 0;
    loop {
        let Err(refusal) = carry_out(accounts, &booking, space, &key).await else {
            return;
        };
        tries += 1;
        if refusal.code == Code::ServerBusy && tries < TRIES_MAX {
            tokio::time::sleep(AGAIN_AFTER).await;
        } else if refusal.code != Code::TransferQueued {
            tracing::warn!(%refusal, space, key, "a booking that an earlier run had begun is not final");
            return;
        }
    }
}
