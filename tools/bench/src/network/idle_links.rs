//! Providers that are linked and have nothing to do: what they cost the controller.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use piecework_api::{
    Client, PageQuery,
    accounts::{CreateAccount, CreateInvite, Role},
    ledger::{ProviderState, ProviderView, SubmitTransaction},
};
use piecework_ledger::{Action, PutOffer, Register, Resources, Roles, SignedTransaction, Transaction};
use piecework_model::{AccountId, Code, FunctionId, LeaseId, NetworkId, Prices, Rejection, Seal, SecretKey};
use piecework_queue::{
    Delivery, Load, Order, Profile, ProviderLink, Refusal, Unsealed, Work,
    link::{Agent, Fetcher, dial},
};
use piecework_sandbox::LoadError;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::server::Server;

/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(20);
/// Enrolled at the same time.
const AT_ONCE: usize = 32;

#[derive(Clone, Debug, Default, Serialize)]
pub struct IdleLinks {
    links: usize,
    memory_before_bytes: u64,
    memory_after_bytes: u64,
    /// Of one core.
    core_share: f64,
}

impl fmt::Display for IdleLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "{} idle links: {:.1} -> {:.1} MiB, {:.1} % of a core",
            self.links,
            mib(self.memory_before_bytes),
            mib(self.memory_after_bytes),
            100.0 * self.core_share
        )
    }
}

pub async fn measure(server: &Server, links: usize) -> Result<IdleLinks> {
    let client = Client::new(&server.url, Some(server.token.clone()))?;
    let network = client.ledger_status().await?.network;
    let mut enrolling = JoinSet::new();
    let mut keys = Vec::with_capacity(links);
    for index in 0..links {
        if enrolling.len() >= AT_ONCE
            && let Some(enrolled) = enrolling.join_next().await
        {
            keys.push(enrolled??);
        }
        enrolling.spawn(enrol(server.url.clone(), server.token.clone(), network, index));
    }
    while let Some(enrolled) = enrolling.join_next().await {
        keys.push(enrolled??);
    }
    let tree = server.tree();
    let memory_before_bytes = tree.memory_bytes()?;
    let mut agents = JoinSet::new();
    for key in keys {
        agents.spawn(live(server.url.clone(), network, key));
    }
    let linked = async {
        loop {
            if linked_now(&client).await? >= links {
                return Ok::<_, anyhow::Error>(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), linked)
        .await
        .context("not all links came up")??;
    let before = tree.cpu()?;
    tokio::time::sleep(WATCHED).await;
    let used = tree.cpu()? - before;
    ensure!(agents.try_join_next().is_none(), "a link ended by itself");
    let memory_after_bytes = tree.memory_bytes()?;
    agents.shutdown().await;
    Ok(IdleLinks {
        links,
        memory_before_bytes,
        memory_after_bytes,
        core_share: used.as_secs_f64() / WATCHED.as_secs_f64(),
    })
}

async fn linked_now(client: &Client) -> Result<usize> {
    let mut query = PageQuery {
        limit: Some(1_000),
        cursor: None,
    };
    let mut linked = 0;
    loop {
        let page = client.providers(&query).await?;
        let is_linked = |view: &&ProviderView| view.name.starts_with("idle-") && view.state != ProviderState::Gone;
        linked += page.items.iter().filter(is_linked).count();
        if page.next.is_none() {
            return Ok(linked);
        }
        query.cursor = page.next;
    }
}

const PRICES: Prices = Prices {
    start_ucr: 1,
    cpu_ucr_per_s: 1_000_000,
    memory_ucr_per_gib_s: 1_000_000,
    egress_ucr_per_mib: 1_000_000,
};

/// An account with an offer above all price caps, so that it gets no jobs.
async fn enrol(url: String, token: String, network: NetworkId, index: usize) -> Result<SecretKey> {
    let key = SecretKey::from_seed(*blake3::hash(format!("idle {index} {network}").as_bytes()).as_bytes());
    let client = Client::new(&url, Some(token))?;
    let invite = CreateInvite {
        roles: vec![Role::Provider],
        ..CreateInvite::default()
    };
    let invite = client.create_invite(&invite, None).await?;
    let sender = AccountId::of(&key.public());
    let roles = Roles {
        provider: true,
        ..Roles::default()
    };
    let name = format!("idle-{index}");
    let register = Action::Register(Register {
        name: name.parse()?,
        roles,
        sponsor: None,
        owner: None,
    });
    let body = CreateAccount {
        name,
        public_key: Some(key.public()),
        registration: Some(signed(&key, sender, 0, register, &network)?),
        roles: vec![Role::Provider],
        invite: Some(invite.code),
        ..CreateAccount::default()
    };
    client.create_account(&body).await?;
    let offer = Action::PutOffer(PutOffer {
        prices: PRICES,
        resources: Resources {
            cores: 1,
            memory_bytes: 1 << 30,
            disk_bytes: 1 << 30,
            slots: 1,
        },
        backends: Vec::new(),
        region: "idle".into(),
        labels: Vec::new(),
        expires_at_height: 1 << 40,
    });
    let transaction = signed(&key, sender, 1, offer, &network)?;
    client.submit(&SubmitTransaction { transaction }).await?;
    Ok(key)
}

fn signed(key: &SecretKey, sender: AccountId, nonce: u64, action: Action, network: &NetworkId) -> Result<String> {
    let transaction = Transaction { sender, nonce, action };
    let signed = SignedTransaction::sign(transaction, key, network);
    Ok(hex::encode(borsh::to_vec(&signed)?))
}

async fn live(url: String, network: NetworkId, key: SecretKey) -> Result<()> {
    let provider = Arc::new(Idle::new(AccountId::of(&key.public())));
    let agent = Agent::new(key, network, [1; 16], provider, Fetcher::default());
    let link = format!("ws{}/link", url.strip_prefix("http").unwrap_or(&url));
    let wire = dial(&link).await?;
    Err(agent.session(wire, &|_| Ok(()), now_ms).await.into())
}

fn now_ms() -> u64 {
    piecework_model::unix_ms(SystemTime::now())
}

/// A provider that runs nothing.
struct Idle {
    profile: Profile,
}

impl Idle {
    fn new(account: AccountId) -> Self {
        Self {
            profile: Profile {
                account,
                name: "idle".into(),
                prices: PRICES,
                cores: 1,
                memory_bytes: 1 << 30,
                slots: 1,
                region: "idle".into(),
                labels: Vec::new(),
                probes: Vec::new(),
                egress: None,
                free_for: None,
            },
        }
    }
}

#[async_trait]
impl ProviderLink for Idle {
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
        Err(LoadError::Failed("this provider runs nothing".into()))
    }

    async fn run(&self, _order: Order) -> Result<Delivery, Refusal> {
        Err(Rejection::new(Code::ProviderDraining, "this provider runs nothing"))
    }

    async fn accept_seal(&self, _seal: Seal, _sequences: Vec<u64>) -> Result<(), Refusal> {
        Ok(())
    }

    async fn seal_receipts(&self, _lane: (LeaseId, AccountId), _receipts: Vec<Unsealed>) -> Result<Seal, Refusal> {
        Err(Rejection::new(Code::ProviderDraining, "this provider seals nothing"))
    }

    fn forget(&self, _function: FunctionId, _version: u32) {}
}
