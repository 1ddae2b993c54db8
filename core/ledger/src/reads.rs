//! Which keys a transaction reads: so that a caller with its state on disk can fetch first.

use std::collections::BTreeSet;

use piecework_model::{AccountId, LeaseId};

use crate::{
    bounds,
    state::{Account, Key, Lane, Lease, Value, View},
    transaction::{
        Action, BatchTicket, Challenge, Change, Claim, Evidence, OpenJobs, OpenLease, Register, ReleaseJobs,
        ReportMismatch, Settle, SignedTransaction,
    },
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
        Action::ReleaseJobs(release) => reads.release(release),
        Action::Claim(claim) => reads.claim(claim, sender),
        Action::PayClaims(pay) => reads.payment((pay.lease, pay.provider), pay.sequences.iter().copied()),
        Action::Challenge(challenge) => reads.challenge(challenge),
        Action::ReportMismatch(report) => reads.mismatch(report),
        Action::SetLimit(set) => reads.lending(set.account),
        Action::CoverDebt(cover) => reads.lending(cover.account),
        Action::Propose(propose) => reads.vote(sender, Some(&propose.change)),
        Action::Vote(vote) => reads.vote(vote.proposer, None),
        Action::PayPeers(_) => reads.peers(),
    }
    reads.keys.into_iter().collect()
}

struct Reads<'a> {
    view: &'a dyn View,
    keys: BTreeSet<Key>,
}

impl<'a> Reads<'a> {
    fn new(view: &'a dyn View, sender: AccountId) -> Self {
        let keys = BTreeSet::from([Key::Params, Key::Rules, Key::Account(sender)]);
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

    fn release(&mut self, release: &ReleaseJobs) {
        self.lease(release.lease);
        self.records(release.lease, release.provider, release.sequences.iter().copied());
    }

    fn settlement(&mut self, settle: &Settle) {
        let sequences = settle.jobs.iter().map(|job| job.sequence);
        self.payment((settle.lease, settle.provider), sequences);
    }

    /// Records of a lane, and everybody whom a payment of theirs moves credits to.
    fn payment(&mut self, (lease, provider): (LeaseId, AccountId), sequences: impl Iterator<Item = u64>) {
        if let Some(lease) = self.lease(lease) {
            self.account(lease.controller);
        }
        self.add(Key::Pools);
        self.records(lease, provider, sequences);
    }

    fn claim(&mut self, claim: &Claim, provider: AccountId) {
        self.lease(claim.lease);
        let tickets = claim.batches.iter().flat_map(|batch| &batch.tickets);
        let sequences = tickets.filter_map(|ticket| match ticket {
            BatchTicket::Claimed(job) => Some(job.ticket.sequence),
            BatchTicket::Other(_) => None,
        });
        self.records(claim.lease, provider, sequences);
    }

    fn challenge(&mut self, challenge: &Challenge) {
        self.lease(challenge.lease);
        self.records(challenge.lease, challenge.provider, [challenge.sequence].into_iter());
        match &challenge.evidence {
            Evidence::OtherReceipt(receipt) => self.account(receipt.member.provider),
            Evidence::Replaced(receipt) => {
                let receipt = &receipt.member;
                self.account(receipt.provider);
                self.records(receipt.lease, receipt.provider, [receipt.sequence].into_iter());
            }
        }
    }

    fn mismatch(&mut self, report: &ReportMismatch) {
        self.lease(report.lease);
        let receipt = &report.receipt.member;
        self.add(Key::Mismatch(report.lease, receipt.provider, receipt.sequence));
        self.account(receipt.provider);
        self.account(report.rerun.member.provider);
    }

    /// The account and, once it is known, its sponsor.
    fn lending(&mut self, id: AccountId) {
        self.account(id);
        if let Some(Value::Account(Account {
            sponsor: Some(sponsor), ..
        })) = self.view.get(&Key::Account(id))
        {
            self.account(sponsor);
        }
    }

    /// The peers and, once they are known, their owners: a change of the peers pays them out.
    fn peers(&mut self) {
        self.add(Key::Committee);
        self.add(Key::Pools);
        let Some(Value::Committee(committee)) = self.view.get(&Key::Committee) else {
            return;
        };
        let next = committee.next.iter().flat_map(|next| &next.peers);
        for peer in committee.peers.iter().chain(next) {
            self.account(peer.owner);
        }
    }

    /// A proposal, and the owner of the peer that it may add.
    fn vote(&mut self, proposer: AccountId, proposed: Option<&Change>) {
        self.peers();
        let key = Key::Proposal(proposer);
        let known = self.view.get(&key);
        self.add(key);
        let known = match &known {
            Some(Value::Proposal(proposal)) => Some(&proposal.change),
            Some(_) | None => None,
        };
        if let Some(Change::AddPeer(add)) = proposed.or(known) {
            self.account(add.owner);
        }
    }
}
