//! What one transaction sees and changes: its own changes over those of its block over the state before.

use piecework_model::{AccountId, Credits, LeaseId, OwnerName, Rejection};

use crate::{
    rejections::{account_unknown, lease_unknown, not_started, overflow},
    rules::Rules,
    state::{
        Account, Changes, Committee, Key, Lane, Lease, Mismatch, Offer, OpenJob, Params, Pools, Proposal, Value, View,
    },
    transaction::TransactionId,
};

pub(crate) struct Draft<'a> {
    view: &'a dyn View,
    block: &'a Changes,
    own: Changes,
}

/// Reads the value under `$key`, whose variant must be the key's.
macro_rules! read {
    ($draft:expr, $variant:ident, $key:expr) => {{
        let key = $key;
        match $draft.get(&key) {
            Some(Value::$variant(value)) => Some(value),
            None => None,
            Some(other) => unreachable!("the state holds {other:?} under {key:?}"),
        }
    }};
}

impl<'a> Draft<'a> {
    pub fn new(view: &'a dyn View, block: &'a Changes) -> Self {
        let own = Changes::new();
        Self { view, block, own }
    }

    pub fn has_verified(&self, id: &TransactionId) -> bool {
        self.view.has_verified(id)
    }

    pub fn into_changes(self) -> Changes {
        self.own
    }

    fn get(&self, key: &Key) -> Option<Value> {
        match self.own.get(key).or_else(|| self.block.get(key)) {
            Some(changed) => changed.clone(),
            None => self.view.get(key),
        }
    }

    pub fn put(&mut self, key: Key, value: Value) {
        self.own.insert(key, Some(value));
    }

    pub fn remove(&mut self, key: Key) {
        self.own.insert(key, None);
    }

    /// Rejects with `ledger.not_started`.
    pub fn params(&self) -> Result<Params, Rejection> {
        read!(self, Params, Key::Params).ok_or_else(not_started)
    }

    pub fn pools(&self) -> Pools {
        read!(self, Pools, Key::Pools).unwrap_or_default()
    }

    pub fn find_account(&self, id: AccountId) -> Option<Account> {
        read!(self, Account, Key::Account(id))
    }

    /// Rejects with `account.unknown`.
    pub fn account(&self, id: AccountId) -> Result<Account, Rejection> {
        self.find_account(id)
            .ok_or_else(|| account_unknown().hint(format!("{id} is not registered")))
    }

    pub fn name_is_taken(&self, name: &OwnerName) -> bool {
        self.get(&Key::Name(name.clone())).is_some()
    }

    pub fn offer(&self, provider: AccountId) -> Option<Offer> {
        read!(self, Offer, Key::Offer(provider))
    }

    /// Rejects with `lease.unknown`.
    pub fn lease(&self, id: LeaseId) -> Result<Lease, Rejection> {
        read!(self, Lease, Key::Lease(id)).ok_or_else(|| lease_unknown().field("lease"))
    }

    /// The lane, empty where nothing was settled yet.
    pub fn lane(&self, lease: LeaseId, provider: AccountId) -> Lane {
        read!(self, Lane, Key::Lane(lease, provider)).unwrap_or_default()
    }

    pub fn open_job(&self, lease: LeaseId, provider: AccountId, sequence: u64) -> Option<OpenJob> {
        read!(self, OpenJob, Key::OpenJob(lease, provider, sequence))
    }

    /// Empty where the ledger has not started.
    pub fn committee(&self) -> Committee {
        read!(self, Committee, Key::Committee).unwrap_or_default()
    }

    pub fn rules(&self) -> Rules {
        read!(self, Rules, Key::Rules).unwrap_or_default()
    }

    pub fn proposal(&self, proposer: AccountId) -> Option<Proposal> {
        read!(self, Proposal, Key::Proposal(proposer))
    }

    pub fn mismatch(&self, lease: LeaseId, provider: AccountId, sequence: u64) -> Option<Mismatch> {
        read!(self, Mismatch, Key::Mismatch(lease, provider, sequence))
    }

    pub fn put_account(&mut self, id: AccountId, account: Account) {
        self.put(Key::Account(id), Value::Account(account));
    }

    /// Adds `posted` and `held`, each of either sign. Says nothing of cover: callers check that first.
    pub fn move_credits(&mut self, id: AccountId, posted: Credits, held: Credits) -> Result<(), Rejection> {
        let mut account = self.account(id)?;
        account.posted = plus(account.posted, posted)?;
        account.held = plus(account.held, held)?;
        self.put_account(id, account);
        Ok(())
    }
}

/// Rejects with `ledger.overflow`.
pub(crate) fn plus(left: Credits, right: Credits) -> Result<Credits, Rejection> {
    left.checked_add(right).map_err(|_| overflow())
}

/// Rejects with `ledger.overflow`.
pub(crate) fn minus(left: Credits, right: Credits) -> Result<Credits, Rejection> {
    left.checked_sub(right).map_err(|_| overflow())
}

/// Rejects with `ledger.overflow`.
pub(crate) fn negated(amount: Credits) -> Result<Credits, Rejection> {
    minus(Credits::ZERO, amount)
}
