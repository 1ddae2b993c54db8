//! Puts the roles together from concrete parts: the only place that names a backend, a store or an engine.

use std::{
    collections::HashSet,
    fs,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use piecework_blobs::{Files, Unpacked};
use piecework_chain::Chain;
use piecework_controller::{Controller, Tuning};
use piecework_ledger::{Action, Grant, Key, Params, PutOffer, Resources, Roles, SignedTransaction, Transaction, Value};
use piecework_model::{AccountId, Credits, OwnerName, Prices, SecretKey};
use piecework_packages::Packages;
use piecework_peer::NewNetwork;
use piecework_provider::Provider;
use piecework_sandbox::{Backend, Probe};
use piecework_sandbox_jail::Jail;
use piecework_sandbox_wasm::Wasm;
use piecework_store::Sqlite;
use rand::RngExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::places;

/// A thousand credits: about a thousand hours of one core, for whoever tries it out.
const OPERATOR_GRANT: Credits = Credits(1_000 * Credits::ONE.0);
/// Covers the deposit of the provider's offer.
const PROVIDER_GRANT: Credits = Credits(10 * Credits::ONE.0);

/// One credit is about one core-hour: 10^6 ucr / 3600 s = 278 ucr a core-second; a GiB-second is an eighth of that.
const PRICES: Prices = Prices {
    start_ucr: 1,
    cpu_ucr_per_s: 278,
    memory_ucr_per_gib_s: 35,
    egress_ucr_per_mib: 10,
};

const PARAMS: Params = Params {
    commission_ppm: 30_000,
    offer_deposit: Credits::ONE,
    window_blocks: 3_600,
    jobs_per_settlement_max: 1_000,
    transactions_per_block_max: 2_000,
    lane_intervals_max: 4_096,
};

/// Blocks without transactions: rare, so that an idle machine is left alone.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Unpacked bundles on disk; the longest unused go first.
const UNPACKED_BYTES_MAX: u64 = 8 << 30;
/// An idle instance stays for ten minutes: waiting costs a provider memory, starting anew costs a caller time.
const INSTANCE_IDLE: Duration = Duration::from_secs(600);
/// A share of the machine's memory for idle instances: 1/8.
const IDLE_MEMORY_SHARE: u64 = 8;
/// Runs at once, for each core: most of them wait for something.
const SLOTS_PER_CORE: u32 = 64;

/// What one machine runs.
pub struct Machine {
    controller: Arc<Controller>,
    peer: piecework_peer::Handle,
    /// Apart from the others': the controller's last settlement needs the ledger.
    peer_shutdown: CancellationToken,
    pub url: String,
    listener: TcpListener,
    shutdown: CancellationToken,
    _lock: fs::File,
}

/// Controller, peer and provider on `directory`, listening on `listen`. `say` is told what takes time.
pub async fn machine(directory: &Path, listen: SocketAddr, say: &dyn Fn(&str)) -> Result<Machine> {
    make_private(directory)?;
    let lock = lock(directory)?;
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!(
            "cannot listen on {listen}: is another `piecework up` running? `--listen 127.0.0.1:0` takes a free port"
        )
    })?;
    let url = format!("http://{}", listener.local_addr()?);
    let shutdown = CancellationToken::new();
    let keys = Keys::load_or_create(&directory.join("keys"))?;
    say("starting the ledger");
    let peer_shutdown = CancellationToken::new();
    let peer = start_peer(&directory.join("peer"), &keys, peer_shutdown.clone()).await?;
    let chain = peer.chain();
    let store = Sqlite::open(piecework_store::Options::new(directory.join("store")))
        .await
        .context("the store does not open")?;
    let blobs = Arc::new(Files::open(directory.join("blobs")).context("the bundles' directory does not open")?);
    let unpacked = Unpacked::open(directory.join("unpacked"), blobs.clone(), UNPACKED_BYTES_MAX)?;
    say("probing the sandboxes (the first time on a machine, the interpreters are compiled: up to a minute)");
    let backends = backends().await;
    let working: Vec<_> = backends
        .iter()
        .filter(|(_, probe)| probe.works)
        .map(|(backend, _)| backend.clone())
        .collect();
    if working.is_empty() {
        bail!("no sandbox works here; `piecework doctor` says why");
    }
    let probes = backends.into_iter().map(|(_, probe)| probe).collect();
    let provider = start_provider(&keys, &*chain, working, probes, unpacked, &shutdown);
    put_offer(&*chain, &keys.provider, &provider).await?;
    say("starting the controller");
    let controller = Controller::start(
        piecework_controller::Options {
            key: keys.controller.clone(),
            account: AccountId::of(&keys.controller.public()),
            chain,
            store,
            blobs,
            packages: Arc::new(Packages::new(places::package_options())),
            providers: vec![provider],
            policy: Default::default(),
            base_url: url.clone(),
            tuning: Tuning::default(),
        },
        shutdown.clone(),
    )
    .await
    .map_err(|refusal| anyhow::anyhow!("the controller does not start: {refusal}"))?;
    write_token(directory, &controller, &keys.operator, &url).await?;
    Ok(Machine {
        controller,
        peer,
        peer_shutdown,
        url,
        listener,
        shutdown,
        _lock: lock,
    })
}

impl Machine {
    /// Serves until `stop` resolves or the ledger fails; then lets running work end.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<()> {
        let Self {
            controller,
            peer,
            peer_shutdown,
            listener,
            shutdown,
            ..
        } = self;
        let mut serving = tokio::spawn(controller.serve(listener));
        let mut ledger = tokio::spawn(peer.stopped());
        let stopped_early = tokio::select! {
            () = stop => None,
            ended = &mut ledger => Some(ended),
            ended = &mut serving => {
                ended.context("the server panicked")??;
                bail!("the server ended by itself");
            }
        };
        shutdown.cancel();
        serving.await.context("the server panicked")??;
        peer_shutdown.cancel();
        match stopped_early {
            Some(ended) => ended.context("the ledger panicked")?.context("the ledger failed"),
            None => ledger
                .await
                .context("the ledger panicked")?
                .context("the ledger did not stop cleanly"),
        }
    }
}

/// Only its owner may look into it: it holds keys.
fn make_private(directory: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("cannot make the data directory {}", directory.display()))
}

fn lock(directory: &Path) -> Result<fs::File> {
    let path = directory.join("lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            bail!(
                "another `piecework up` uses {}; stop it, or give another --data",
                directory.display()
            )
        }
        Err(fs::TryLockError::Error(error)) => Err(error).context("cannot lock the data directory"),
    }
}

/// The keys of the accounts that one machine plays; the peer's own lies with the peer.
struct Keys {
    operator: SecretKey,
    controller: SecretKey,
    provider: SecretKey,
}

impl Keys {
    fn load_or_create(directory: &Path) -> Result<Self> {
        make_private(directory)?;
        let key = |name: &str| load_or_create_key(&directory.join(format!("{name}.key")));
        Ok(Self {
            operator: key("operator")?,
            controller: key("controller")?,
            provider: key("provider")?,
        })
    }
}

fn load_or_create_key(path: &Path) -> Result<SecretKey> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let mut seed = [0; 32];
            hex::decode_to_slice(text.trim(), &mut seed)
                .with_context(|| format!("{} is not a key: restore it from a backup", path.display()))?;
            Ok(SecretKey::from_seed(seed))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = SecretKey::from_seed(rand::rng().random());
            write_private(path, &hex::encode(key.to_seed()))?;
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Whole or not at all, readable by its owner alone.
fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let partial = path.with_extension("partial");
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display()))
}

/// The ledger's only peer, with a network of its own made at the first start.
async fn start_peer(directory: &Path, keys: &Keys, shutdown: CancellationToken) -> Result<piecework_peer::Handle> {
    make_private(directory)?;
    if !directory.join("genesis.json").exists() {
        piecework_peer::create_genesis(directory, new_network(keys)?).context("the network cannot be made")?;
    }
    let member = piecework_peer::member(directory).context("the ledger's directory cannot be used")?;
    let listen = "127.0.0.1:0".parse().context("a loopback address")?;
    let mut options = piecework_chain_simplex::Options::new(member.ledger, member.genesis.clone(), member.key, listen);
    options.heartbeat = HEARTBEAT;
    let node = piecework_chain_simplex::start(options)
        .await
        .context("the ledger does not start")?;
    Ok(piecework_peer::Service::run(node, member.genesis, shutdown))
}

fn new_network(keys: &Keys) -> Result<NewNetwork> {
    let created = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    let grant = |name: &str, key: &SecretKey, amount, roles| -> Result<Grant> {
        Ok(Grant {
            name: name.parse::<OwnerName>()?,
            key: key.public(),
            roles,
            amount,
        })
    };
    let none = Roles::default();
    let operator = Roles {
        developer: true,
        peer: true,
        ..none
    };
    Ok(NewNetwork {
        name: "one machine".into(),
        created_at_ms: u64::try_from(created.as_millis()).context("a date")?,
        params: PARAMS,
        grants: vec![
            grant("operator", &keys.operator, OPERATOR_GRANT, operator)?,
            grant(
                "controller",
                &keys.controller,
                Credits::ZERO,
                Roles {
                    controller: true,
                    ..none
                },
            )?,
            grant(
                "provider",
                &keys.provider,
                PROVIDER_GRANT,
                Roles { provider: true, ..none },
            )?,
        ],
        owner: "operator".parse()?,
        address: "127.0.0.1:0".into(),
    })
}

/// Every backend that this build has, with what its probe saw. Must run within the runtime that will use them.
pub async fn backends() -> Vec<(Arc<dyn Backend>, Probe)> {
    let mut found = Vec::new();
    if let Some(wasm) = wasm() {
        found.push(wasm);
    }
    if let Some(jail) = jail() {
        found.push(jail);
    }
    let mut probed = Vec::with_capacity(found.len());
    for backend in found {
        let probe = backend.probe().await;
        probed.push((backend, probe));
    }
    probed
}

/// Instances alive at once, for each language: address space, not memory.
const WASM_INSTANCES_MAX: u32 = 1_500;

fn wasm() -> Option<Arc<dyn Backend>> {
    let component = |name: &str| {
        places::runtimes()
            .map(|folder| folder.join(name))
            .filter(|path| path.is_file())
    };
    let options = piecework_sandbox_wasm::Options {
        python: component("python.wasm"),
        javascript: component("javascript.wasm"),
        cache: places::compiled_cache().ok()?,
        instances_max: WASM_INSTANCES_MAX,
    };
    match Wasm::new(options) {
        Ok(wasm) => Some(Arc::new(wasm)),
        Err(error) => {
            tracing::warn!(%error, "the wasm sandbox does not start");
            None
        }
    }
}

fn jail() -> Option<Arc<dyn Backend>> {
    let mut options = piecework_sandbox_jail::Options::new(own_executable()?);
    options.search = places::search_path();
    match Jail::new(options) {
        Ok(jail) => Some(Arc::new(jail)),
        Err(error) => {
            tracing::warn!(%error, "the jail does not start");
            None
        }
    }
}

fn own_executable() -> Option<PathBuf> {
    std::env::current_exe().ok()
}

fn start_provider(
    keys: &Keys,
    chain: &dyn Chain,
    backends: Vec<Arc<dyn Backend>>,
    probes: Vec<Probe>,
    bundles: Unpacked,
    shutdown: &CancellationToken,
) -> Arc<Provider> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    let memory_bytes = places::memory_bytes();
    Provider::start(
        piecework_provider::Options {
            account: AccountId::of(&keys.provider.public()),
            key: keys.provider.clone(),
            network: chain.network(),
            name: "provider".into(),
            prices: PRICES,
            region: "local".into(),
            labels: Vec::new(),
            cores,
            memory_bytes,
            slots: cores.saturating_mul(SLOTS_PER_CORE),
            idle: INSTANCE_IDLE,
            idle_bytes_max: memory_bytes / IDLE_MEMORY_SHARE,
            backends,
            probes,
            bundles,
            payers: HashSet::from([keys.controller.public()]),
        },
        shutdown.clone(),
    )
}

/// Far enough away never to run out.
const OFFER_BLOCKS: u64 = 1 << 40;

/// The provider's offer on the ledger, unless it stands there as it is.
async fn put_offer(chain: &dyn Chain, key: &SecretKey, provider: &Provider) -> Result<()> {
    use piecework_queue::ProviderLink as _;
    let profile = provider.profile();
    let working = profile.probes.iter().filter(|probe| probe.works);
    let backends: Vec<String> = working.map(|probe| probe.backend.to_string()).collect();
    let resources = Resources {
        cores: profile.cores,
        memory_bytes: profile.memory_bytes,
        disk_bytes: UNPACKED_BYTES_MAX,
        slots: profile.slots,
    };
    if let Some(Value::Offer(offer)) = chain.get(&Key::Offer(profile.account)).await?
        && (offer.prices, offer.resources, &offer.backends) == (profile.prices, resources, &backends)
    {
        return Ok(());
    }
    let Some(Value::Account(account)) = chain.get(&Key::Account(profile.account)).await? else {
        bail!("the provider's account is not on the ledger: was the genesis file changed?");
    };
    let action = Action::PutOffer(PutOffer {
        prices: profile.prices,
        resources,
        backends,
        region: profile.region.clone(),
        labels: profile.labels.clone(),
        expires_at_height: chain.status().height + OFFER_BLOCKS,
    });
    let transaction = Transaction {
        sender: profile.account,
        nonce: account.nonce,
        action,
    };
    let signed = SignedTransaction::sign(transaction, key, &chain.network());
    chain
        .submit_and_wait(signed)
        .await
        .context("the provider's offer was not taken")?;
    Ok(())
}

/// Makes the operator a user and leaves a token for the command line; an existing one stays.
async fn write_token(directory: &Path, controller: &Controller, key: &SecretKey, url: &str) -> Result<()> {
    let roles = piecework_store::Roles {
        developer: true,
        peer: true,
        operator: true,
        ..Default::default()
    };
    let refused = |refusal| anyhow::anyhow!("the operator's account: {refusal}");
    let account = controller
        .adopt("operator".parse()?, key, roles)
        .await
        .map_err(refused)?;
    write_private(&directory.join("url"), url)?;
    let path = directory.join("token");
    if !path.exists() {
        let token = controller
            .issue_token(account, "the operator's, written by up")
            .await
            .map_err(refused)?;
        write_private(&path, &token)?;
    }
    Ok(())
}
