//! Measures one peer alone: time to final, transactions and settled jobs per second, memory, what idling costs.
//!
//! `cargo run --release -p piecework-chain-node --example chain_bench [idle seconds] [list]`

#![allow(clippy::unwrap_used)]

#[path = "../tests/node/network/mod.rs"]
mod network;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use network::*;
use piecework_chain::Chain;
use piecework_chain_node::start;

const SETTLED_PER_TRANSACTION: u64 = 500;

fn percentile(sorted: &[Duration], share: f64) -> f64 {
    let at = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[at].as_secs_f64() * 1000.0
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// User and system time of this process.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn disk_bytes(root: &Path) -> u64 {
    fs::read_dir(root)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                disk_bytes(&entry.path())
            } else {
                metadata.len()
            }
        })
        .sum()
}

async fn latency(chain: &dyn Chain) {
    let network = chain.network();
    let mut times = Vec::new();
    for nonce in 0..300 {
        let sent = transfer(&network, 1, nonce, 2, 1);
        let started = Instant::now();
        chain.submit_and_wait(sent).await.unwrap();
        times.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    times.sort();
    println!(
        "submit to final, idle: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        percentile(&times, 1.0)
    );
}

/// Transfers of 100 senders, as many at a time as each sender's pool takes.
async fn transfers(chain: &dyn Chain) {
    let network = chain.network();
    let signed: Vec<Vec<_>> = (10..110)
        .map(|sender| {
            (0..200)
                .map(|nonce| transfer(&network, sender, nonce, sender + 1, 1))
                .collect()
        })
        .collect();
    let count: usize = signed.iter().map(Vec::len).sum();
    let (started, cpu_before) = (Instant::now(), cpu());
    let senders = signed.into_iter().map(|transactions| async move {
        let mut last = None;
        for transaction in transactions {
            last = Some(transaction.clone());
            chain.submit(transaction).await.unwrap();
        }
        chain.submit_and_wait(last.unwrap()).await.unwrap();
    });
    futures::future::join_all(senders).await;
    let took = started.elapsed().as_secs_f64();
    println!(
        "transfers: {:.0}/s ({count} in {took:.2} s, {:.0} µs of CPU each)",
        count as f64 / took,
        (cpu() - cpu_before).as_secs_f64() * 1e6 / count as f64
    );
}

async fn settlements(chain: &dyn Chain) {
    let network = chain.network();
    let (lease, open) = open_lease(&network, 3, 0, GRANT / 2);
    chain.submit_and_wait(open).await.unwrap();
    let signed: Vec<_> = (0..100)
        .map(|batch| {
            settle(
                &network,
                lease,
                3,
                4,
                batch * SETTLED_PER_TRANSACTION,
                SETTLED_PER_TRANSACTION,
            )
        })
        .collect();
    let bytes = borsh::object_length(&signed[0]).unwrap();
    let jobs = signed.len() as u64 * SETTLED_PER_TRANSACTION;
    let started = Instant::now();
    let mut last = None;
    for transaction in signed {
        last = Some(transaction.clone());
        chain.submit(transaction).await.unwrap();
    }
    chain.submit_and_wait(last.unwrap()).await.unwrap();
    let took = started.elapsed().as_secs_f64();
    println!(
        "settled jobs: {:.0}/s ({jobs} in {took:.2} s, {bytes} bytes a settlement)",
        jobs as f64 / took
    );
}

async fn idle(directory: &Path, heartbeat: Duration, seconds: u64) {
    let mut options = options(directory, alone(120));
    options.heartbeat = heartbeat;
    let node = start(options).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (disk, used, height) = (disk_bytes(directory), cpu(), node.chain().status().height);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let share = (cpu() - used).as_secs_f64() / seconds as f64 * 100.0;
    let grown = disk_bytes(directory).saturating_sub(disk) as f64 * 3600.0 / seconds as f64 / (1 << 20) as f64;
    println!(
        "idle, heartbeat {heartbeat:?}: {share:.2} % of a core, disk {grown:.1} MiB/h, {} blocks in {seconds} s, {} MiB resident",
        node.chain().status().height - height,
        resident_mib()
    );
    node.shutdown().await.unwrap();
}

/// What an empty block leaves on disk for good: what the engine keeps only for a while is pruned by then.
async fn empty_blocks(directory: &Path, blocks: u64) {
    let mut options = options(directory, alone(120));
    options.heartbeat = Duration::from_millis(20);
    let node = start(options).await.unwrap();
    let mut follow = node.chain().blocks_from(blocks / 2);
    follow.next().await;
    let before = disk_bytes(directory);
    while follow.next().await.unwrap().height < blocks {}
    let kept = disk_bytes(directory) - before;
    println!("an empty block leaves {} bytes on disk", kept / (blocks - blocks / 2));
    if std::env::args().nth(2).is_some() {
        for entry in fs::read_dir(directory.join("chain")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                println!(
                    "  {:>9} {}",
                    disk_bytes(&path),
                    path.file_name().unwrap().to_string_lossy()
                );
            }
        }
    }
    node.shutdown().await.unwrap();
}

#[tokio::main]
async fn main() {
    let seconds = std::env::args().nth(1).map_or(20, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let node = start(options(directory.path(), alone(120))).await.unwrap();
    println!(
        "start on an empty directory: {:.0} ms, {} MiB resident",
        started.elapsed().as_secs_f64() * 1000.0,
        resident_mib()
    );
    let chain = node.chain();
    latency(&*chain).await;
    transfers(&*chain).await;
    settlements(&*chain).await;
    println!(
        "after the load: {} MiB resident, {} MiB on disk",
        resident_mib(),
        disk_bytes(directory.path()) >> 20
    );
    assert_eq!(supply(&*chain, 120).await, 120 * GRANT);
    node.shutdown().await.unwrap();
    let started = Instant::now();
    let node = start(options(directory.path(), alone(120))).await.unwrap();
    println!(
        "start with that history: {:.0} ms",
        started.elapsed().as_secs_f64() * 1000.0
    );
    node.shutdown().await.unwrap();
    for heartbeat in [Duration::from_secs(1), Duration::from_secs(10)] {
        let directory = tempfile::tempdir().unwrap();
        idle(directory.path(), heartbeat, seconds).await;
    }
    let directory = tempfile::tempdir().unwrap();
    empty_blocks(directory.path(), 2_000).await;
}
