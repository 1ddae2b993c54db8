//! The books: every balance, recomputed from what the blocks say was done.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Wrong,
    format::*,
    trees::{leaf, metering, root, signed, tagged},
};

#[derive(Clone, Debug)]
struct Balance {
    key: Key,
    posted: Ucr,
    held: Ucr,
    limit: Ucr,
    owner: Option<Id>,
}

#[derive(Clone, Debug)]
struct Lease {
    developer: Id,
    controller: Id,
    payers: Vec<Key>,
    budget: Ucr,
    used: Ucr,
}

/// What one provider was paid from one lease, and the commission in it.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    paid: Ucr,
    commission: Ucr,
}

/// All credits of a network.
pub struct Books {
    network: Hash,
    params: Params,
    accounts: BTreeMap<Id, Balance>,
    leases: BTreeMap<Id, Lease>,
    lanes: BTreeMap<(Id, Id), Lane>,
    deposits: BTreeMap<Id, Ucr>,
    proposals: BTreeMap<Id, Change>,
    /// Prices of receipts that are not paid yet.
    metered: BTreeMap<LanePlace, u64>,
    paid: BTreeSet<LanePlace>,
    peers_pool: Ucr,
    insurance: Ucr,
    /// What the genesis granted: no more and no less may ever be there.
    supply: Ucr,
    /// Peers from a height on.
    pub peers: Vec<(u64, Vec<Key>)>,
}

type Checked = Result<(), String>;
/// Lease, provider, sequence: a job's place, which is paid once.
type LanePlace = (Id, Id, u64);

fn lane_place(place: &Place) -> LanePlace {
    (place.lease, place.provider, place.sequence)
}

pub fn account_id(key: &Key) -> Id {
    short(tagged("piecework 2026 account id", key))
}

fn short(hash: Hash) -> Id {
    let mut id = [0; 20];
    id.copy_from_slice(&hash[..20]);
    id
}

fn ensure(holds: bool, what: &str) -> Checked {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

impl Books {
    pub fn open(genesis: &Genesis) -> Self {
        let mut peers: Vec<Key> = genesis.peers.iter().map(|peer| peer.key).collect();
        peers.sort();
        let account = |grant: &Grant| {
            let balance = Balance {
                key: grant.key,
                posted: grant.amount,
                held: 0,
                limit: 0,
                owner: None,
            };
            (account_id(&grant.key), balance)
        };
        Self {
            network: tagged("piecework 2026 network id", genesis),
            params: genesis.params.clone(),
            accounts: genesis.grants.iter().map(account).collect(),
            leases: BTreeMap::new(),
            lanes: BTreeMap::new(),
            deposits: BTreeMap::new(),
            proposals: BTreeMap::new(),
            metered: BTreeMap::new(),
            paid: BTreeSet::new(),
            peers_pool: 0,
            insurance: 0,
            supply: genesis.grants.iter().map(|grant| grant.amount).sum(),
            peers: vec![(0, peers)],
        }
    }

    pub fn peers_at(&self, height: u64) -> &[Key] {
        let set = self.peers.iter().rev().find(|(from, _)| *from <= height);
        set.map_or(&[], |(_, peers)| peers)
    }

    pub fn accounts(&self) -> usize {
        self.accounts.len()
    }

    /// Books one executed transaction.
    pub fn enter(&mut self, signed: &Signed, events: &[Event]) -> Checked {
        self.authorize(signed)?;
        if let Action::Propose { change } = &signed.transaction.action {
            self.proposals.insert(signed.transaction.sender, change.clone());
        }
        let meters = events.iter().any(|event| matches!(event, Event::JobMetered(_)));
        if let (Action::Settle(settle), true) = (&signed.transaction.action, meters) {
            self.check_receipts(settle)?;
        }
        events.iter().try_for_each(|event| self.event(signed, event))
    }

    /// After a block: nothing was made or lost, and nobody holds or owes more than he may.
    pub fn balance(&self) -> Checked {
        let posted: Ucr = self.accounts.values().map(|account| account.posted).sum();
        ensure(
            posted + self.peers_pool + self.insurance == self.supply,
            "credits were made or lost",
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
                [*peers, *insurance, 0],
                [self.peers_pool, self.insurance, 0],
            ),
            (StateKey::Account(id), Value::Account(account)) => {
                let own = self.accounts.get(id).ok_or_else(|| Wrong::Value {
                    height,
                    name: account.name.clone(),
                    said: "an account".into(),
                    found: "none".into(),
                })?;
                let said = [account.posted, account.held, account.limit];
                (account.name.clone(), said, [own.posted, own.held, own.limit])
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

    fn account(&mut self, id: &Id) -> Result<&mut Balance, String> {
        self.accounts
            .get_mut(id)
            .ok_or_else(|| "an account is not there".to_owned())
    }

    fn lease(&mut self, id: &Id) -> Result<&mut Lease, String> {
        self.leases.get_mut(id).ok_or_else(|| "a lease is not there".to_owned())
    }

    /// The signature is good, and of somebody who may ask for this.
    fn authorize(&self, from: &Signed) -> Checked {
        let transaction = &from.transaction;
        let good = signed(&from.key, "transaction", &self.network, transaction, &from.signature);
        ensure(good, "a transaction's signature does not verify")?;
        match &transaction.action {
            Action::Register { .. } => ensure(account_id(&from.key) == transaction.sender, "an id is not of its key"),
            Action::ExpireLease { .. } | Action::PayClaims { .. } => Ok(()),
            Action::Settle(Settle { lease, .. })
            | Action::OpenJobs { lease, .. }
            | Action::Challenge { lease, .. }
            | Action::ReportMismatch { lease, .. } => {
                let pays = |lease: &Lease| lease.payers.contains(&from.key);
                ensure(
                    self.leases.get(lease).is_some_and(pays),
                    "a payer is none of the lease's",
                )
            }
            _ => {
                let own = self.accounts.get(&transaction.sender);
                ensure(
                    own.is_some_and(|own| own.key == from.key),
                    "a transaction is signed by another than its sender",
                )
            }
        }
    }

    fn event(&mut self, signed: &Signed, event: &Event) -> Checked {
        let (sender, action) = (signed.transaction.sender, &signed.transaction.action);
        match (event, action) {
            (Event::AccountRegistered { account }, Action::Register { sponsor, owner, .. }) => {
                let limit = sponsor.as_ref().map_or(0, |(_, limit, _)| *limit);
                if let Some((sponsor, limit, _)) = sponsor {
                    self.account(sponsor)?.held += limit;
                }
                let owner = owner.as_ref().map(|(owner, _)| *owner);
                let fresh = Balance {
                    key: signed.key,
                    posted: 0,
                    held: 0,
                    limit,
                    owner,
                };
                ensure(
                    self.accounts.insert(*account, fresh).is_none(),
                    "an account is made twice",
                )
            }
            (Event::KeyRotated { account }, Action::RotateKey { new_key, .. }) => {
                self.account(account)?.key = *new_key;
                Ok(())
            }
            (Event::CreditsTransferred { from, to, amount }, Action::Transfer { .. }) => {
                ensure(*from == sender && *amount > 0, "a transfer is not its sender's")?;
                self.account(from)?.posted -= amount;
                self.account(to)?.posted += amount;
                Ok(())
            }
            (Event::OfferPut { provider }, Action::PutOffer { .. }) => {
                if !self.deposits.contains_key(provider) {
                    let deposit = self.params.offer_deposit;
                    self.account(provider)?.held += deposit;
                    self.deposits.insert(*provider, deposit);
                }
                Ok(())
            }
            (Event::OfferDropped { provider }, Action::DropOffer) => {
                let deposit = self.deposits.remove(provider).unwrap_or(0);
                self.account(provider)?.held -= deposit;
                Ok(())
            }
            (
                Event::LeaseOpened {
                    lease,
                    developer,
                    budget,
                },
                Action::OpenLease(open),
            ) => {
                ensure(
                    *developer == sender && *budget == open.budget && *budget > 0,
                    "a lease is not as it was asked for",
                )?;
                self.account(developer)?.held += budget;
                let (controller, payers) = (open.controller, open.payer_keys.clone());
                let fresh = Lease {
                    developer: *developer,
                    controller,
                    payers,
                    budget: *budget,
                    used: 0,
                };
                ensure(self.leases.insert(*lease, fresh).is_none(), "a lease is made twice")
            }
            (Event::LeaseToppedUp { lease, amount }, Action::TopUp { .. }) => {
                let own = self.lease(lease)?;
                own.budget += amount;
                let developer = own.developer;
                self.account(&developer)?.held += amount;
                Ok(())
            }
            (Event::PayerDelegated { lease }, Action::DelegatePayer { key, add, .. }) => {
                let payers = &mut self.lease(lease)?.payers;
                payers.retain(|payer| payer != key);
                if *add {
                    payers.push(*key);
                }
                Ok(())
            }
            (Event::LeaseClosed { lease, freed }, Action::ExpireLease { .. }) => {
                let own = self.lease(lease)?;
                let (developer, left) = (own.developer, own.budget - own.used);
                ensure(left == *freed, "a lease frees another sum than what is left of it")?;
                self.account(&developer)?.held -= freed;
                Ok(())
            }
            (Event::JobPaid(place, price, commission), _) => self.pay(action, place, *price, *commission),
            (Event::JobMetered(place), _) => {
                let (_, _, metered) = metering(action, place.sequence).ok_or("a job is metered without a receipt")?;
                self.metered.insert(lane_place(place), metered.price_ucr);
                Ok(())
            }
            (
                Event::LimitSet {
                    sponsor,
                    account,
                    limit,
                },
                Action::SetLimit { .. },
            ) => {
                let own = self.account(account)?;
                let growth = limit - own.limit;
                own.limit = *limit;
                self.account(sponsor)?.held += growth;
                Ok(())
            }
            (
                Event::DebtCovered {
                    sponsor,
                    account,
                    amount,
                },
                Action::CoverDebt { .. },
            ) => {
                let own = self.account(account)?;
                own.posted += amount;
                own.limit -= amount;
                let sponsor = self.account(sponsor)?;
                sponsor.posted -= amount;
                sponsor.held -= amount;
                Ok(())
            }
            (Event::PeerPaid { owner, amount, .. }, _) => {
                self.peers_pool -= amount;
                self.account(owner)?.posted += amount;
                ensure(self.peers_pool >= 0, "peers were paid more than they earned")
            }
            (Event::ParamsChanged, _) => self.change_params(sender, action),
            (Event::PeersChanged { from_height, peers }, _) => {
                self.peers.push((*from_height, peers.clone()));
                Ok(())
            }
            // Nothing moves with these.
            (
                Event::JobOpened(_)
                | Event::JobReceived(_)
                | Event::JobClaimed(..)
                | Event::JobRefuted(_)
                | Event::MismatchReported(..)
                | Event::LeaseDraining { .. }
                | Event::ChangeProposed { .. }
                | Event::ChangeVoted { .. },
                _,
            ) => Ok(()),
            _ => Err("an event does not belong to its transaction".to_owned()),
        }
    }

    fn change_params(&mut self, sender: Id, action: &Action) -> Checked {
        let proposer = match action {
            Action::Vote { proposer, .. } => *proposer,
            _ => sender,
        };
        match self.proposals.remove(&proposer) {
            Some(Change::SetParams(params)) => self.params = params,
            _ => return Err("parameters changed without a proposal".to_owned()),
        }
        Ok(())
    }

    /// A job is paid once, what its receipt says, with the commission that the whole lane owes.
    fn pay(&mut self, action: &Action, place: &Place, price: u64, commission: u64) -> Checked {
        ensure(self.paid.insert(lane_place(place)), "a job is paid twice")?;
        let known = self.metered.remove(&lane_place(place));
        let said = metering(action, place.sequence).map(|(_, _, metered)| metered.price_ucr);
        ensure(
            said.or(known) == Some(price),
            "a job is paid another price than its receipt's",
        )?;
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
        ensure(owed == Ucr::from(commission), "a commission is not what the rate gives")?;
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

    /// The provider sealed all receipts of the settlement. In a claim its signature of the transaction stands for them.
    fn check_receipts(&self, settle: &Settle) -> Checked {
        let Some(seal) = settle.receipts else {
            return Err("the receipts are not sealed".to_owned());
        };
        let receipts = settle.jobs.iter().filter_map(|job| receipt(settle, job));
        let leaves: Vec<Hash> = receipts.map(|receipt| leaf(&receipt)).collect();
        let fields = (settle.lease, settle.provider, leaves.len() as u32, root(leaves));
        let provider = self.accounts.get(&settle.provider).ok_or("a provider is not there")?;
        let sealed = signed(&provider.key, "receipts", &self.network, &fields, &seal);
        ensure(sealed, "the provider has not sealed the receipts")
    }
}

fn receipt(settle: &Settle, job: &SettledJob) -> Option<Receipt> {
    let metered = job.metered.as_ref()?;
    Some(Receipt {
        lease: settle.lease,
        provider: settle.provider,
        sequence: job.sequence,
        job: job.job,
        code: *settle.codes.get(usize::from(job.code))?,
        input: job.input,
        metered_output: metered.output,
        status: metered.status,
        counters: metered.counters,
        price_ucr: metered.price_ucr,
        duration_us: metered.duration_us,
    })
}

/// Of a lane's whole commission: half to the peers, a quarter to the controller, a quarter to the insurance; odd ucr go to
/// insurance, peers, controller, in this order.
fn shares(commission: Ucr) -> [Ucr; 3] {
    [commission / 2, (commission + 1) / 4, (commission + 3) / 4]
}
