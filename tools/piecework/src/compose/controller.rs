//! `piecework controller run`: a controller without a ledger peer of its own, on the peers of others.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use piecework_api::errors::Refusal;
use piecework_blobs::Files;
use piecework_chain::Chain;
use piecework_chain_http::remote;
use piecework_controller::{Controller, MachineClock, Tuning};
use piecework_disk::Room;
use piecework_ledger::{Genesis, Roles};
use piecework_model::{AccountId, EgressPolicy, Network, OwnerName, Rejection, Role, SecretKey};
use piecework_packages::Packages;
use piecework_peer::{http::Explorer, membership};
use piecework_scheduler::Policy;
use piecework_serve::Door;
use piecework_sink::Courier;
use piecework_store::Sqlite;
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    acme::Renewal,
    background::Background,
    disk,
    files::{load_or_create_key, lock, make_private, write_private},
    formats,
    listen::{front_door, listen},
    portal, sandboxes,
};
use crate::{
    places,
    settings::{AlertSettings, ControllerSettings},
};

/// A controller that runs, and its API that does not serve yet.
pub struct Lone {
    controller: Arc<Controller>,
    explorer: Arc<Explorer>,
    door: Door,
    renewal: Option<Renewal>,
    shutdown: CancellationToken,
    /// Dropped last: the final settlement needs the ledger.
    chain: Arc<dyn Chain>,
    pub url: String,
    _background: Background,
    _lock: fs::File,
}

/// The accounts that a controller plays; made at the first use.
pub struct ControllerKeys {
    pub operator: SecretKey,
    pub controller: SecretKey,
}

impl ControllerKeys {
    pub fn load_or_create(directory: &Path) -> Result<Self> {
        make_private(directory)?;
        let folder = directory.join("keys");
        make_private(&folder)?;
        let key = |name: &str| load_or_create_key(&folder.join(format!("{name}.key")));
        Ok(Self {
            operator: key("operator")?,
            controller: key("controller")?,
        })
    }
}

/// A controller on `directory` that reads and writes the ledger through the peers that its settings name. `say` is told
/// what takes time.
pub async fn controller(
    directory: &Path,
    settings: &ControllerSettings,
    genesis: Genesis,
    say: &dyn Fn(&str),
) -> Result<Lone> {
    formats::check(directory)?;
    make_private(directory)?;
    let lock = lock(directory)?;
    let listener = listen(settings.listen, "`listen`").await?;
    let certificate = (settings.tls.as_ref(), settings.acme.as_ref());
    let (door, own_url, renewal) = front_door(listener, directory, certificate)?;
    let url = match settings.url.is_empty() {
        true => own_url,
        false => settings.url.trim_end_matches('/').to_owned(),
    };
    let keys = ControllerKeys::load_or_create(directory)?;
    say(&format!("looking for the ledger at {}", settings.peers.join(", ")));
    let chain = remote::connect(remote::Options::new(settings.peers.clone(), genesis.clone()))
        .await
        .context("cannot reach the ledger")?;
    let (account, operator) = enrol(&*chain, settings, &keys).await?;
    let shutdown = CancellationToken::new();
    say("starting the controller");
    let disk = disk::watch(directory)?;
    let store = Sqlite::open(disk::store_options(directory, &disk))
        .await
        .context("cannot open the store")?;
    let blobs = Files::open(directory.join("blobs")).context("cannot open the directory of bundles")?;
    let seat = Seat {
        keys: &keys.controller,
        account,
        operator,
        policy: settings.policy,
        base_url: &url,
        disk,
        tuning: Tuning {
            proxies: settings.proxies.clone(),
            stall_after: Duration::from_millis(settings.heartbeat_ms) * 3 + Duration::from_secs(10),
            ..settings.tuning.into()
        },
        results_to: settings.results_to.clone(),
        alerts: settings.alerts.clone(),
        certificate: renewal.as_ref().map(Renewal::trouble),
    };
    let background = Background::start()?;
    let controller = start(
        seat,
        chain.clone(),
        store,
        Arc::new(blobs),
        &shutdown,
        background.handle(),
    )
    .await?;
    write_token(directory, &controller, (&settings.operator, &keys.operator), &url).await?;
    let explorer = Explorer::start(
        piecework_peer::http::Options {
            chain: chain.clone(),
            genesis,
            here: None,
            heartbeat: Duration::from_millis(settings.heartbeat_ms),
            rates: Default::default(),
            trusted: Vec::new(),
        },
        shutdown.clone(),
    );
    Ok(Lone {
        controller,
        explorer,
        door,
        renewal,
        shutdown,
        chain,
        url,
        _background: background,
        _lock: lock,
    })
}

/// Both accounts on the ledger, created if their names are free. Returns the controller's, then the operator's.
async fn enrol(
    chain: &dyn Chain,
    settings: &ControllerSettings,
    keys: &ControllerKeys,
) -> Result<(AccountId, AccountId)> {
    let none = Roles::default();
    let operator = Roles {
        developer: true,
        ..none
    };
    let controller = Roles {
        controller: true,
        ..none
    };
    let operator = membership::enrol(chain, &keys.operator, &settings.operator, operator)
        .await
        .with_context(|| format!("the account `{}` (`operator`)", settings.operator))?;
    let controller = membership::enrol(chain, &keys.controller, &settings.name, controller)
        .await
        .with_context(|| format!("the account `{}` (`name`)", settings.name))?;
    Ok((controller, operator))
}

/// A controller's identity and address.
pub(super) struct Seat<'a> {
    pub(super) keys: &'a SecretKey,
    pub(super) account: AccountId,
    pub(super) operator: AccountId,
    pub(super) policy: Policy,
    pub(super) base_url: &'a str,
    pub(super) disk: Arc<dyn Room>,
    pub(super) tuning: Tuning,
    /// Private networks that results may be sent to.
    pub(super) results_to: Vec<Network>,
    pub(super) alerts: AlertSettings,
    /// What is wrong with the certificate that is obtained by itself.
    pub(super) certificate: Option<watch::Receiver<Option<String>>>,
}

/// Delivers results to their sinks.
pub(super) fn courier(results_to: Vec<Network>) -> Result<Courier> {
    let policy = EgressPolicy { private: results_to };
    Courier::new(policy).context("cannot make the client that sends results")
}

pub(super) async fn start(
    seat: Seat<'_>,
    chain: Arc<dyn Chain>,
    store: Arc<Sqlite>,
    blobs: Arc<Files>,
    shutdown: &CancellationToken,
    background: Handle,
) -> Result<Arc<Controller>> {
    let options = piecework_controller::Options {
        key: seat.keys.clone(),
        account: seat.account,
        operator: seat.operator,
        chain,
        store,
        blobs,
        disk: seat.disk,
        packages: Arc::new(Packages::new(places::package_options(), sandboxes::package_jails())),
        typescript: Arc::new(sandboxes::typescript()),
        portal: portal::FILES,
        sinks: Arc::new(courier(seat.results_to)?),
        alerts: seat.alerts.channels()?,
        certificate: seat.certificate,
        providers: Vec::new(),
        policy: seat.policy,
        base_url: seat.base_url.to_owned(),
        tuning: seat.tuning,
        background,
        clock: MachineClock::clock(),
    };
    Controller::start(options, shutdown.clone())
        .await
        .map_err(|refusal| not_started(*refusal))
}

/// A refusal during a controller's start.
pub(super) fn not_started(refusal: Refusal) -> anyhow::Error {
    let refusal = Rejection {
        code: refusal.code,
        message: refusal.message,
        hint: refusal.hint,
        field: refusal.field,
    };
    anyhow::Error::new(refusal).context("cannot start the controller")
}

/// Makes the operator a user and leaves a token for the command line; an existing one stays.
pub(super) async fn write_token(
    directory: &Path,
    controller: &Controller,
    operator: (&OwnerName, &SecretKey),
    url: &str,
) -> Result<()> {
    let roles = [Role::Developer, Role::Peer].into_iter().collect();
    let refused = |refusal| anyhow!("the operator's account: {refusal}");
    let account = controller
        .adopt(operator.0.clone(), operator.1, (roles, true))
        .await
        .map_err(refused)?;
    write_private(&directory.join("url"), url)?;
    let path = directory.join("token");
    if !path.exists() {
        let token = controller
            .issue_token(account, "the operator's, written at the first start")
            .await
            .map_err(refused)?;
        write_private(&path, &token)?;
    }
    Ok(())
}

impl Lone {
    /// Serves until `stop` resolves; then lets running work end.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<()> {
        let Self {
            controller,
            explorer,
            door,
            renewal,
            shutdown,
            chain,
            ..
        } = self;
        let mut serving = tokio::spawn(controller.serve(door, explorer.routes()));
        if let Some(renewal) = renewal {
            renewal.start(shutdown.clone());
        }
        tokio::select! {
            () = stop => {}
            ended = &mut serving => {
                ended.context("the server panicked")??;
                bail!("the server ended by itself");
            }
        }
        shutdown.cancel();
        serving.await.context("the server panicked")??;
        drop(chain);
        Ok(())
    }
}
