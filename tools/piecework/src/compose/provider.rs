//! This machine as a provider: what it asks for, what it offers.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use piecework_blobs::Unpacked;
use piecework_chain::Chain;
use piecework_disk::{Marks, Room};
use piecework_image::Layers;
use piecework_ledger::{Action, Key, SignedTransaction, Transaction, Value};
use piecework_model::{AccountId, EgressPolicy, NetworkId, Prices, PublicKey, SecretKey};
use piecework_provider::{Provider, collect::Collector, owner::Rules};
use piecework_sandbox::{Backend, Probe};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    containers::{Probing, microvm},
    sandboxes::backends,
};
use crate::places;

/// One credit is about one core-hour: 10^6 ucr / 3600 s = 278 ucr a core-second; a GiB-second is an eighth of that.
const PRICES: Prices = Prices {
    start_ucr: 1,
    cpu_ucr_per_s: 278,
    memory_ucr_per_gib_s: 35,
    egress_ucr_per_mib: 10,
};

/// Where layers of container images are unpacked. They share the room with bundles, half and half.
pub(super) const LAYERS: &str = "layers";

/// Unpacked bundles on disk, unless there is less room; the longest unused go first.
const UNPACKED_BYTES_MAX: u64 = 8 << 30;

/// What is offered of a disk goes in steps, so that it does not change with every file on it.
const DISK_STEP: u64 = 64 << 20;
/// And on the smallest ones in these.
const SMALL_DISK_STEP: u64 = 1 << 20;

/// An idle instance stays for ten minutes: waiting costs a provider memory, starting anew costs a caller time.
const INSTANCE_IDLE: Duration = Duration::from_secs(600);

/// A share of the machine's memory for idle instances: 1/8.
const IDLE_MEMORY_SHARE: u64 = 8;

/// Runs at once, for each core: most of them wait for something.
const SLOTS_PER_CORE: u32 = 64;

/// What a provider gives, and what it asks for.
#[derive(Clone, Debug)]
pub struct Terms {
    pub name: String,
    pub region: String,
    pub labels: Vec<String>,
    pub prices: Prices,
    pub cores: u32,
    /// For all sandboxes together.
    pub memory_bytes: u64,
    pub slots: u32,
    /// Where functions with an allow list may go from here; nowhere if none.
    pub egress: Option<EgressPolicy>,
    /// When jobs may run.
    pub rules: Rules,
    /// A control group whose load alone is the owner's.
    pub owner_group: Option<PathBuf>,
    /// Bundles kept unpacked, where there is so much room; the longest unused go first.
    pub disk_bytes: u64,
    /// Whose jobs cost nothing here.
    pub free_for: Option<AccountId>,
}

impl Terms {
    /// All of this machine, at the usual prices.
    pub fn whole_machine(name: &str, region: &str) -> Self {
        let cores =
            std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
        Self {
            name: name.to_owned(),
            region: region.to_owned(),
            labels: Vec::new(),
            prices: PRICES,
            cores,
            memory_bytes: piecework_provider::guest_bytes(places::memory_bytes()),
            slots: cores.saturating_mul(SLOTS_PER_CORE),
            egress: None,
            rules: Rules::default(),
            owner_group: None,
            disk_bytes: UNPACKED_BYTES_MAX,
            free_for: None,
        }
    }
}

impl Terms {
    /// The same with no more disk than there is room for below `directory`, what `unpacked` holds there counted in.
    pub(super) fn with_room(self, directory: &Path, unpacked: &Path) -> Result<Self> {
        let disk = rustix::fs::statvfs(directory).context("cannot read the free disk space")?;
        let reserve = Marks::of(disk.f_blocks.saturating_mul(disk.f_frsize)).reserve_bytes;
        let room = disk
            .f_bavail
            .saturating_mul(disk.f_frsize)
            .saturating_add(held(unpacked))
            .saturating_add(held(&directory.join(LAYERS)))
            .saturating_sub(reserve);
        let step = if room < DISK_STEP { SMALL_DISK_STEP } else { DISK_STEP };
        let disk_bytes = self.disk_bytes.min((room - room % step).max(SMALL_DISK_STEP));
        Ok(Self { disk_bytes, ..self })
    }
}

/// What the files below a directory take; those that cannot be looked at take nothing.
fn held(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    const BLOCK: u64 = 512;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => held(&entry.path()),
        Ok(found) => found.blocks().saturating_mul(BLOCK),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

/// The key that signs receipts, whose tickets are taken, and where things are kept.
pub(super) struct Seat<'a> {
    pub(super) key: &'a SecretKey,
    pub(super) network: NetworkId,
    pub(super) payers: HashSet<PublicKey>,
    pub(super) journal: PathBuf,
    /// Where what it earns is summed up, if somebody may ask for it.
    pub(super) earned: Option<PathBuf>,
    pub(super) collector: Arc<Collector>,
    pub(super) bundles: Unpacked,
    pub(super) layers: Option<Layers>,
    pub(super) disk: Arc<dyn Room>,
}

/// A provider on the sandboxes that work here; fails where none does.
pub(super) async fn start_provider(
    seat: Seat<'_>,
    terms: Terms,
    tested: Tested,
    shutdown: &CancellationToken,
) -> Result<Arc<Provider>> {
    let (working, probes) = tested.await.context("testing the sandboxes panicked")??;
    let options = piecework_provider::Options {
        account: AccountId::of(&seat.key.public()),
        key: seat.key.clone(),
        network: seat.network,
        name: terms.name,
        prices: terms.prices,
        region: terms.region,
        labels: terms.labels,
        cores: terms.cores,
        memory_bytes: terms.memory_bytes,
        slots: terms.slots,
        idle: INSTANCE_IDLE,
        idle_bytes_max: terms.memory_bytes / IDLE_MEMORY_SHARE,
        backends: working,
        probes,
        egress: terms.egress,
        free_for: terms.free_for,
        bundles: seat.bundles,
        layers: seat.layers,
        journal: seat.journal,
        earned: seat.earned,
        payers: seat.payers,
        collector: Some(seat.collector),
        disk: seat.disk,
        rules: terms.rules,
        owner_group: terms.owner_group,
    };
    Provider::start(options, shutdown.clone()).context("cannot open the provider's journal")
}

/// The sandboxes that work here, and what all probes saw; not tested any further once nobody waits for it.
pub(super) type Tested = AbortOnDropHandle<Result<(Vec<Arc<dyn Backend>>, Vec<Probe>)>>;

/// Begins to test the sandboxes: a second's work, beside which other things can start.
pub(super) fn test_backends(egress: Option<EgressPolicy>) -> Tested {
    AbortOnDropHandle::new(tokio::spawn(working_backends(egress)))
}

async fn working_backends(egress: Option<EgressPolicy>) -> Result<(Vec<Arc<dyn Backend>>, Vec<Probe>)> {
    let backends = backends(egress, Probing::Remembered).await;
    let working: Vec<_> = backends
        .iter()
        .filter(|(_, probe)| probe.works)
        .map(|(backend, _)| backend.clone())
        .collect();
    if working.is_empty() {
        bail!("no sandbox works here; run `piecework doctor` to see why");
    }
    let probes = backends.into_iter().map(|(_, probe)| probe).chain([microvm()]);
    Ok((working, probes.collect()))
}

/// The provider's offer on the ledger, unless it stands there as it is.
pub(super) async fn put_offer(chain: &dyn Chain, key: &SecretKey, provider: &Provider, disk_bytes: u64) -> Result<()> {
    use piecework_queue::ProviderLink as _;
    let profile = provider.profile();
    let wanted = piecework_provider::agent::offer(profile, disk_bytes, chain.status().height);
    if let Some(Value::Offer(stands)) = chain.get(&Key::Offer(profile.account)).await?
        && (stands.prices, stands.resources, &stands.backends) == (wanted.prices, wanted.resources, &wanted.backends)
    {
        return Ok(());
    }
    let Some(Value::Account(account)) = chain.get(&Key::Account(profile.account)).await? else {
        bail!("the provider's account is not on the ledger; was the genesis file changed?");
    };
    let action = Action::PutOffer(wanted);
    let transaction = Transaction {
        sender: profile.account,
        nonce: account.nonce,
        action,
    };
    let signed = SignedTransaction::sign(transaction, key, &chain.network());
    chain
        .submit_and_wait(signed)
        .await
        .context("the provider's offer was refused")?;
    Ok(())
}
