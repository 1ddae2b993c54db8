//! Payment: jobs' records are kept, or paid and removed, and the credits of a whole lane move at once.

use piecework_model::{AccountId, Credits, Rejection};

use super::{Call, jobs::LaneBook};
use crate::{
    draft::{minus, negated, plus},
    execute::Event,
    lane::Shares,
    mutant::{Mutant, broken},
    state::{Account, Key, Lane, OpenJob, Value},
};

/// What a transaction changes of one job's record.
pub(super) struct Step {
    pub sequence: u64,
    pub before: Option<OpenJob>,
    pub after: OpenJob,
}

/// Books every step, then moves the credits of all of them at once. `due` says what a job's record is worth now, if it is
/// to be paid.
pub(super) fn apply(
    call: &mut Call,
    book: &mut LaneBook,
    steps: Vec<Step>,
    provider: &Account,
    due: fn(&OpenJob) -> Option<u64>,
) -> Result<(), Rejection> {
    let developer = call.draft.account(book.lease.developer)?;
    let (payer, payee) = ((book.lease.developer, &developer), (book.provider, provider));
    let commission_ppm = if same_owner(payer, payee) && !broken(Mutant::CommissionWithinOwner) {
        0
    } else {
        call.params.commission_ppm
    };
    let before = book.lane.clone();
    for step in steps {
        if step.before.is_none() && !book.lane.has_taken(step.sequence) {
            book.lane.take(step.sequence);
        }
        announce_papers(call, book, &step);
        match due(&step.after) {
            Some(price_ucr) => pay(call, book, &step, price_ucr, commission_ppm)?,
            None => book.keep(call, step.sequence, step.before.as_ref(), step.after)?,
        }
    }
    if broken(Mutant::CommissionPerBatch) {
        let paid = minus(book.lane.paid, before.paid)?;
        let due = Credits(paid.0 * i128::from(commission_ppm) / 1_000_000);
        book.lane.commission = plus(before.commission, due)?;
    }
    move_payment(call, book, &before)
}

/// Between accounts of one owner no commission is due.
fn same_owner(one: (AccountId, &Account), other: (AccountId, &Account)) -> bool {
    let ((one_id, one), (other_id, other)) = (one, other);
    one_id == other_id
        || one.owner == Some(other_id)
        || other.owner == Some(one_id)
        || (one.owner.is_some() && one.owner == other.owner)
}

pub(super) fn announce_papers(call: &mut Call, book: &LaneBook, step: &Step) {
    let (lease, provider, sequence, job) = (book.id, book.provider, step.sequence, step.after.job);
    let before = step.before.as_ref();
    if step.after.metered.is_some() && before.is_none_or(|before| before.metered.is_none()) {
        call.events.push(Event::JobMetered {
            lease,
            provider,
            sequence,
            job,
        });
    }
    if step.after.received_at_ms.is_some() && before.is_none_or(|before| before.received_at_ms.is_none()) {
        call.events.push(Event::JobReceived {
            lease,
            provider,
            sequence,
            job,
        });
    }
}

fn pay(
    call: &mut Call,
    book: &mut LaneBook,
    step: &Step,
    price_ucr: u64,
    commission_ppm: u32,
) -> Result<(), Rejection> {
    let commission_ucr = book.lane.pay(price_ucr, commission_ppm)?;
    book.lease.used = plus(book.lease.used, price_ucr.into())?;
    if step.before.is_some() {
        book.forget(step.before.as_ref())?;
        call.draft.remove(Key::OpenJob(book.id, book.provider, step.sequence));
    }
    call.events.push(Event::JobPaid {
        lease: book.id,
        provider: book.provider,
        sequence: step.sequence,
        job: step.after.job,
        price_ucr,
        commission_ucr,
    });
    Ok(())
}

/// Moves what the lane grew by: from the developer to the provider, less the commission, which goes its three ways.
fn move_payment(call: &mut Call, book: &LaneBook, before: &Lane) -> Result<(), Rejection> {
    let price = minus(book.lane.paid, before.paid)?;
    let commission = minus(book.lane.commission, before.commission)?;
    let shares = Shares::between(before.commission, book.lane.commission);
    let held = if broken(Mutant::KeepHeld) {
        Credits::ZERO
    } else {
        negated(price)?
    };
    call.draft.move_credits(book.lease.developer, negated(price)?, held)?;
    call.draft
        .move_credits(book.provider, minus(price, commission)?, Credits::ZERO)?;
    if commission == Credits::ZERO || broken(Mutant::ForgetCommission) {
        return Ok(());
    }
    call.draft
        .move_credits(book.lease.controller, Credits(shares.controller), Credits::ZERO)?;
    let mut pools = call.draft.pools();
    pools.peers = plus(pools.peers, Credits(shares.peers))?;
    pools.insurance = plus(pools.insurance, Credits(shares.insurance))?;
    call.draft.put(Key::Pools, Value::Pools(pools));
    Ok(())
}
