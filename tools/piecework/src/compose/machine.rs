//! `piecework up`: controller, peer and provider in one process on one directory.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use piecework_blobs::{Files, Unpacked};
use piecework_controller::{Controller, MachineClock, Tuning};
use piecework_model::{AccountId, EgressPolicy, Network};
use piecework_packages::Packages;
use piecework_peer::{caretaker, http::Explorer};
use piecework_queue::ProviderLink;
use piecework_scheduler::Policy;
use piecework_serve::Door;
use piecework_store::Sqlite;
use tokio_util::sync::CancellationToken;

use super::{
    acme::Renewal,
    background::Background,
    collecting::{Collecting, by_own_peer},
    controller::{courier, not_started, write_token},
    disk,
    files::{Keys, lock, make_private, refuse_foreign},
    first, formats,
    ledger::{explorer, start_peer},
    listen::{front_door, listen},
    portal,
    provider::{LAYERS, Seat, Terms, put_offer, start_provider, test_backends},
    sandboxes,
};
use crate::{
    places,
    settings::{AcmeSettings, AlertSettings, TlsSettings},
};

/// What one machine runs.
pub struct Machine {
    controller: Arc<Controller>,
    explorer: Arc<Explorer>,
    peer: piecework_peer::Handle,
    /// Apart from the others': the controller's last settlement needs the ledger.
    peer_shutdown: CancellationToken,
    pub url: String,
    door: Door,
    renewal: Option<Renewal>,
    shutdown: CancellationToken,
    /// Of the provider, if there is one.
    collecting: Option<Collecting>,
    _background: Background,
    _lock: fs::File,
}

/// What `up` was told.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    /// Base of the links that are given out; the listen address if none.
    pub url: Option<String>,
    /// The certificate of HTTPS; HTTP if none.
    pub tls: Option<TlsSettings>,
    /// Whether the certificate is obtained by itself.
    pub acme: Option<AcmeSettings>,
    /// Whether this machine runs jobs itself, or only others that link to it.
    pub provides: bool,
    pub policy: Policy,
    /// Where functions with an allow list may go; nowhere if none.
    pub egress: Option<EgressPolicy>,
    /// Private networks that results may be sent to.
    pub results_to: Vec<Network>,
    /// Reverse proxies in front of this machine.
    pub proxies: Vec<IpAddr>,
    /// How the operator is told what is wrong.
    pub alerts: AlertSettings,
}

/// Controller, peer and provider on `directory`. `say` is told what takes time.
pub async fn machine(directory: &Path, settings: Settings, say: &dyn Fn(&str)) -> Result<Machine> {
    formats::check(directory)?;
    refuse_foreign(directory)?;
    make_private(directory)?;
    first::come_first();
    let lock = lock(directory)?;
    let listener = listen(settings.listen, "--listen").await?;
    let address = listener.local_addr()?;
    let certificate = (settings.tls.as_ref(), settings.acme.as_ref());
    let (door, own_url, renewal) = front_door(listener, directory, certificate)?;
    // A certificate is of the public name.
    let is_https = settings.tls.is_some() || settings.acme.is_some();
    let url = match &settings.url {
        Some(public) if is_https => public.clone(),
        Some(_) | None => own_url,
    };
    let shutdown = CancellationToken::new();
    let keys = Keys::load_or_create(directory)?;
    let background = Background::start()?;
    let tested = settings.provides.then(|| test_backends(settings.egress.clone()));
    say("starting the ledger");
    let peer_shutdown = CancellationToken::new();
    let peer = start_peer(&directory.join("peer"), &keys, &background, peer_shutdown.clone()).await?;
    let chain = peer.chain();
    let disk = disk::watch(directory)?;
    let store = Sqlite::open(disk::store_options(directory, &disk))
        .await
        .context("cannot open the store")?;
    // Code is its owner's affair, whoever made the data directory and with what rights.
    make_private(&directory.join("blobs"))?;
    make_private(&directory.join("unpacked"))?;
    let blobs = Arc::new(Files::open(directory.join("blobs")).context("cannot open the directory of bundles")?);
    let unpacked = directory.join("unpacked");
    let terms = Terms {
        egress: settings.egress,
        ..Terms::whole_machine("provider", "local").with_room(directory, &unpacked)?
    };
    let half = terms.disk_bytes / 2;
    let unpacked = Unpacked::open(unpacked, blobs.clone(), half)?;
    make_private(&directory.join(LAYERS))?;
    let layers = sandboxes::layers(directory.join(LAYERS), blobs.clone(), half)?;
    let mut providers: Vec<Arc<dyn ProviderLink>> = Vec::new();
    let mut collecting = None;
    if let Some(tested) = tested {
        say("testing the sandboxes (up to a minute the first time, while the interpreters are compiled)");
        let collects = Collecting::start(&keys.provider, by_own_peer(&chain, directory.join("papers")), &shutdown)?;
        let seat = Seat {
            key: &keys.provider,
            network: chain.network(),
            collector: collects.collector.clone(),
            payers: HashSet::from([keys.controller.public()]),
            journal: directory.join("begun"),
            earned: None,
            bundles: unpacked,
            layers,
            disk: disk.clone(),
        };
        let disk_bytes = terms.disk_bytes;
        let provider = start_provider(seat, terms, tested, &shutdown).await?;
        put_offer(&*chain, &keys.provider, &provider, disk_bytes).await?;
        providers.push(provider);
        collecting = Some(collects);
    }
    say("starting the controller");
    let controller = Controller::start(
        piecework_controller::Options {
            key: keys.controller.clone(),
            account: AccountId::of(&keys.controller.public()),
            operator: AccountId::of(&keys.operator.public()),
            chain,
            store,
            blobs,
            disk,
            packages: Arc::new(Packages::new(places::package_options(), sandboxes::package_jails())),
            typescript: Arc::new(sandboxes::typescript()),
            portal: portal::FILES,
            sinks: Arc::new(courier(settings.results_to)?),
            alerts: settings.alerts.channels()?,
            certificate: renewal.as_ref().map(Renewal::trouble),
            providers,
            policy: settings.policy,
            base_url: settings.url.unwrap_or_else(|| reachable(&url, address)),
            tuning: Tuning {
                proxies: settings.proxies,
                ..Tuning::default()
            },
            background: background.handle(),
            clock: MachineClock::clock(),
        },
        shutdown.clone(),
    )
    .await
    .map_err(|refusal| not_started(*refusal))?;
    write_token(directory, &controller, (&"operator".parse()?, &keys.operator), &url).await?;
    let explorer = explorer(&peer, &shutdown);
    explorer.expire_leases(keys.controller.clone());
    let payout = caretaker::Payout {
        owner: "operator".parse()?,
        key: keys.operator.clone(),
        least: caretaker::LEAST,
        every: caretaker::EVERY,
    };
    tokio::spawn(caretaker::pay_out(peer.chain(), payout, shutdown.clone()));
    Ok(Machine {
        explorer,
        controller,
        peer,
        peer_shutdown,
        url,
        door,
        renewal,
        shutdown,
        collecting,
        _background: background,
        _lock: lock,
    })
}

/// A link to `0.0.0.0` leads nowhere: this machine's name in its place.
fn reachable(url: &str, address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => url
            .replace(&address.ip().to_string(), &places::host_name())
            .replace(['[', ']'], ""),
        false => url.to_owned(),
    }
}

impl Machine {
    /// Serves until `stop` resolves or the ledger fails; then lets running work end.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<()> {
        let Self {
            controller,
            explorer,
            peer,
            peer_shutdown,
            door,
            renewal,
            shutdown,
            collecting,
            ..
        } = self;
        let mut serving = tokio::spawn(controller.serve(door, explorer.routes()));
        if let Some(renewal) = renewal {
            renewal.start(shutdown.clone());
        }
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
        if let Some(collecting) = collecting {
            collecting.ended().await?;
        }
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
