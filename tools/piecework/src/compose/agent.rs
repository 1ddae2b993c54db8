//! `piecework provide`: this computer as a provider of a controller elsewhere.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use piecework_api::{
    Client, ClientError,
    accounts::{AccountView, CreateAccount, CreateSession, Role, sign_login},
    functions::PricesView,
    ledger::SubmitTransaction,
};
use piecework_blobs::{BlobSize, Blobs, BlobsError, Unpacked};
use piecework_ledger::{Action, Genesis, Register, Roles, SignedTransaction, Transaction};
use piecework_model::{
    AccountId, Code, Digest, Domain, NetworkId, OwnerName, PublicKey, Rejection, SecretKey, Signature,
};
use piecework_provider::{Provider, collect::Claiming};
use piecework_queue::{
    ProviderLink as _,
    link::{Agent, Event, Fetcher, LinkFailure, keep_linked},
};
use rand::RngExt as _;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    collecting::{Caution, Collecting, by_peers},
    control, cores, disk,
    files::{load_or_create_key, lock, make_private},
    first, formats,
    provider::{Seat, Terms, offer, start_provider},
};

const GENESIS_FILE: &str = "genesis.json";

/// How a computer provides.
pub struct Provision {
    pub directory: PathBuf,
    /// The first that answers is used; all belong to one network.
    pub controllers: Vec<String>,
    /// The HTTP APIs of ledger peers, for what a controller leaves unpaid; those of the controllers come after them.
    pub ledger: Vec<String>,
    pub caution: Caution,
    /// Needed the first time.
    pub invite: Option<String>,
    pub terms: Terms,
    /// Signs for the computer's owner, if it has one.
    pub owner: Option<OwnersWord>,
    /// Whether its owner's jobs cost nothing.
    pub free_for_owner: bool,
}

/// The logged-in account signs for a computer when it first joins.
pub struct OwnersWord {
    pub client: Client,
    /// Where the owner keeps the account's key and not the controller.
    pub key: Option<SecretKey>,
}

impl OwnersWord {
    async fn vouch(&self, computer: &PublicKey, network: NetworkId) -> Result<(AccountId, Signature)> {
        match &self.key {
            Some(key) => {
                let owner = self.client.own_account().await?.id;
                Ok((owner, key.sign(Domain::Owner, &network, &AccountId::of(computer))))
            }
            None => {
                let said = self.client.own_provider(*computer).await?;
                Ok((said.owner, said.signature))
            }
        }
    }
}

/// File in a provider's directory with its owner's account.
const OWNER: &str = "owner";

/// Whose jobs cost nothing here.
fn free_for(provision: &Provision) -> Result<Option<AccountId>> {
    if !provision.free_for_owner {
        return Ok(None);
    }
    let path = provision.directory.join(OWNER);
    let owner = fs::read_to_string(path).context("this computer belongs to nobody: it joined without --mine")?;
    Ok(Some(owner.trim().parse()?))
}

/// Joins, stays linked and runs jobs until `stop` resolves; then lets running jobs end. `say` is told what happens. A
/// full disk is said by its code.
pub async fn provide(
    provision: Provision,
    say: Arc<dyn Fn(&str) + Send + Sync>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let directory = provision.directory.clone();
    Box::pin(join_and_run(provision, say, stop))
        .await
        .map_err(|error| match is_full(&error) {
            true => Rejection::new(
                Code::ProviderDiskFull,
                format!("the disk with {} is full", directory.display()),
            )
            .hint("free some space there and start again")
            .into(),
            false => error,
        })
}

async fn join_and_run(
    provision: Provision,
    say: Arc<dyn Fn(&str) + Send + Sync>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let directory = &provision.directory;
    formats::check(directory)?;
    make_private(directory)?;
    first::come_first();
    cores::confine(provision.terms.cores).context("cannot limit the cores")?;
    let _lock = lock(directory)?;
    let key = load_or_create_key(&directory.join("provider.key"))?;
    let shutdown = CancellationToken::new();
    let collect = |genesis| Collecting::start(&key, claiming(&provision, genesis), &shutdown);
    // What earlier runs are owed is claimed also where no controller answers any more.
    let earlier = kept_genesis(directory)?.map(collect).transpose()?;
    let mut stop = pin!(stop);
    let client = tokio::select! {
        client = answering(&provision.controllers, earlier.is_some(), &*say) => client?,
        () = &mut stop => return finish(&shutdown, earlier).await,
    };
    let network = client.ledger_status().await?.network;
    keep_to_network(directory, network)?;
    let collecting = match earlier {
        Some(collecting) => collecting,
        None => collect(first_genesis(&client, network, directory).await?)?,
    };
    let name = enrol(&client, &key, network, &provision).await?;
    say(&format!("this computer is provider `{name}` at {}", client.base()));
    let ready = format!("ready {name}");

    let fetcher = Fetcher::default();
    let bundles = Arc::new(Pulled(fetcher.clone()));
    let unpacked = directory.join("unpacked");
    let terms = provision.terms.clone().with_room(directory, &unpacked)?;
    let disk_bytes = terms.disk_bytes;
    let disk = disk::watch(directory)?;
    let seat = Seat {
        key: &key,
        network,
        payers: HashSet::new(),
        journal: directory.join("begun"),
        collector: collecting.collector.clone(),
        bundles: Unpacked::open(unpacked, bundles, disk_bytes)?,
        disk: disk.clone(),
    };
    say("testing the sandboxes (up to a minute the first time, while the interpreters are compiled)");
    let provider = start_provider(
        seat,
        Terms {
            name,
            free_for: free_for(&provision)?,
            ..terms
        },
        &shutdown,
    )
    .await?;
    publish(&client, &key, network, &provider, disk_bytes).await?;
    say("the offer is on the ledger");
    if provision.terms.rules.when_idle {
        cores::come_later().context("cannot lower the priority")?;
    }

    let agent = Agent::new(key, network, rand::rng().random(), provider.clone(), fetcher);
    let control = control::serve(
        directory,
        provider.clone(),
        (agent.clone(), collecting.collector.clone()),
        shutdown.clone(),
    )?;
    let linked = tokio::spawn(watch(agent.clone(), ready, say.clone()));
    let full = AbortOnDropHandle::new(tokio::spawn(disk::tell(disk, say.clone())));
    let trusts = trust(directory.clone(), provider.clone());
    let urls = provision.controllers.iter().map(|url| link_url(url)).collect();
    let told = say.clone();
    let tell = move |event: Event<'_>| {
        if let Event::Ended { url, failure, again_in } = event {
            let mut hint = String::new();
            if let LinkFailure::Refused(Rejection { hint: Some(said), .. }) = failure {
                hint = format!(" ({said})");
            }
            let next = match again_in {
                Some(again_in) => format!("trying again in {:.1} s", again_in.as_secs_f64()),
                None => "not trying it again".to_owned(),
            };
            told(&format!("{url}: {failure}{hint}; {next}"));
        }
    };
    // A task of its own runs where the network is polled: on this thread each packet would wake another one first.
    let linking = keep_linked(agent.clone(), urls, trusts, now_ms, tell, shutdown.clone());
    let linking = AbortOnDropHandle::new(tokio::spawn(linking));
    let ended = tokio::select! {
        ended = linking => ended.context("the link panicked")?.map_err(no_link),
        () = drained(&provider, &agent, stop, &*say) => Ok(()),
    };
    linked.abort();
    drop(full);
    control.abort();
    finish(&shutdown, Some(collecting)).await?;
    ended
}

/// A refusal is shown by its code, with what to do.
fn no_link(failure: LinkFailure) -> anyhow::Error {
    let cause = match failure {
        LinkFailure::Refused(rejection) => anyhow::Error::new(rejection),
        other @ (LinkFailure::Broken(_) | LinkFailure::Silent | LinkFailure::Protocol(_)) => other.into(),
    };
    cause.context("provider and controller cannot work together")
}

async fn finish(shutdown: &CancellationToken, collecting: Option<Collecting>) -> Result<()> {
    shutdown.cancel();
    match collecting {
        Some(collecting) => collecting.ended().await,
        None => Ok(()),
    }
}

fn claiming(provision: &Provision, genesis: Genesis) -> Claiming {
    let urls = provision.ledger.iter().chain(&provision.controllers).cloned();
    let papers = provision.directory.join("papers");
    by_peers(urls.collect(), genesis, provision.caution, papers)
}

/// The genesis of the network that this directory has joined; none where it has joined none.
fn kept_genesis(directory: &Path) -> Result<Option<Genesis>> {
    let path = directory.join(GENESIS_FILE);
    match fs::read(&path) {
        Ok(bytes) => {
            let genesis = serde_json::from_slice(&bytes);
            Ok(Some(genesis.with_context(|| {
                format!("{} is not a genesis file", path.display())
            })?))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// As the controller shows it; its digest is the network's id, so there is nothing to trust.
async fn first_genesis(client: &Client, network: NetworkId, directory: &Path) -> Result<Genesis> {
    let shown = client.ledger_genesis().await?;
    let text = shown.to_string();
    let genesis: Genesis = serde_json::from_value(shown).context("the controller did not send a valid genesis file")?;
    if genesis.network_id() != network {
        bail!("the controller sent the genesis file of another network");
    }
    super::files::write_private(&directory.join(GENESIS_FILE), &text)?;
    Ok(genesis)
}

/// After `stop`: no new jobs, the running ones end and are delivered.
async fn drained(
    provider: &Provider,
    agent: &Agent,
    stop: impl Future<Output = ()>,
    say: &(dyn Fn(&str) + Send + Sync),
) {
    const PATIENCE: Duration = Duration::from_secs(30);
    const POLL: Duration = Duration::from_millis(50);
    stop.await;
    provider.drain();
    if agent.orders() > 0 {
        say(&format!("waiting for {} running jobs", agent.orders()));
    }
    let all_done = async {
        while agent.orders() > 0 {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(PATIENCE, all_done).await.is_err() {
        say("some jobs did not finish; the controller orders them elsewhere");
    }
}

/// Says when a link comes up; the first time also to whatever reads the standard output.
async fn watch(agent: Arc<Agent>, ready: String, say: Arc<dyn Fn(&str) + Send + Sync>) {
    let mut linked = agent.linked_to();
    // It may have come up before this was asked.
    linked.mark_changed();
    let mut ready = Some(ready);
    while linked.changed().await.is_ok() {
        if linked.borrow_and_update().is_none() {
            continue;
        }
        say("connected; jobs may come");
        if let Some(ready) = ready.take()
            && let Err(error) = crate::show::text(&format!("{ready}\n"))
        {
            tracing::debug!(%error, "nobody reads the standard output");
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The client of the first controller that answers; a provider that has joined before waits until one does.
async fn answering(urls: &[String], is_patient: bool, say: &(dyn Fn(&str) + Send + Sync)) -> Result<Client> {
    const AGAIN_AFTER: Duration = Duration::from_secs(10);
    loop {
        match reachable(urls, say).await {
            Err(_) if is_patient => {
                say("no controller answers; trying again in 10 s; unpaid jobs are claimed meanwhile")
            }
            answered => return answered,
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// The client of the first controller that answers.
async fn reachable(urls: &[String], say: &(dyn Fn(&str) + Send + Sync)) -> Result<Client> {
    for url in urls {
        let client = Client::new(url, None)?;
        match client.health().await {
            Ok(_) => return Ok(client),
            Err(error) => say(&format!("{url}: {error}")),
        }
    }
    bail!("no controller answers; is the address right, and is the controller running?")
}

/// `http` becomes `ws`, `https` becomes `wss`.
fn link_url(url: &str) -> String {
    let base = url.trim_end_matches('/');
    format!(
        "ws{}{}",
        base.strip_prefix("http").unwrap_or(base),
        piecework_api::routes::LINK
    )
}

/// A directory belongs to the network that it first joined: its key and its journal mean nothing elsewhere.
fn keep_to_network(directory: &Path, network: NetworkId) -> Result<()> {
    let path = directory.join("network");
    let name = network.to_string();
    match fs::read_to_string(&path) {
        Ok(known) if known.trim() == name => Ok(()),
        Ok(_) => bail!(
            "{} belongs to another network; use another --data directory for this one",
            directory.display()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => super::files::write_private(&path, &name),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// At each URL the controller that was met first is the one to work for, by its key. The file has a line for each, the
/// key and the URL; a key without a URL holds everywhere.
fn trust(directory: PathBuf, provider: Arc<Provider>) -> impl Fn(&str, PublicKey) -> Result<(), Rejection> {
    let path = directory.join("controllers");
    let turn = Mutex::new(());
    move |url, key| {
        let _turn = turn.lock();
        let known = fs::read_to_string(&path).unwrap_or_default();
        let of_url: Vec<&str> = known.lines().filter_map(|line| key_for(line, url)).collect();
        if of_url.is_empty() {
            let kept = super::files::write_private(&path, &format!("{known}{key} {url}\n"));
            kept.map_err(|error| not_written(&error))?;
        } else if !of_url.contains(&&*key.to_string()) {
            return Err(Rejection::new(
                Code::LinkUntrustedController,
                format!("the controller has a different key than before: {key}"),
            )
            .hint(format!(
                "if you trust the new key, add it as a line to {}",
                path.display()
            )));
        }
        provider.trust(key);
        Ok(())
    }
}

/// The key of a line, where it is one for this URL.
fn key_for<'a>(line: &'a str, url: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace();
    let key = words.next()?;
    words.next().is_none_or(|of| of == url).then_some(key)
}

/// What was to be remembered is not.
fn not_written(error: &anyhow::Error) -> Rejection {
    match is_full(error) {
        true => Rejection::new(Code::ProviderDiskFull, "the provider's disk is full"),
        false => Rejection::new(Code::ProviderDiskFailed, format!("{error:#}")),
    }
}

fn is_full(error: &anyhow::Error) -> bool {
    let kinds = error
        .chain()
        .filter_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
    kinds
        .into_iter()
        .any(|kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// The account's name, registered if it is not yet.
async fn enrol(client: &Client, key: &SecretKey, network: NetworkId, provision: &Provision) -> Result<String> {
    let id = AccountId::of(&key.public());
    match client.account(&id.to_string()).await {
        Ok(account) if provision.owner.is_some() && account.owner.is_none() => bail!(
            "this computer joined without --mine, which cannot be changed; join again with another --data directory and a new invite"
        ),
        Ok(account) => return Ok(account.name),
        Err(ClientError::Refused { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let name: OwnerName = provision.terms.name.parse()?;
    let owner = match &provision.owner {
        Some(word) => Some(
            word.vouch(&key.public(), network)
                .await
                .context("cannot confirm the owner of this computer")?,
        ),
        None => None,
    };
    let roles = Roles {
        provider: true,
        ..Roles::default()
    };
    let register = Action::Register(Register {
        name: name.clone(),
        roles,
        sponsor: None,
        owner,
    });
    let transaction = Transaction {
        sender: id,
        nonce: 0,
        action: register,
    };
    let signed = SignedTransaction::sign(transaction, key, &network);
    let body = CreateAccount {
        name: name.to_string(),
        public_key: Some(key.public()),
        registration: Some(hex::encode(borsh::to_vec(&signed)?)),
        roles: vec![Role::Provider],
        invite: provision.invite.clone(),
        ..CreateAccount::default()
    };
    let account = client
        .create_account(&body)
        .await
        .context("cannot create the account")?;
    if let Some((owner, _)) = owner {
        super::files::write_private(&provision.directory.join(OWNER), &owner.to_string())?;
    }
    Ok(account.name)
}

/// Puts the offer on the ledger, unless it stands there as it is.
async fn publish(
    client: &Client,
    key: &SecretKey,
    network: NetworkId,
    provider: &Provider,
    disk_bytes: u64,
) -> Result<()> {
    let profile = provider.profile();
    let client = logged_in(client, key, network, &profile.name).await?;
    let account: AccountView = client.own_account().await?;
    let offers = client.offers(&Default::default()).await?;
    let stands = offers.items.iter().any(|offer| {
        let resources = (offer.cores, offer.memory_bytes, offer.disk_bytes);
        (offer.provider_id, resources) == (profile.account, (profile.cores, profile.memory_bytes, disk_bytes))
            && serde_json::to_value(offer.prices).ok() == serde_json::to_value(PricesView::from(profile.prices)).ok()
    });
    if stands {
        return Ok(());
    }
    let transaction = Transaction {
        sender: profile.account,
        nonce: account.nonce,
        action: Action::PutOffer(offer(profile, disk_bytes, account.height)),
    };
    let signed = SignedTransaction::sign(transaction, key, &network);
    let body = SubmitTransaction {
        transaction: hex::encode(borsh::to_vec(&signed)?),
    };
    let sent = client.submit(&body).await;
    sent.context(
        "the offer was refused; its deposit comes from the credits of the invite (`piecework invite --role provider`)",
    )?;
    Ok(())
}

/// With a token of this account, by its key.
async fn logged_in(client: &Client, key: &SecretKey, network: NetworkId, name: &str) -> Result<Client> {
    let challenge = client.challenge(name).await?.challenge;
    let session = CreateSession {
        name: name.to_owned(),
        signature: Some(sign_login(key, &network, name, &challenge)),
        challenge: Some(challenge),
        ..CreateSession::default()
    };
    let token = client.create_session(&session).await?.token;
    Ok(Client::new(client.base(), Some(token))?)
}

/// Bundles out of the controller's store; unpacked ones are kept, the packed ones are not.
struct Pulled(Fetcher);

#[async_trait]
impl Blobs for Pulled {
    async fn put(&self, _bytes: Bytes) -> Result<Digest, BlobsError> {
        Err(failed(io::Error::other("bundles are kept by the controller")))
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, BlobsError> {
        let pulled = self
            .0
            .fetch(*digest)
            .await
            .map_err(|failure| failed(io::Error::other(failure)))?;
        let bytes = pulled.ok_or(BlobsError::NotFound(*digest))?;
        match Digest::of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(BlobsError::Corrupt {
                digest: *digest,
                reason: "the controller sent bytes that do not match the digest".into(),
            }),
        }
    }

    async fn has(&self, _digest: &Digest) -> Result<bool, BlobsError> {
        Ok(false)
    }

    async fn size(&self, _digest: &Digest) -> Result<Option<BlobSize>, BlobsError> {
        Ok(None)
    }

    async fn list(&self) -> Result<Vec<Digest>, BlobsError> {
        Ok(Vec::new())
    }

    async fn delete(&self, _digest: &Digest) -> Result<bool, BlobsError> {
        Ok(false)
    }
}

fn failed(source: io::Error) -> BlobsError {
    BlobsError::Io {
        operation: "pull a bundle",
        source,
    }
}
