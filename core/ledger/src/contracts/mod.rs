//! The contracts: one module for each family of actions, and who may ask.

mod accounts;
mod claims;
mod committee;
mod jobs;
mod leases;
mod lending;
mod mismatches;
mod offers;
mod payment;
mod settlement;

use piecework_model::{AccountId, Digest, Domain, LeaseId, PublicKey, Rejection, Seal, Signature, merkle_root};

use crate::{
    bounds,
    draft::Draft,
    execute::{BlockContext, Event},
    mutant::{Mutant, broken},
    rejections::{
        bad_signature, future_nonce, overflow, settle_not_payer, settle_other_provider, stale_nonce, wrong_key,
    },
    state::{Account, Lease, Params},
    transaction::{Action, SignedTransaction},
};

/// One transaction on its way through the contracts.
pub(crate) struct Call<'a> {
    pub draft: Draft<'a>,
    pub context: &'a BlockContext,
    pub signed: &'a SignedTransaction,
    pub params: Params,
    /// The number of the rules of this block: contracts that differ between rules decide by it.
    pub rules: u32,
    pub events: Vec<Event>,
}

impl<'a> Call<'a> {
    /// Applies the transaction to `draft`; on a rejection the draft is to be thrown away.
    pub fn run(
        draft: Draft<'a>,
        context: &'a BlockContext,
        signed: &'a SignedTransaction,
    ) -> Result<(Draft<'a>, Vec<Event>), Rejection> {
        let action = &signed.transaction.action;
        bounds::check(action)?;
        let params = draft.params()?;
        let rules = draft.rules().at(context.height);
        let events = Vec::new();
        let mut call = Self {
            draft,
            context,
            signed,
            params,
            rules,
            events,
        };
        match action {
            Action::Register(register) => accounts::register(&mut call, register)?,
            Action::RotateKey(rotate) => accounts::rotate_key(&mut call, rotate)?,
            Action::Transfer(transfer) => accounts::transfer(&mut call, transfer)?,
            Action::PutOffer(offer) => offers::put(&mut call, offer)?,
            Action::DropOffer(_) => offers::drop_offer(&mut call)?,
            Action::OpenLease(open) => leases::open(&mut call, open)?,
            Action::TopUp(top_up) => leases::top_up(&mut call, top_up)?,
            Action::DelegatePayer(delegate) => leases::delegate_payer(&mut call, delegate)?,
            Action::CloseLease(close) => leases::close(&mut call, close)?,
            Action::ExpireLease(expire) => leases::expire(&mut call, expire)?,
            Action::OpenJobs(open) => jobs::open(&mut call, open)?,
            Action::Settle(settle) => settlement::settle(&mut call, settle)?,
            Action::Claim(claim) => claims::claim(&mut call, claim)?,
            Action::PayClaims(pay) => claims::pay(&mut call, pay)?,
            Action::Challenge(challenge) => claims::challenge(&mut call, challenge)?,
            Action::ReportMismatch(report) => mismatches::report(&mut call, report)?,
            Action::SetLimit(set) => lending::set_limit(&mut call, set)?,
            Action::CoverDebt(cover) => lending::cover_debt(&mut call, cover)?,
            Action::Propose(propose) => committee::propose(&mut call, propose)?,
            Action::Vote(vote) => committee::vote(&mut call, vote)?,
            Action::PayPeers(_) => committee::pay_peers(&mut call)?,
            Action::ReleaseJobs(release) => jobs::release(&mut call, release)?,
        }
        Ok((call.draft, call.events))
    }

    /// The signature is of the key that the transaction carries. Whose key that is, is another question.
    fn verify_signature(&self) -> Result<(), Rejection> {
        if broken(Mutant::SkipTransactionSignature) {
            return Ok(());
        }
        self.signed.verify(&self.context.network).map_err(|_| bad_signature())
    }

    /// The sender's id, after key, nonce and signature; its nonce moves on. The cheap questions come first.
    fn authorize_sender(&mut self) -> Result<AccountId, Rejection> {
        let id = self.signed.transaction.sender;
        let mut account = self.draft.account(id)?;
        if account.key != self.signed.key && !broken(Mutant::SkipTransactionSignature) {
            return Err(wrong_key());
        }
        check_nonce(&account, self.signed.transaction.nonce)?;
        if !self.draft.has_verified(&self.signed.id()) {
            self.verify_signature()?;
        }
        account.nonce = account.nonce.checked_add(1).ok_or_else(overflow)?;
        self.draft.put_account(id, account);
        Ok(id)
    }

    /// The lease, if a payer key of it signed. Neither sender nor nonce are looked at: sequences guard against replays.
    fn authorize_payer(&self, id: LeaseId) -> Result<Lease, Rejection> {
        let lease = self.draft.lease(id)?;
        if !lease.payer_keys.contains(&self.signed.key) && !broken(Mutant::AnyPayer) {
            return Err(settle_not_payer());
        }
        self.verify_signature()?;
        Ok(lease)
    }
}

/// A key with the signature it is said to have made.
type Signed<'a> = (&'a PublicKey, Signature);

impl Call<'_> {
    /// Whether the key sealed exactly these leaves of the lane's, in this order.
    fn seals(&self, (key, signature): Signed, domain: Domain, lane: (LeaseId, AccountId), leaves: &[Digest]) -> bool {
        let Ok(count) = u32::try_from(leaves.len()) else {
            return false;
        };
        let seal = Seal {
            lease: lane.0,
            provider: lane.1,
            count,
            root: merkle_root(leaves),
            signature,
        };
        seal.verify_root(key, domain, &self.context.network).is_ok()
    }
}

fn check_nonce(account: &Account, nonce: u64) -> Result<(), Rejection> {
    let next = || format!("the next nonce is {}", account.nonce);
    match nonce.cmp(&account.nonce) {
        std::cmp::Ordering::Equal => Ok(()),
        _ if broken(Mutant::SkipNonce) => Ok(()),
        std::cmp::Ordering::Less => Err(stale_nonce().hint(next())),
        std::cmp::Ordering::Greater => Err(future_nonce().hint(next())),
    }
}

/// A lease with one provider has one lane.
fn check_lane(lease: &Lease, provider: AccountId) -> Result<(), Rejection> {
    match lease.provider {
        Some(only) if only != provider => Err(settle_other_provider().field("provider")),
        Some(_) | None => Ok(()),
    }
}
