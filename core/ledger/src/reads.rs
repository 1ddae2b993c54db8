//! Which keys a transaction reads: so that a caller with its state on disk can fetch first.

use std::collections::BTreeSet;

use piecework_model::{AccountId, LeaseId};

use crate::{
    bounds,
    state::{Key, Lane, Lease, Value, View},
    transaction::{Action, OpenJobs, OpenLease, Register, Settle, SignedTransaction},
};

/// The keys a transaction reads, as far as `view` lets it be known: call again with a view that holds them until no new
/// key comes (a lease leads to its developer's account). At most three rounds, the last of which finds nothing new.
///
/// A block is executed with the keys of all its transactions; what an earlier one of the block makes need not be fetched.
/// A key outside of this set may read as absent.
pub fn read_set(transaction: &SignedTransaction, view: &dyn View) -> Vec<Key> {
    let action = &transaction.transaction.action;
    if bounds::check(action).is_err() {
        return Vec::new();
    }
    let sender = transaction.transaction.sender;
    let mut reads = Reads::new(view, sender);
    match action {
        Action::Register(register) => reads.registration(register, AccountId::of(&transaction.key)),
        Action::RotateKey(_) => {}
        Action::Transfer(transfer) => reads.account(transfer.to),
        Action::PutOffer(_) | Action::DropOffer(_) => reads.add(Key::Offer(sender)),
        Action::OpenLease(open) => reads.new_lease(open),
        Action::TopUp(top_up) => reads.add(Key::Lease(top_up.lease)),
        Action::DelegatePayer(delegate) => reads.add(Key::Lease(delegate.lease)),
        Action::CloseLease(close) => reads.add(Key::Lease(close.lease)),
        Action::ExpireLease(expire) => {
            reads.lease(expire.lease);
        }
        Action::OpenJobs(open) => reads.open_jobs(open),
        Action::Settle(settle) => reads.settlement(settle),
    }
    reads.keys.into_iter().collect()
}

struct Reads<'a> {
    view: &'a dyn View,
    keys: BTreeSet<Key>,
}

impl<'a> Reads<'a> {
    fn new(view: &'a dyn View, sender: AccountId) -> Self {
        let keys = BTreeSet::from([Key::Params, Key::Account(sender)]);
        Self { view, keys }
    }

    fn add(&mut self, key: Key) {
        self.keys.insert(key);
    }

    fn account(&mut self, id: AccountId) {
        self.add(Key::Account(id));
    }

    fn registration(&mut self, register: &Register, id: AccountId) {
        self.account(id);
        self.add(Key::Name(register.name.clone()));
        if let Some((sponsor, _, _)) = &register.sponsor {
            self.account(*sponsor);
        }
        if let Some((owner, _)) = &register.owner {
            self.account(*owner);
        }
    }

    fn new_lease(&mut self, open: &OpenLease) {
        self.account(open.controller);
        if let Some(provider) = open.provider {
            self.account(provider);
        }
    }

    /// The lease and, once it is known, its developer.
    fn lease(&mut self, id: LeaseId) -> Option<Lease> {
        let key = Key::Lease(id);
        let known = self.view.get(&key);
        self.add(key);
        let Some(Value::Lease(lease)) = known else { return None };
        self.account(lease.developer);
        Some(lease)
    }

    fn lane(&mut self, id: LeaseId, provider: AccountId) -> Lane {
        self.account(provider);
        let key = Key::Lane(id, provider);
        let known = self.view.get(&key);
        self.add(key);
        match known {
            Some(Value::Lane(lane)) => lane,
            Some(_) | None => Lane::default(),
        }
    }

    /// Only a sequence that the lane has taken can have a record.
    fn records(&mut self, id: LeaseId, provider: AccountId, sequences: impl Iterator<Item = u64>) {
        let lane = self.lane(id, provider);
        for sequence in sequences.filter(|sequence| lane.has_taken(*sequence)) {
            self.add(Key::OpenJob(id, provider, sequence));
        }
    }

    fn open_jobs(&mut self, open: &OpenJobs) {
        self.lease(open.lease);
        let sequences = open.tickets.iter().map(|ticket| ticket.sequence);
        self.records(open.lease, open.provider, sequences);
    }

    fn settlement(&mut self, settle: &Settle) {
        if let Some(lease) = self.lease(settle.lease) {
            self.account(lease.controller);
        }
        self.add(Key::Pools);
        let sequences = settle.jobs.iter().map(|job| job.sequence);
        self.records(settle.lease, settle.provider, sequences);
    }
}
