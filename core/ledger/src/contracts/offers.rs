//! Offers: what a provider asks and has, with a deposit that comes back when the offer goes.

use piecework_model::{Credits, Rejection};

use super::Call;
use crate::{
    draft::negated,
    execute::Event,
    rejections::{offer_deposit, offer_expired, offer_unknown},
    state::{Key, Offer, Value},
    transaction::PutOffer,
};

/// A second one takes the place of the first and keeps its deposit, whatever the deposit is by now.
pub(super) fn put(call: &mut Call, put: &PutOffer) -> Result<(), Rejection> {
    let provider = call.authorize_sender()?;
    if put.expires_at_height <= call.context.height {
        return Err(offer_expired().field("expires_at_height"));
    }
    let deposit = match call.draft.offer(provider) {
        Some(before) => before.deposit,
        None => hold_deposit(call)?,
    };
    let offer = Offer {
        prices: put.prices,
        resources: put.resources,
        backends: put.backends.clone(),
        region: put.region.clone(),
        labels: put.labels.clone(),
        expires_at_height: put.expires_at_height,
        deposit,
    };
    call.draft.put(Key::Offer(provider), Value::Offer(offer));
    call.events.push(Event::OfferPut { provider });
    Ok(())
}

fn hold_deposit(call: &mut Call) -> Result<Credits, Rejection> {
    let (provider, deposit) = (call.signed.transaction.sender, call.params.offer_deposit);
    if call.draft.account(provider)?.available() < deposit {
        return Err(offer_deposit().hint(format!("the deposit is {deposit} ucr")));
    }
    call.draft.move_credits(provider, Credits::ZERO, deposit)?;
    Ok(deposit)
}

pub(super) fn drop_offer(call: &mut Call) -> Result<(), Rejection> {
    let provider = call.authorize_sender()?;
    let offer = call.draft.offer(provider).ok_or_else(offer_unknown)?;
    call.draft
        .move_credits(provider, Credits::ZERO, negated(offer.deposit)?)?;
    call.draft.remove(Key::Offer(provider));
    call.events.push(Event::OfferDropped { provider });
    Ok(())
}
