//! The books: every balance, recomputed from what the blocks say was done, each by somebody who may.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Wrong,
    format::*,
    papers::{account_id, lease_id, paper},
    trees::tagged,
    votes::{Peers, Proposal},
};

#[derive(Clone, Debug)]
pub struct Balance {
    pub key: Key,
    pub nonce: u64,
    posted: Ucr,
    held: Ucr,
    limit: Ucr,
    sponsor: Option<Id>,
    owner: Option<Id>,
}

#[derive(Clone, Debug)]
pub struct Lease {
    developer: Id,
    controller: Id,
    pub payers: Vec<Key>,
    pub former_payers: Vec<Key>,
    budget: Ucr,
    used: Ucr,
    /// The last height that pays, once it drains.
    until: Option<u64>,
}

/// What one provider was paid from one lease, and the commission in it.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    paid: Ucr,
    commission: Ucr,
}

/// All credits of a network.
pub struct Books {
    pub network: Hash,
    pub params: Params,
    pub accounts: BTreeMap<Id, Balance>,
    pub leases: BTreeMap<Id, Lease>,
    lanes: BTreeMap<(Id, Id), Lane>,
    deposits: BTreeMap<Id, Ucr>,
    pub proposals: BTreeMap<Id, Proposal>,
    /// Prices of receipts that are not paid yet.
    metered: BTreeMap<LanePlace, u64>,
    /// The last height of a claim's window.
    claims: BTreeMap<LanePlace, u64>,
    /// Paid or refuted: no credits move for these any more.
    done: BTreeSet<LanePlace>,
    peers_pool: Ucr,
    insurance: Ucr,
    /// What the genesis granted: no more and no less may ever be there.
    supply: Ucr,
    /// Peers from a height on, with their owners.
    pub peers: Vec<(u64, Peers)>,
}

pub type Checked = Result<(), String>;
/// Lease, provider, sequence: a job's place, which is paid once.
type LanePlace = (Id, Id, u64);

/// A transaction on its way into the books.
pub struct Entry<'a> {
    pub height: u64,
    pub signed: &'a Signed,
    /// What the peers had earned before it.
    peers_pool: Ucr,
}

fn lane_place(place: &Place) -> LanePlace {
    (place.lease, place.provider, place.sequence)
}

pub fn ensure(holds: bool, what: &str) -> Checked {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

impl Balance {
    fn new(key: Key, nonce: u64, posted: Ucr) -> Self {
        Self {
            key,
            nonce,
            posted,
            held: 0,
            limit: 0,
            sponsor: None,
            owner: None,
        }
    }
}

impl Books {
    pub fn open(genesis: &Genesis) -> Self {
        let owner = |name: &str| {
            let grant = genesis.grants.iter().find(|grant| grant.name == name);
            grant.map(|grant| account_id(&grant.key)).unwrap_or_default()
        };
        let peers = genesis.peers.iter().map(|peer| (peer.key, owner(&peer.owner)));
        let granted = genesis.grants.iter().map(|grant| {
            let account = Balance::new(grant.key, 0, grant.amount);
            (account_id(&grant.key), account)
        });
        Self {
            network: tagged("piecework 2026 network id", genesis),
            params: genesis.params.clone(),
            accounts: granted.collect(),
            leases: BTreeMap::new(),
            lanes: BTreeMap::new(),
            deposits: BTreeMap::new(),
            proposals: BTreeMap::new(),
            metered: BTreeMap::new(),
            claims: BTreeMap::new(),
            done: BTreeSet::new(),
            peers_pool: 0,
            insurance: 0,
            supply: genesis.grants.iter().map(|grant| grant.amount).sum(),
            peers: vec![(0, peers.collect())],
        }
    }

    /// Books one executed transaction.
    pub fn enter(&mut self, height: u64, signed: &Signed, events: &[Event]) -> Checked {
        self.authorize(signed)?;
        if !events.is_empty() {
            self.check_papers(signed)?;
        }
        let entry = Entry {
            height,
            signed,
            peers_pool: self.peers_pool,
        };
        events.iter().try_for_each(|event| self.event(&entry, event))
    }

    /// After a block: no credits were created or lost, and no account holds or owes more than it may.
    pub fn balance(&self) -> Checked {
        let posted: Ucr = self.accounts.values().map(|account| account.posted).sum();
        ensure(
            posted + self.peers_pool + self.insurance == self.supply,
            "credits were created or lost",
        )?;
        let covered = |account: &Balance| account.held >= 0 && account.posted + account.limit >= account.held;
        ensure(self.accounts.values().all(covered), "an account holds more than it has")?;
        let within = |lease: &Lease| lease.used <= lease.budget;
        ensure(self.leases.values().all(within), "a lease paid more than its budget")
    }

    /// What the state says of a key against these books.
    pub fn compare(&self, height: u64, key: &StateKey, value: &Value) -> Result<(), Wrong> {
        let (name, said, found) = match (key, value) {
            (StateKey::Pools, Value::Pools { peers, insurance }) => (
                "the pools".to_owned(),
                vec![*peers, *insurance],
                vec![self.peers_pool, self.insurance],
            ),
            (StateKey::Account(id), Value::Account(account)) => {
                let own = self.accounts.get(id).map(|own| {
                    let nonce = Ucr::from(own.nonce);
                    vec![own.posted, own.held, own.limit, nonce]
                });
                let nonce = Ucr::from(account.nonce);
                let said = vec![account.posted, account.held, account.limit, nonce];
                (account.name.clone(), said, own.unwrap_or_default())
            }
            _ => return Err(Wrong::Format("an export has values of accounts and pools".into())),
        };
        match said == found {
            true => Ok(()),
            false => Err(Wrong::Value {
                height,
                name,
                said: format!("{said:?}"),
                found: format!("{found:?}"),
            }),
        }
    }

    pub fn account(&mut self, id: &Id) -> Result<&mut Balance, String> {
        self.accounts
            .get_mut(id)
            .ok_or_else(|| "an account does not exist".to_owned())
    }

    fn lease(&mut self, id: &Id) -> Result<&mut Lease, String> {
        self.leases
            .get_mut(id)
            .ok_or_else(|| "a lease does not exist".to_owned())
    }

    /// The lease, of which the sender must be the developer.
    fn own_lease(&mut self, id: &Id, sender: Id) -> Result<&mut Lease, String> {
        let lease = self.lease(id)?;
        ensure(
            lease.developer == sender,
            "a lease does not belong to the transaction's sender",
        )?;
        Ok(lease)
    }

    fn event(&mut self, entry: &Entry, event: &Event) -> Checked {
        let (sender, action) = (entry.signed.transaction.sender, &entry.signed.transaction.action);
        match (event, action) {
            (Event::AccountRegistered { account }, Action::Register { .. }) if *account == sender => {
                self.register(entry.signed, action)
            }
            (Event::KeyRotated { account }, Action::RotateKey { new_key, .. }) if *account == sender => {
                self.account(account)?.key = *new_key;
                Ok(())
            }
            (Event::CreditsTransferred { from, to, amount }, Action::Transfer { to: asked, amount: sum })
                if (*from, to, amount) == (sender, asked, sum) && *amount > 0 =>
            {
                self.account(from)?.posted -= amount;
                self.account(to)?.posted += amount;
                Ok(())
            }
            (Event::OfferPut { provider }, Action::PutOffer { .. }) if *provider == sender => {
                if !self.deposits.contains_key(provider) {
                    let deposit = self.params.offer_deposit;
                    self.account(provider)?.held += deposit;
                    self.deposits.insert(*provider, deposit);
                }
                Ok(())
            }
            (Event::OfferDropped { provider }, Action::DropOffer) if *provider == sender => {
                let deposit = self.deposits.remove(provider).unwrap_or(0);
                self.account(provider)?.held -= deposit;
                Ok(())
            }
            (Event::ParamsChanged, Action::Propose { .. } | Action::Vote { .. })
            | (Event::PeersChanged { .. }, Action::Propose { .. } | Action::Vote { .. })
            | (Event::ChangeProposed { .. }, Action::Propose { .. })
            | (Event::ChangeVoted { .. }, Action::Vote { .. }) => self.vote(entry, event),
            (Event::PeerPaid { peer, owner, amount }, _) => {
                let peers = self.peers(entry.height);
                let due = entry.peers_pool / peers.len().max(1) as Ucr;
                let own = peers.get(peer) == Some(owner);
                ensure(own && *amount == due, "a peer was paid an amount other than its share")?;
                self.peers_pool -= amount;
                self.account(owner)?.posted += amount;
                ensure(self.peers_pool >= 0, "peers were paid more than they earned")
            }
            (Event::LimitSet { .. } | Event::DebtCovered { .. }, _) => self.lend(sender, event, action),
            (Event::LeaseOpened { .. } | Event::LeaseToppedUp { .. }, _)
            | (Event::PayerDelegated { .. } | Event::LeaseDraining { .. } | Event::LeaseClosed { .. }, _) => {
                self.lease_event(entry, event, action)
            }
            (Event::JobMetered(_) | Event::JobPaid(..) | Event::JobClaimed(..), _)
            | (Event::JobRefuted(_) | Event::JobReleased(_), _) => self.job(entry, event, action),
            // Nothing moves with these.
            (Event::JobOpened(_), Action::OpenJobs { .. })
            | (Event::JobReceived(_), Action::Settle(_) | Action::Claim { .. })
            | (Event::MismatchReported(..), Action::ReportMismatch { .. }) => Ok(()),
            _ => Err("an event does not match its transaction".to_owned()),
        }
    }

    fn register(&mut self, signed: &Signed, action: &Action) -> Checked {
        let Action::Register { sponsor, owner, .. } = action else {
            return Ok(());
        };
        let mut fresh = Balance::new(signed.key, 1, 0);
        if let Some((sponsor, limit, _)) = sponsor {
            ensure(*limit > 0, "a limit is below zero")?;
            self.account(sponsor)?.held += limit;
            (fresh.limit, fresh.sponsor) = (*limit, Some(*sponsor));
        }
        fresh.owner = owner.as_ref().map(|(owner, _)| *owner);
        let before = self.accounts.insert(signed.transaction.sender, fresh);
        ensure(before.is_none(), "an account is created twice")
    }

    fn lend(&mut self, sender: Id, event: &Event, action: &Action) -> Checked {
        match (event, action) {
            (
                Event::LimitSet {
                    sponsor,
                    account,
                    limit,
                },
                Action::SetLimit {
                    account: asked,
                    limit: sum,
                },
            ) if (account, limit) == (asked, sum) && *limit >= 0 => {
                let own = self.account(account)?;
                let growth = limit - own.limit;
                let lends = sender == *sponsor || (sender == *account && growth <= 0);
                ensure(
                    lends && own.sponsor.is_none_or(|known| known == *sponsor),
                    "a limit was not set by its sponsor",
                )?;
                own.limit = *limit;
                own.sponsor = (*limit > 0).then_some(*sponsor);
                self.account(sponsor)?.held += growth;
                Ok(())
            }
            (
                Event::DebtCovered {
                    sponsor,
                    account,
                    amount,
                },
                Action::CoverDebt {
                    account: asked,
                    amount: sum,
                },
            ) if (*sponsor, account, amount) == (sender, asked, sum) => {
                let own = self.account(account)?;
                let owed = own.sponsor == Some(*sponsor) && *amount > 0 && *amount <= -own.posted;
                ensure(owed, "a debt is covered that is not owed")?;
                own.posted += amount;
                own.limit -= amount;
                if own.limit == 0 {
                    own.sponsor = None;
                }
                let sponsor = self.account(sponsor)?;
                sponsor.posted -= amount;
                sponsor.held -= amount;
                Ok(())
            }
            _ => Err("a loan does not match its transaction".to_owned()),
        }
    }

    fn lease_event(&mut self, entry: &Entry, event: &Event, action: &Action) -> Checked {
        let transaction = &entry.signed.transaction;
        let sender = transaction.sender;
        match (event, action) {
            (
                Event::LeaseOpened {
                    lease,
                    developer,
                    budget,
                },
                Action::OpenLease(open),
            ) => {
                let asked = *lease == lease_id(&sender, transaction.nonce) && *budget == open.budget;
                ensure(
                    asked && *developer == sender && *budget > 0,
                    "a lease does not match its transaction",
                )?;
                self.account(developer)?.held += budget;
                let fresh = Lease {
                    developer: *developer,
                    controller: open.controller,
                    payers: open.payer_keys.clone(),
                    former_payers: Vec::new(),
                    budget: *budget,
                    used: 0,
                    until: None,
                };
                ensure(self.leases.insert(*lease, fresh).is_none(), "a lease is created twice")
            }
            (
                Event::LeaseToppedUp { lease, amount },
                Action::TopUp {
                    lease: asked,
                    amount: sum,
                },
            ) if (lease, amount) == (asked, sum) && *amount > 0 => {
                self.own_lease(lease, sender)?.budget += amount;
                self.account(&sender)?.held += amount;
                Ok(())
            }
            (
                Event::PayerDelegated { lease },
                Action::DelegatePayer {
                    lease: asked, key, add, ..
                },
            ) if lease == asked => {
                let own = self.own_lease(lease, sender)?;
                own.payers.retain(|payer| payer != key);
                if *add {
                    own.payers.push(*key);
                } else {
                    own.former_payers.push(*key);
                }
                Ok(())
            }
            (Event::LeaseDraining { lease, until_height }, Action::CloseLease { lease: asked }) if lease == asked => {
                let own = self.own_lease(lease, sender)?;
                ensure(own.until.is_none(), "a lease is closed twice")?;
                own.until = Some(*until_height);
                Ok(())
            }
            (Event::LeaseClosed { lease, freed }, Action::ExpireLease { lease: asked }) if lease == asked => {
                let claimed = self.claims.keys().any(|(claimed, _, _)| claimed == lease);
                let own = self.lease(lease)?;
                let over = own.until.is_some_and(|until| entry.height > until) && !claimed;
                ensure(over, "a lease ends before its time")?;
                let left = own.budget - own.used;
                ensure(left == *freed, "a lease returns an amount other than its unspent part")?;
                // Nothing is left to be paid, and nothing to be freed again.
                own.budget = own.used;
                let developer = own.developer;
                self.account(&developer)?.held -= freed;
                Ok(())
            }
            _ => Err("a lease does not match its transaction".to_owned()),
        }
    }

    fn job(&mut self, entry: &Entry, event: &Event, action: &Action) -> Checked {
        match (event, action) {
            (Event::JobMetered(place), _) => {
                let said = paper(entry.signed, place).ok_or("a job is metered without a receipt")?;
                ensure(
                    said.price_ucr <= said.price_max_ucr,
                    "a receipt's price is above its ticket's maximum",
                )?;
                self.metered.insert(lane_place(place), said.price_ucr);
                Ok(())
            }
            (Event::JobClaimed(place, price, until), Action::Claim { .. }) => {
                let said = paper(entry.signed, place).map(|said| said.price_ucr);
                ensure(said == Some(*price), "a job is claimed at a different price")?;
                self.claims.insert(lane_place(place), *until);
                Ok(())
            }
            (Event::JobRefuted(place), Action::Challenge { .. }) => {
                self.claims.remove(&lane_place(place));
                self.metered.remove(&lane_place(place));
                ensure(self.done.insert(lane_place(place)), "a finished job is refuted")
            }
            (Event::JobReleased(place), Action::ReleaseJobs { .. }) => {
                let at = lane_place(place);
                let has_paper = self.metered.contains_key(&at) || self.claims.contains_key(&at);
                ensure(!has_paper, "a job that ran is released")?;
                ensure(self.done.insert(at), "a finished job is released")
            }
            (Event::JobPaid(place, price, commission), Action::Settle(_) | Action::PayClaims { .. }) => {
                self.check_price(entry, place, *price)?;
                self.pay(place, *price, *commission)
            }
            _ => Err("a job's events do not match its transaction".to_owned()),
        }
    }

    /// A job is paid once, in time, what its receipt says.
    fn check_price(&mut self, entry: &Entry, place: &Place, price: u64) -> Checked {
        let at = lane_place(place);
        ensure(self.done.insert(at), "a job is paid twice")?;
        let (known, claim) = (self.metered.remove(&at), self.claims.remove(&at));
        if matches!(entry.signed.transaction.action, Action::PayClaims { .. }) {
            let due = claim.is_some_and(|until| entry.height > until);
            ensure(due, "a claim is paid before its time, or was never made")?;
        }
        let said = paper(entry.signed, place);
        let within = said.as_ref().is_none_or(|said| said.price_ucr <= said.price_max_ucr);
        let told = said.map(|said| said.price_ucr).or(known);
        ensure(
            within && told == Some(price),
            "a job is paid at a price other than its receipt's",
        )
    }

    /// With the commission that the whole lane owes.
    fn pay(&mut self, place: &Place, price: u64, commission: u64) -> Checked {
        let lease = self.lease(&place.lease)?.clone();
        let rate = if self.same_owner(&lease.developer, &place.provider) {
            0
        } else {
            self.params.commission_ppm
        };
        let price = Ucr::from(price);
        let lane = self.lanes.entry((place.lease, place.provider)).or_default();
        lane.paid += price;
        let owed = (lane.paid * Ucr::from(rate) / 1_000_000 - lane.commission).clamp(0, price);
        ensure(owed == Ucr::from(commission), "a commission does not match the rate")?;
        let before = shares(lane.commission);
        lane.commission += owed;
        let after = shares(lane.commission);
        self.peers_pool += after[0] - before[0];
        self.insurance += after[2] - before[2];
        self.account(&lease.controller)?.posted += after[1] - before[1];
        self.account(&place.provider)?.posted += price - owed;
        let developer = self.account(&lease.developer)?;
        developer.posted -= price;
        developer.held -= price;
        self.lease(&place.lease)?.used += price;
        Ok(())
    }

    fn same_owner(&self, one: &Id, other: &Id) -> bool {
        let owner = |id: &Id| self.accounts.get(id).and_then(|account| account.owner);
        let (first, second) = (owner(one), owner(other));
        one == other || first == Some(*other) || second == Some(*one) || (first.is_some() && first == second)
    }
}

/// Of a lane's whole commission: half to the peers, a quarter to the controller, a quarter to the insurance; odd ucr go
/// to insurance, peers, controller, in this order.
fn shares(commission: Ucr) -> [Ucr; 3] {
    [commission / 2, (commission + 1) / 4, (commission + 3) / 4]
}
