//! Accounts: registration with a sponsor's limit and an owner, new keys, transfers.

use piecework_model::{AccountId, Credits, Domain, Rejection, Signature};

use super::Call;
use crate::{
    draft::negated,
    execute::Event,
    mutant::{Mutant, broken},
    rejections::{
        account_exists, future_nonce, key_proof, name_taken, owner_signature, sponsor_limit, sponsor_signature,
        transfer_insufficient, transfer_not_positive, transfer_self, wrong_key,
    },
    state::{Account, Key, Value},
    transaction::{Register, RotateKey, Transfer},
};

/// The registration is the account's transaction 0, so its next nonce is 1.
pub(super) fn register(call: &mut Call, register: &Register) -> Result<(), Rejection> {
    let (key, transaction) = (call.signed.key, &call.signed.transaction);
    let id = AccountId::of(&key);
    if transaction.sender != id {
        return Err(wrong_key().hint(format!("this key makes the account {id}")));
    }
    if call.draft.find_account(id).is_some() {
        return Err(account_exists());
    }
    if transaction.nonce != 0 {
        return Err(future_nonce().hint("a registration has the nonce 0"));
    }
    call.verify_signature()?;
    if call.draft.name_is_taken(&register.name) {
        return Err(name_taken().field("name"));
    }
    let limit = match &register.sponsor {
        Some((sponsor, limit, signature)) => borrow(call, *sponsor, (id, *limit), signature)?,
        None => Credits::ZERO,
    };
    if let Some((owner, signature)) = &register.owner {
        verify_owner(call, *owner, id, signature)?;
    }
    let account = Account {
        key,
        name: register.name.clone(),
        posted: Credits::ZERO,
        held: Credits::ZERO,
        limit,
        sponsor: register.sponsor.as_ref().map(|(sponsor, _, _)| *sponsor),
        owner: register.owner.as_ref().map(|(owner, _)| *owner),
        roles: register.roles,
        nonce: 1,
        mismatches: 0,
    };
    call.draft.put_account(id, account);
    call.draft.put(Key::Name(register.name.clone()), Value::Name(id));
    call.events.push(Event::AccountRegistered { account: id });
    Ok(())
}

/// Holds the limit at the sponsor, who signed `(new account, limit)`: what is lent cannot be spent twice.
fn borrow(
    call: &mut Call,
    sponsor: AccountId,
    terms: (AccountId, Credits),
    signature: &Signature,
) -> Result<Credits, Rejection> {
    let account = call.draft.account(sponsor)?;
    let network = &call.context.network;
    let signed = account.key.verify(Domain::Sponsor, network, &terms, signature);
    if signed.is_err() && !broken(Mutant::SkipSponsorSignature) {
        return Err(sponsor_signature().field("sponsor"));
    }
    let limit = terms.1;
    let covered = account.available() >= limit || broken(Mutant::LendWhatIsHeld);
    if !limit.is_positive() || !covered {
        return Err(sponsor_limit()
            .field("sponsor")
            .hint(format!("it has {} ucr free", account.available())));
    }
    call.draft.move_credits(sponsor, Credits::ZERO, limit)?;
    Ok(limit)
}

fn verify_owner(call: &Call, owner: AccountId, id: AccountId, signature: &Signature) -> Result<(), Rejection> {
    let key = call.draft.account(owner)?.key;
    let signed = key.verify(Domain::Owner, &call.context.network, &id, signature);
    match signed.is_ok() || broken(Mutant::SkipOwnerSignature) {
        true => Ok(()),
        false => Err(owner_signature().field("owner")),
    }
}

/// The id stays. What the old key sealed and is not settled yet fails from now on: fetch receipts before rotating.
pub(super) fn rotate_key(call: &mut Call, rotate: &RotateKey) -> Result<(), Rejection> {
    let id = call.authorize_sender()?;
    let proven = rotate
        .new_key
        .verify(Domain::Owner, &call.context.network, &id, &rotate.proof);
    if proven.is_err() && !broken(Mutant::SkipKeyProof) {
        return Err(key_proof().field("proof"));
    }
    let mut account = call.draft.account(id)?;
    account.key = rotate.new_key;
    call.draft.put_account(id, account);
    call.events.push(Event::KeyRotated { account: id });
    Ok(())
}

pub(super) fn transfer(call: &mut Call, transfer: &Transfer) -> Result<(), Rejection> {
    let from = call.authorize_sender()?;
    let Transfer { to, amount } = *transfer;
    if !amount.is_positive() && !broken(Mutant::AcceptNegativeTransfer) {
        return Err(transfer_not_positive().field("amount"));
    }
    if to == from {
        return Err(transfer_self().field("to"));
    }
    let free = call.draft.account(from)?.available();
    call.draft.account(to)?;
    if free < amount {
        return Err(transfer_insufficient().hint(format!("{free} ucr are free")));
    }
    call.draft.move_credits(from, negated(amount)?, Credits::ZERO)?;
    call.draft.move_credits(to, amount, Credits::ZERO)?;
    call.events.push(Event::CreditsTransferred { from, to, amount });
    Ok(())
}
