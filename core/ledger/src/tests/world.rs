//! A small network in memory. Every block is also executed with nothing but its read set, and must come out the same.

use std::collections::BTreeMap;

use piecework_model::{
    AccountId, Ack, Code, Counters, Credits, Digest, Domain, JobId, JobStatus, LeaseId, NetworkId, Prices, PublicKey,
    Receipt, Rejection, Seal, SecretKey, Signature,
};

use crate::*;

pub type State = BTreeMap<Key, Value>;
pub type Told = Result<Vec<Event>, Rejection>;

pub const GRANT: Credits = Credits(1_000_000);
pub const COMMISSION_PPM: u32 = 30_000;
pub const DEPOSIT: Credits = Credits(500);
pub const WINDOW: u32 = 10;

/// One ucr for each microsecond of CPU, so that a test's price is its counter.
pub const CAPS: Prices = Prices {
    start_ucr: 0,
    cpu_ucr_per_s: 1_000_000,
    memory_ucr_per_gib_s: 0,
    egress_ucr_per_mib: 0,
};

/// The people of the tests; each is granted [`GRANT`] but the stranger, who has no account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Who {
    Developer = 1,
    Provider,
    OtherProvider,
    Controller,
    Mailbox,
    Thief,
    Stranger,
}

impl Who {
    pub const GRANTED: [Self; 6] = [
        Self::Developer,
        Self::Provider,
        Self::OtherProvider,
        Self::Controller,
        Self::Mailbox,
        Self::Thief,
    ];

    pub fn key(self) -> SecretKey {
        SecretKey::from_seed([self as u8; 32])
    }

    pub fn public(self) -> PublicKey {
        self.key().public()
    }

    pub fn id(self) -> AccountId {
        AccountId::of(&self.public())
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Developer => "developer",
            Self::Provider => "provider",
            Self::OtherProvider => "other-provider",
            Self::Controller => "controller",
            Self::Mailbox => "mailbox",
            Self::Thief => "thief",
            Self::Stranger => "stranger",
        }
    }
}

pub fn genesis() -> Genesis {
    let grant = |who: Who| Grant {
        name: who.name().parse().unwrap(),
        key: who.public(),
        roles: Roles::default(),
        amount: GRANT,
    };
    Genesis {
        network_name: "test".into(),
        created_at_ms: 1,
        params: Params {
            commission_ppm: COMMISSION_PPM,
            offer_deposit: DEPOSIT,
            window_blocks: WINDOW,
            jobs_per_settlement_max: 100,
            transactions_per_block_max: 100,
            lane_intervals_max: 8,
            epoch_blocks: 20,
        },
        peers: vec![GenesisPeer {
            key: PublicKey([9; 32]),
            owner: Who::Controller.name().parse().unwrap(),
            address: "localhost:1".into(),
        }],
        grants: Who::GRANTED.map(grant).to_vec(),
    }
}

#[derive(Clone)]
pub struct World {
    pub state: State,
    pub height: u64,
    pub network: NetworkId,
}

impl World {
    pub fn new() -> Self {
        Self::of(&genesis())
    }

    pub fn of(genesis: &Genesis) -> Self {
        let state = genesis.state().unwrap();
        Self {
            state: state.into_iter().map(|(key, value)| (key, value.unwrap())).collect(),
            height: 0,
            network: genesis.network_id(),
        }
    }

    fn context(&self) -> BlockContext {
        BlockContext {
            network: self.network,
            height: self.height,
        }
    }

    /// Executes a block at the next height.
    pub fn block(&mut self, transactions: &[SignedTransaction]) -> Vec<Told> {
        self.height += 1;
        let applied = execute(&self.state, &self.context(), transactions);
        let fetched = self.fetch(transactions);
        assert_eq!(
            execute(&fetched, &self.context(), transactions),
            applied,
            "the read set must do"
        );
        for (key, change) in applied.changes {
            match change {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        applied.outcomes.into_iter().map(|outcome| outcome.result).collect()
    }

    /// What the read sets of the transactions name, and not a key more.
    fn fetch(&self, transactions: &[SignedTransaction]) -> State {
        let mut fetched = State::new();
        for transaction in transactions {
            for round in 1.. {
                let keys = read_set(transaction, &fetched);
                let known = fetched.len();
                for key in keys {
                    if let Some(value) = self.state.get(&key) {
                        fetched.insert(key, value.clone());
                    }
                }
                if fetched.len() == known {
                    break;
                }
                assert!(round < 3, "three rounds must do");
            }
        }
        fetched
    }

    /// Executes a block of one; `check` must have said the same before.
    pub fn send(&mut self, transaction: SignedTransaction) -> Told {
        let mut context = self.context();
        context.height += 1;
        let checked = check(&self.state, &context, &transaction);
        let told = self.block(&[transaction]).remove(0);
        assert_eq!(checked.err(), told.as_ref().err().cloned());
        told
    }

    /// Signs with the next nonce of the sender.
    pub fn sign(&self, who: Who, action: Action) -> SignedTransaction {
        let nonce = self.find_account(who).map_or(0, |account| account.nonce);
        self.sign_with(who, nonce, action)
    }

    pub fn sign_with(&self, who: Who, nonce: u64, action: Action) -> SignedTransaction {
        let sender = who.id();
        let transaction = Transaction { sender, nonce, action };
        SignedTransaction::sign(transaction, &who.key(), &self.network)
    }

    pub fn act(&mut self, who: Who, action: Action) -> Told {
        self.send(self.sign(who, action))
    }

    pub fn pass_blocks(&mut self, blocks: u64) {
        self.height += blocks;
    }

    fn find_account(&self, who: Who) -> Option<Account> {
        match self.state.get(&Key::Account(who.id())) {
            Some(Value::Account(account)) => Some(account.clone()),
            _ => None,
        }
    }

    pub fn account(&self, who: Who) -> Account {
        self.find_account(who).unwrap()
    }

    pub fn change_account(&mut self, who: Who, change: impl FnOnce(&mut Account)) {
        let mut account = self.account(who);
        change(&mut account);
        self.state.insert(Key::Account(who.id()), Value::Account(account));
    }

    pub fn posted(&self, who: Who) -> i128 {
        self.account(who).posted.0
    }

    pub fn held(&self, who: Who) -> i128 {
        self.account(who).held.0
    }

    pub fn pools(&self) -> Pools {
        match self.state.get(&Key::Pools) {
            Some(Value::Pools(pools)) => *pools,
            other => panic!("no pools but {other:?}"),
        }
    }

    pub fn params(&self) -> Params {
        match self.state.get(&Key::Params) {
            Some(Value::Params(params)) => params.clone(),
            other => panic!("no parameters but {other:?}"),
        }
    }

    pub fn lease(&self, id: LeaseId) -> Lease {
        match self.state.get(&Key::Lease(id)) {
            Some(Value::Lease(lease)) => lease.clone(),
            other => panic!("no lease but {other:?}"),
        }
    }

    pub fn change_lease(&mut self, id: LeaseId, change: impl FnOnce(&mut Lease)) {
        let mut lease = self.lease(id);
        change(&mut lease);
        self.state.insert(Key::Lease(id), Value::Lease(lease));
    }

    pub fn lane(&self, id: LeaseId, provider: Who) -> Lane {
        match self.state.get(&Key::Lane(id, provider.id())) {
            Some(Value::Lane(lane)) => lane.clone(),
            other => panic!("no lane but {other:?}"),
        }
    }

    pub fn open_job(&self, id: LeaseId, provider: Who, sequence: u64) -> Option<OpenJob> {
        match self.state.get(&Key::OpenJob(id, provider.id(), sequence)) {
            Some(Value::OpenJob(job)) => Some(job.clone()),
            _ => None,
        }
    }

    /// A lease of the developer's with the controller as payer and mailbox, and one more mailbox.
    pub fn open_lease(&mut self, budget: i128) -> LeaseId {
        let action = Action::OpenLease(lease_terms(budget));
        match self.act(Who::Developer, action).unwrap().remove(0) {
            Event::LeaseOpened { lease, .. } => lease,
            other => panic!("no lease opened but {other:?}"),
        }
    }

    pub fn settle(&mut self, lease: LeaseId, jobs: &[Job]) -> Told {
        let settle = self.settlement(lease, jobs);
        self.act(Who::Controller, Action::Settle(settle))
    }

    /// A settlement of the provider's lane as honest parties make it; acks are the controller's own.
    pub fn settlement(&self, lease: LeaseId, jobs: &[Job]) -> Settle {
        settlement(&self.network, lease, Who::Provider, jobs)
    }

    /// What all accounts and pools have together.
    pub fn supply(&self) -> i128 {
        self.state
            .values()
            .map(|value| match value {
                Value::Account(account) => account.posted.0,
                Value::Pools(pools) => pools.peers.0 + pools.insurance.0,
                _ => 0,
            })
            .sum()
    }
}

pub fn lease_terms(budget: i128) -> OpenLease {
    OpenLease {
        subject: Subject::AnyFunction,
        provider: None,
        controller: Who::Controller.id(),
        price_caps: CAPS,
        budget: Credits(budget),
        payer_keys: vec![Who::Controller.public()],
        mailboxes: vec![Who::Controller.public(), Who::Mailbox.public()],
        exposure_ucr: 1_000,
    }
}

/// One job as the tests speak of it.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub sequence: u64,
    pub price_ucr: u64,
    pub price_max_ucr: u64,
    pub receipt: bool,
    pub ack: bool,
}

/// A job with both papers.
pub fn job(sequence: u64, price_ucr: u64) -> Job {
    Job {
        sequence,
        price_ucr,
        price_max_ucr: price_ucr,
        receipt: true,
        ack: true,
    }
}

impl Job {
    pub fn only_receipt(self) -> Self {
        Self { ack: false, ..self }
    }

    pub fn only_ack(self) -> Self {
        Self { receipt: false, ..self }
    }

    pub fn at_most(self, price_max_ucr: u64) -> Self {
        Self { price_max_ucr, ..self }
    }

    pub fn id(&self) -> JobId {
        JobId::new(1_700_000_000_000 + self.sequence % 1_000, [7; 10])
    }

    pub fn metered(&self) -> Metered {
        Metered {
            output: Digest::of(&self.sequence.to_le_bytes()),
            status: JobStatus::Ok,
            counters: Counters {
                cpu_us: self.price_ucr,
                ..Counters::default()
            },
            price_ucr: self.price_ucr,
            duration_us: 10,
        }
    }

    fn settled(&self) -> SettledJob {
        SettledJob {
            sequence: self.sequence,
            job: self.id(),
            code: 0,
            input: Digest::of(b"input"),
            price_max_ucr: self.price_max_ucr,
            metered: self.receipt.then(|| self.metered()),
            received_at_ms: self.ack.then_some(1_700_000_000_000),
        }
    }

    pub fn ticket(&self) -> OpenTicket {
        OpenTicket {
            sequence: self.sequence,
            job: self.id(),
            code: code(),
            input: Digest::of(b"input"),
            price_max_ucr: self.price_max_ucr,
        }
    }
}

pub fn code() -> Digest {
    Digest::of(b"code")
}

pub fn settlement(network: &NetworkId, lease: LeaseId, provider: Who, jobs: &[Job]) -> Settle {
    let mut settle = Settle {
        lease,
        provider: provider.id(),
        codes: vec![code()],
        jobs: jobs.iter().map(Job::settled).collect(),
        receipts: None,
        acks: None,
    };
    settle.receipts = seal_receipts(network, &settle, &provider.key());
    settle
}

/// The seal of the settlement's receipts by any key, or none where there are none.
pub fn seal_receipts(network: &NetworkId, settle: &Settle, key: &SecretKey) -> Option<Signature> {
    let leaves = receipt_leaves(settle);
    if leaves.is_empty() {
        return None;
    }
    let lane = (settle.lease, settle.provider);
    Some(Seal::sign(key, Domain::Receipts, network, lane, &leaves).signature)
}

pub fn receipt_leaves(settle: &Settle) -> Vec<Digest> {
    let receipt = |job: &SettledJob| {
        let metered = job.metered.clone()?;
        Some(Receipt {
            lease: settle.lease,
            provider: settle.provider,
            sequence: job.sequence,
            job: job.job,
            code: settle.codes[job.code as usize],
            input: job.input,
            output: metered.output,
            status: metered.status,
            counters: metered.counters,
            price_ucr: metered.price_ucr,
            duration_us: metered.duration_us,
        })
    };
    settle
        .jobs
        .iter()
        .filter_map(receipt)
        .map(|receipt| receipt.leaf())
        .collect()
}

/// A mailbox's seal of the acks of `jobs`.
pub fn seal_acks(network: &NetworkId, settle: &Settle, key: &SecretKey, jobs: &[Job]) -> (PublicKey, Signature) {
    let leaves: Vec<Digest> = settle
        .jobs
        .iter()
        .zip(jobs)
        .filter_map(|(settled, job)| {
            let ack = Ack {
                job: settled.job,
                output: job.metered().output,
                received_at_ms: settled.received_at_ms?,
            };
            Some(ack.leaf())
        })
        .collect();
    let lane = (settle.lease, settle.provider);
    let seal = Seal::sign(key, Domain::Acks, network, lane, &leaves);
    (key.public(), seal.signature)
}

#[track_caller]
pub fn refused(told: Told, code: Code) -> Rejection {
    let refused = told.expect_err("this must be refused");
    assert_eq!(refused.code, code, "{refused}");
    refused
}

/// The sequences that were paid, in order.
pub fn paid(events: &[Event]) -> Vec<u64> {
    let sequence = |event: &Event| match event {
        Event::JobPaid { sequence, .. } => Some(*sequence),
        _ => None,
    };
    events.iter().filter_map(sequence).collect()
}
