//! Collects what a provider is owed, from its start on, even while no controller answers.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use piecework_chain::Chain;
use piecework_chain_http::remote;
use piecework_ledger::Genesis;
use piecework_model::{AccountId, SecretKey};
use piecework_provider::collect::{Claiming, Collector};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What `provide` takes where nothing is said.
pub const CLAIM_AFTER_S: u32 = Claiming::AFTER.as_secs() as u32;
pub use piecework_provider::leases::WINDOW_BLOCKS_MIN;

pub(super) struct Collecting {
    pub(super) collector: Arc<Collector>,
    task: JoinHandle<()>,
}

impl Collecting {
    /// Until shutdown.
    pub(super) fn start(key: &SecretKey, claiming: Claiming, shutdown: &CancellationToken) -> Result<Self> {
        let collector = Collector::open(key.clone(), AccountId::of(&key.public()), claiming);
        let collector = Arc::new(collector.context("cannot read the receipts of unpaid jobs")?);
        let task = tokio::spawn(collector.clone().run(shutdown.clone()));
        Ok(Self { collector, task })
    }

    /// Returns when what is unpaid is on disk, after shutdown.
    pub(super) async fn ended(self) -> Result<()> {
        self.task.await.context("the provider's collector panicked")
    }
}

/// Claims on the ledger whose peer runs in this process.
pub(super) fn by_own_peer(chain: &Arc<dyn Chain>, papers: PathBuf) -> Claiming {
    let own = chain.clone();
    Claiming {
        network: chain.network(),
        ledger: Arc::new(move || std::future::ready(Ok(own.clone())).boxed()),
        after: Claiming::AFTER,
        window_blocks_min: WINDOW_BLOCKS_MIN,
        papers,
    }
}

/// How long a payer is waited for, and what time its leases must leave.
#[derive(Clone, Copy, Debug)]
pub struct Caution {
    /// A job that is unpaid so long is claimed.
    pub claim_after: Duration,
    /// Jobs of leases with a shorter window are refused.
    pub window_blocks_min: u32,
}

/// Claims through the HTTP APIs of ledger peers.
pub(super) fn by_peers(urls: Vec<String>, genesis: Genesis, caution: Caution, papers: PathBuf) -> Claiming {
    let network = genesis.network_id();
    let options = remote::Options::new(urls, genesis);
    Claiming {
        network,
        ledger: Arc::new(move || remote::connect(options.clone()).boxed()),
        after: caution.claim_after,
        window_blocks_min: caution.window_blocks_min,
        papers,
    }
}
