//! This machine as a provider: what it asks for, what it offers.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use piecework_blobs::Unpacked;
use piecework_chain::Chain;
use piecework_ledger::{Action, Key, PutOffer, Resources, SignedTransaction, Transaction, Value};
use piecework_model::{AccountId, EgressPolicy, Prices, SecretKey};
use piecework_provider::Provider;
use piecework_sandbox::{Backend, Probe};
use tokio_util::sync::CancellationToken;

use super::files::Keys;
use crate::places;

/// One credit is about one core-hour: 10^6 ucr / 3600 s = 278 ucr a core-second; a GiB-second is an eighth of that.
const PRICES: Prices = Prices {
    start_ucr: 1,
    cpu_ucr_per_s: 278,
    memory_ucr_per_gib_s: 35,
    egress_ucr_per_mib: 10,
};

/// Unpacked bundles on disk; the longest unused go first.
pub(super) const UNPACKED_BYTES_MAX: u64 = 8 << 30;

/// An idle instance stays for ten minutes: waiting costs a provider memory, starting anew costs a caller time.
const INSTANCE_IDLE: Duration = Duration::from_secs(600);

/// A share of the machine's memory for idle instances: 1/8.
const IDLE_MEMORY_SHARE: u64 = 8;

/// Runs at once, for each core: most of them wait for something.
const SLOTS_PER_CORE: u32 = 64;

pub(super) fn start_provider(
    keys: &Keys,
    chain: &dyn Chain,
    (backends, probes): (Vec<Arc<dyn Backend>>, Vec<Probe>),
    egress: Option<EgressPolicy>,
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
            egress,
            bundles,
            payers: HashSet::from([keys.controller.public()]),
        },
        shutdown.clone(),
    )
}

/// Far enough away never to run out.
const OFFER_BLOCKS: u64 = 1 << 40;

/// The provider's offer on the ledger, unless it stands there as it is.
pub(super) async fn put_offer(chain: &dyn Chain, key: &SecretKey, provider: &Provider) -> Result<()> {
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
