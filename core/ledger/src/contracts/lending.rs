//! Mutual credit: what a sponsor lends is held at the sponsor, so it is never lent or spent twice.

use piecework_model::{Credits, Rejection};

use super::Call;
use crate::{
    draft::{minus, negated, plus},
    execute::Event,
    mutant::{Mutant, broken},
    rejections::{account_limit_in_use, account_no_debt, account_not_sponsor, sponsor_limit},
    state::Account,
    transaction::{CoverDebt, SetLimit},
};

/// Raised by the sponsor, lowered by the sponsor or the account itself; never below what is owed or held on it.
pub(super) fn set_limit(call: &mut Call, set: &SetLimit) -> Result<(), Rejection> {
    let sender = call.authorize_sender()?;
    let mut account = call.draft.account(set.account)?;
    let gives_back = sender == set.account && set.limit <= account.limit;
    let sponsor = match account.sponsor {
        Some(sponsor) if sender == sponsor || gives_back => sponsor,
        None if sender != set.account => sender,
        Some(_) | None => return Err(account_not_sponsor().field("account")),
    };
    let free = call.draft.account(sponsor)?.available();
    let refused = || {
        sponsor_limit()
            .field("limit")
            .hint(format!("the sponsor has {free} ucr free"))
    };
    if set.limit.is_negative() {
        return Err(refused());
    }
    let growth = minus(set.limit, account.limit)?;
    if free < growth {
        return Err(refused());
    }
    account.limit = set.limit;
    account.sponsor = set.limit.is_positive().then_some(sponsor);
    check_covered(&account)?;
    call.draft.put_account(set.account, account);
    call.draft.move_credits(sponsor, Credits::ZERO, growth)?;
    call.events.push(Event::LimitSet {
        sponsor,
        account: set.account,
        limit: set.limit,
    });
    Ok(())
}

fn check_covered(account: &Account) -> Result<(), Rejection> {
    let free = account.available();
    match free.is_negative() && !broken(Mutant::LowerLimitInUse) {
        true => Err(account_limit_in_use().hint(format!("{} ucr more are needed", negated(free)?))),
        false => Ok(()),
    }
}

/// What was lent is given: the sponsor's hold turns into credits of the account, which owes that much less.
pub(super) fn cover_debt(call: &mut Call, cover: &CoverDebt) -> Result<(), Rejection> {
    let sponsor = call.authorize_sender()?;
    let CoverDebt { account: id, amount } = *cover;
    let mut account = call.draft.account(id)?;
    if account.sponsor != Some(sponsor) {
        return Err(account_not_sponsor().field("account"));
    }
    let debt = negated(account.posted)?;
    if !amount.is_positive() || amount > debt {
        return Err(account_no_debt().field("amount").hint(format!("it owes {debt} ucr")));
    }
    account.posted = plus(account.posted, amount)?;
    account.limit = minus(account.limit, amount)?;
    if account.limit == Credits::ZERO {
        account.sponsor = None;
    }
    call.draft.put_account(id, account);
    let freed = match broken(Mutant::KeepLoanHeld) {
        true => Credits::ZERO,
        false => negated(amount)?,
    };
    call.draft.move_credits(sponsor, negated(amount)?, freed)?;
    call.events.push(Event::DebtCovered {
        sponsor,
        account: id,
        amount,
    });
    Ok(())
}
