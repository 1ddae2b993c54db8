//! A provider that cheats: it speaks the real link with a key and an account of its own, and lies in a chosen way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use piecework_api::{
    Client,
    accounts::{CreateAccount, CreateSession, Role, sign_login},
    ledger::SubmitTransaction,
};
use piecework_ledger::{Action, PutOffer, Register, Resources, Roles, SignedTransaction, Transaction};
use piecework_model::{
    AccountId, Code, Counters, Digest, Domain, FunctionId, JobStatus, Language, LeaseId, NetworkId, Prices, Receipt,
    Rejection, Salt, Seal, SecretKey, Ticket,
};
use piecework_queue::{
    Delivery, Load, Order, Profile, ProviderLink, Refusal, Unsealed, Work,
    link::{Agent, Fetcher, LinkFailure, dial, keep_linked},
};
use piecework_sandbox::{BackendName, Finished, LoadError, Logs, Outcome, Probe};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::machine::Machine;

/// What it does with a developer's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// None: it answers the event.
    Honest,
    /// Another output than the function's, consistently signed.
    Garbage,
}

pub struct Rogue {
    shared: Arc<Shared>,
    shutdown: CancellationToken,
}

struct Shared {
    key: SecretKey,
    network: NetworkId,
    profile: Profile,
    lie: Mutex<Lie>,
    jobs: AtomicU64,
}

impl Rogue {
    /// Registers, offers at half the usual price, links; returns when the controller sees it.
    pub async fn join(machine: &Machine, name: &str) -> Self {
        let key = key_of(name);
        let account = AccountId::of(&key.public());
        let client = Client::new(&machine.url, None).expect("a URL");
        let network = client.ledger_status().await.expect("answers").network;
        let code = crate::computer::invite(machine).await;
        let profile = profile(account, name);
        register(&client, &key, network, &profile, code).await;
        offer(&client, &key, network, &profile).await;
        Self::link(machine, name).await
    }

    async fn link(machine: &Machine, name: &str) -> Self {
        let key = key_of(name);
        let account = AccountId::of(&key.public());
        let client = Client::new(&machine.url, None).expect("a URL");
        let network = client.ledger_status().await.expect("answers").network;
        let profile = profile(account, name);
        let shared = Shared::new(&key, network, profile);
        let agent = Agent::new(key, network, rand::random(), shared.clone(), Fetcher::default());
        let shutdown = CancellationToken::new();
        let url = link_of(machine);
        let stop = shutdown.clone();
        tokio::spawn(async move { keep_linked(agent, vec![url], |_, _| Ok(()), now_ms, |_| (), stop).await });
        let rogue = Self { shared, shutdown };
        crate::providers::until("the rogue is linked", async || {
            (crate::computer::provider(machine, name).await["state"] == "ready").then_some(())
        })
        .await;
        rogue
    }

    pub fn lies(&self, lie: Lie) {
        *self.shared.lie.lock() = lie;
    }

    /// Developers' jobs that it ran.
    pub fn jobs(&self) -> u64 {
        self.shared.jobs.load(Ordering::SeqCst)
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// One attempt to link with this key and as this: how it ended. Whoever is let in stays for a moment only.
pub async fn knock(machine: &Machine, key: &SecretKey, profile: Profile) -> LinkFailure {
    const LET_IN_AFTER: Duration = Duration::from_secs(5);
    let client = Client::new(&machine.url, None).expect("a URL");
    let network = client.ledger_status().await.expect("answers").network;
    let shared = Shared::new(key, network, profile);
    let agent = Agent::new(key.clone(), network, rand::random(), shared, Fetcher::default());
    let wire = dial(&link_of(machine)).await.expect("it answers");
    let ended = tokio::time::timeout(LET_IN_AFTER, agent.session(wire, &|_| Ok(()), now_ms)).await;
    ended.unwrap_or_else(|_| LinkFailure::Broken("it was let in".to_owned()))
}

pub fn link_of(machine: &Machine) -> String {
    format!("ws{}/link", machine.url.strip_prefix("http").expect("plain HTTP"))
}

pub fn key_of(name: &str) -> SecretKey {
    SecretKey::from_seed(Digest::of(name.as_bytes()).0)
}

fn now_ms() -> u64 {
    piecework_model::unix_ms(SystemTime::now())
}

pub fn profile(account: AccountId, name: &str) -> Profile {
    Profile {
        account,
        name: name.to_owned(),
        prices: Prices {
            start_ucr: 1,
            cpu_ucr_per_s: 100,
            memory_ucr_per_gib_s: 10,
            egress_ucr_per_mib: 1,
        },
        cores: 1,
        memory_bytes: 1 << 30,
        slots: 4,
        region: "alley".into(),
        labels: Vec::new(),
        probes: vec![Probe {
            backend: BackendName::Wasm,
            works: true,
            languages: vec![Language::JavaScript],
            detail: "so it says".into(),
            weaker: Vec::new(),
            cold_us: None,
            warm_us: None,
        }],
        egress: None,
        free_for: None,
    }
}

fn signed(key: &SecretKey, network: NetworkId, nonce: u64, action: Action) -> String {
    let transaction = Transaction {
        sender: AccountId::of(&key.public()),
        nonce,
        action,
    };
    let signed = SignedTransaction::sign(transaction, key, &network);
    hex::encode(borsh::to_vec(&signed).expect("bytes"))
}

/// Makes the account of a provider.
pub async fn register(client: &Client, key: &SecretKey, network: NetworkId, profile: &Profile, invite: String) {
    let register = Action::Register(Register {
        name: profile.name.parse().expect("a name"),
        roles: Roles {
            provider: true,
            ..Roles::default()
        },
        sponsor: None,
        owner: None,
    });
    let body = CreateAccount {
        name: profile.name.clone(),
        public_key: Some(key.public()),
        registration: Some(signed(key, network, 0, register)),
        roles: vec![Role::Provider],
        invite: Some(invite),
        ..CreateAccount::default()
    };
    client.create_account(&body).await.expect("registered");
}

/// Puts its offer on the ledger.
pub async fn offer(client: &Client, key: &SecretKey, network: NetworkId, profile: &Profile) {
    let challenge = client.challenge(&profile.name).await.expect("a challenge").challenge;
    let session = CreateSession {
        name: profile.name.clone(),
        signature: Some(sign_login(key, &network, &profile.name, &challenge)),
        challenge: Some(challenge),
        ..CreateSession::default()
    };
    let token = client.create_session(&session).await.expect("logged in").token;
    let client = Client::new(client.base(), Some(token)).expect("a URL");
    let nonce = client.own_account().await.expect("an account").nonce;
    let offer = Action::PutOffer(PutOffer {
        prices: profile.prices,
        resources: Resources {
            cores: profile.cores,
            memory_bytes: profile.memory_bytes,
            disk_bytes: 1 << 30,
            slots: profile.slots,
        },
        backends: vec!["wasm".into()],
        region: profile.region.clone(),
        labels: Vec::new(),
        expires_at_height: 1 << 40,
    });
    let body = SubmitTransaction {
        transaction: signed(key, network, nonce, offer),
    };
    client.submit(&body).await.expect("the offer stands");
}

impl Shared {
    fn new(key: &SecretKey, network: NetworkId, profile: Profile) -> Arc<Self> {
        Arc::new(Self {
            key: key.clone(),
            network,
            profile,
            lie: Mutex::new(Lie::Honest),
            jobs: AtomicU64::new(0),
        })
    }
}

/// What an honest provider would answer: the event, or the result of the reference job.
fn honest(work: &Work, event: &Bytes) -> Bytes {
    if work.name != "piecework-reference" {
        return event.clone();
    }
    let asked: Value = serde_json::from_slice(event).expect("JSON");
    let number = |field: &str| u32::try_from(asked[field].as_u64().expect("a number")).expect("32 bits");
    let step = |x: u32, _| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    Bytes::from((0..number("rounds")).fold(number("seed"), step).to_string())
}

/// As an honest provider writes it.
fn delivered((ticket, salt): (&Ticket, Option<&Salt>), output: Bytes, cpu_us: u64) -> Delivery {
    let counters = Counters {
        cpu_us,
        memory_byte_ms: 1 << 20,
        egress_bytes: 0,
    };
    let receipt = Receipt {
        lease: ticket.lease,
        provider: ticket.provider,
        sequence: ticket.sequence,
        job: ticket.job,
        code: ticket.code,
        input: ticket.input,
        output: Digest::of(&output).salted(salt),
        status: JobStatus::Ok,
        counters,
        price_ucr: ticket.prices.price(&counters).expect("in range"),
        duration_us: cpu_us,
    };
    Delivery {
        receipt,
        mark: [0; 32],
        finished: Finished {
            outcome: Outcome::Returned(output),
            logs: Logs::default(),
            counters,
            memory_peak_bytes: 1 << 20,
            duration: Duration::from_micros(cpu_us),
            reusable: true,
        },
        cold: false,
        pull_us: 0,
        is_cut: false,
    }
}

#[async_trait]
impl ProviderLink for Shared {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn load(&self) -> Load {
        Load::default()
    }

    fn is_warm(&self, _function: FunctionId, _version: u32) -> bool {
        false
    }

    async fn check(&self, _work: Arc<Work>) -> Result<(), LoadError> {
        Ok(())
    }

    async fn run(&self, order: Order) -> Result<Delivery, Refusal> {
        let is_reference = order.work.name == "piecework-reference";
        let output = match *self.lie.lock() {
            Lie::Garbage if !is_reference => Bytes::from_static(b"\"garbage\""),
            Lie::Honest | Lie::Garbage => honest(&order.work, &order.event),
        };
        if !is_reference {
            self.jobs.fetch_add(1, Ordering::SeqCst);
        }
        Ok(delivered((&order.ticket, order.salt.as_ref()), output, 500))
    }

    async fn accept_seal(&self, _seal: Seal, _sequences: Vec<u64>) -> Result<(), Refusal> {
        Ok(())
    }

    /// It seals whatever it is asked to.
    async fn seal_receipts(&self, lane: (LeaseId, AccountId), receipts: Vec<Unsealed>) -> Result<Seal, Refusal> {
        let leaves: Vec<Digest> = receipts.iter().map(|unsealed| unsealed.receipt.leaf()).collect();
        if lane.1 != self.profile.account {
            return Err(Rejection::new(Code::ReceiptNotMine, "not this provider's"));
        }
        Ok(Seal::sign(&self.key, Domain::Receipts, &self.network, lane, &leaves))
    }

    fn forget(&self, _function: FunctionId, _version: u32) {}
}
