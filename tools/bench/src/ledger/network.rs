//! A network of peers on this machine, each a process, and what the machine says of them.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use piecework_ledger::Genesis;
use piecework_loopback::free_addresses;
use piecework_model::NetworkId;
use tempfile::TempDir;

use super::{peer::Peer, signed};
use crate::tree::Tree;

/// Where in a peer's directory the engine keeps what it needs for a while only: votes, and blocks that are not final.
const PASSING: [&str; 2] = ["simplex-", "marshal"];
const LONG: Duration = Duration::from_secs(60);

pub struct Network {
    pub id: NetworkId,
    pub genesis: Genesis,
    peers: Vec<Peer>,
    directories: Vec<TempDir>,
}

impl Network {
    /// Resolves once each peer has made a transaction final: all are connected.
    pub async fn start(count: usize) -> Result<Self> {
        ensure!((1..=64).contains(&count), "one to 64 peers fit on a machine");
        let addresses = free_addresses(count)?;
        let directories: Vec<TempDir> = (0..count).map(|_| TempDir::new()).collect::<Result<_, _>>()?;
        let peers = directories
            .iter()
            .enumerate()
            .map(|(number, directory)| Peer::start(directory.path(), number, &addresses))
            .collect::<Result<_>>()?;
        let genesis = signed::genesis(&addresses)?;
        let network = Self {
            id: genesis.network_id(),
            genesis,
            peers,
            directories,
        };
        for number in 0..count {
            // A sender of its own: a peer may not have seen the block before yet.
            let transaction = signed::transfer(&network.id, 1 + number as u32, 0, 0);
            network
                .peer(number)
                .one(transaction)
                .await
                .context("a first transaction")?;
        }
        Ok(network)
    }

    pub fn count(&self) -> usize {
        self.peers.len()
    }

    pub fn peer(&self, number: usize) -> &Peer {
        &self.peers[number % self.peers.len()]
    }

    /// Waits until every peer has published that block.
    pub async fn reach(&self, height: u64) -> Result<()> {
        let all = self.peers.iter().map(|peer| async move {
            while peer.height().await? < height {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            anyhow::Ok(())
        });
        tokio::time::timeout(LONG, try_join_all(all))
            .await
            .context("the peers agree")??;
        Ok(())
    }

    /// Of the peer that uses most, in MiB.
    pub fn memory_mib(&self) -> f64 {
        self.peers
            .iter()
            .filter_map(|peer| resident_mib(peer.pid()?))
            .fold(0.0, f64::max)
    }

    /// Seconds of processor time of all peers together.
    pub fn cpu_s(&self) -> f64 {
        let times = self.peers.iter().filter_map(|peer| Tree(peer.pid()?).cpu().ok());
        times.map(|time| time.as_secs_f64()).sum()
    }

    /// What one peer keeps for good: blocks, certificates, state.
    pub fn kept_bytes(&self) -> u64 {
        let data = self.directories[0].path().join("chain");
        let entries = fs::read_dir(data).into_iter().flatten().flatten();
        entries
            .filter(|entry| {
                let name = entry.file_name();
                !PASSING.iter().any(|part| name.to_string_lossy().starts_with(part))
            })
            .map(|entry| disk_bytes(&entry.path()))
            .sum()
    }

    pub async fn stop(self) -> Result<()> {
        try_join_all(self.peers.into_iter().map(Peer::stop)).await?;
        Ok(())
    }
}

fn resident_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Files of the engine come and go while this looks.
fn disk_bytes(path: &Path) -> u64 {
    let Ok(metadata) = fs::metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| disk_bytes(&entry.path())).sum()
}
