//! The rounds of the ledger's bench: each brings its load through all peers and returns when the last of it is final.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::{join_all, try_join_all};
use piecework_ledger::SignedTransaction;
use piecework_model::LeaseId;
use serde::Serialize;
use tokio::time::{Instant as Tick, sleep_until};

use super::{network::Network, signed};

const PROVIDERS: u32 = 100;

/// How long a transaction takes to become final at a steady rate. From the moment that it was due, so a peer that falls
/// behind cannot hide it.
#[derive(Clone, Debug, Serialize)]
pub struct Waits {
    pub rate_asked: u64,
    pub rate_reached: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Of all peers together, of one core.
    pub cpu_share: f64,
    pub blocks_per_s: f64,
}

pub async fn open_loop(network: &Network, rate: u64, seconds: u64) -> Result<Waits> {
    const SENDERS: u64 = 200;
    let count = rate * seconds;
    let transactions: Vec<SignedTransaction> = (0..count)
        .map(|at| signed::transfer(&network.id, 10 + (at % SENDERS) as u32, at / SENDERS, 3))
        .collect();
    let from = network.peer(0).height().await?;
    let (began, cpu) = (Tick::now(), network.cpu_s());
    let sent = transactions
        .into_iter()
        .enumerate()
        .map(|(at, transaction)| async move {
            let due = began + Duration::from_secs_f64(at as f64 / rate as f64);
            sleep_until(due).await;
            // A sender keeps to one peer, so that its nonces arrive in order.
            network.peer(at % SENDERS as usize).one(transaction).await?;
            anyhow::Ok((due.elapsed(), Tick::now()))
        });
    let mut times = Vec::with_capacity(count as usize);
    let mut last = began;
    for answer in join_all(sent).await {
        let (took, at) = answer.context("a transfer of the open loop")?;
        times.push(took);
        last = last.max(at);
    }
    times.sort();
    let elapsed = (last - began).as_secs_f64();
    let cpu_s = network.cpu_s() - cpu;
    let blocks = network.peer(0).height().await?.saturating_sub(from);
    Ok(Waits {
        rate_asked: rate,
        rate_reached: count as f64 / elapsed,
        p50_ms: percentile(&times, 0.5),
        p99_ms: percentile(&times, 0.99),
        cpu_share: cpu_s / elapsed,
        blocks_per_s: blocks as f64 / elapsed,
    })
}

/// As many as the peers take.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    pub per_s: f64,
    pub blocks: u64,
    /// Processor time of all peers together for one.
    pub cpu_us_each: f64,
}

/// Brings the transactions of each lane in order, all lanes at once.
async fn saturate(network: &Network, lanes: Vec<Vec<SignedTransaction>>, items: u64) -> Result<Throughput> {
    let (from, cpu) = (network.peer(0).height().await?, network.cpu_s());
    let began = Instant::now();
    let lanes = lanes.into_iter().enumerate();
    let last = try_join_all(lanes.map(|(lane, transactions)| network.peer(lane).many(transactions))).await?;
    let took = began.elapsed().as_secs_f64();
    Ok(Throughput {
        per_s: items as f64 / took,
        blocks: last.into_iter().max().unwrap_or(from) - from,
        cpu_us_each: (network.cpu_s() - cpu) * 1e6 / items as f64,
    })
}

pub async fn transfers(network: &Network, each: u64) -> Result<Throughput> {
    const SENDERS: u32 = 100;
    let sender = |sender: u32| (0..each).map(move |nonce| (300 + sender, nonce));
    let lanes = (0..SENDERS).map(|number| {
        sender(number)
            .map(|(from, nonce)| signed::transfer(&network.id, from, nonce, 3))
            .collect()
    });
    saturate(network, lanes.collect(), u64::from(SENDERS) * each).await
}

/// Settlements of one size.
#[derive(Clone, Debug, Serialize)]
pub struct Settlements {
    pub jobs_each: u64,
    pub jobs: u64,
    pub jobs_per_s: f64,
    pub blocks: u64,
    pub cpu_us_per_job: f64,
    /// On one peer's disk: blocks with transactions and outcomes, certificates, state.
    pub bytes_per_job: f64,
}

/// Jobs through four lanes of one lease; `developer` has no lease yet.
pub async fn settlements(network: &Network, developer: u32, jobs_each: u64, jobs: u64) -> Result<Settlements> {
    const LANES: u32 = 4;
    let lease = open(network, &[developer]).await?[0];
    let batches = jobs.div_ceil(u64::from(LANES) * jobs_each);
    let lanes = (0..LANES).map(|lane| {
        let batch = |batch| {
            let from = batch * jobs_each;
            signed::settle(&network.id, lease, developer, 510 + lane, from, jobs_each)
        };
        (0..batches).map(batch).collect()
    });
    let jobs = u64::from(LANES) * batches * jobs_each;
    let lanes = lanes.collect();
    let kept = network.kept_bytes();
    let done = saturate(network, lanes, jobs).await?;
    network.reach(network.peer(0).height().await?).await?;
    let grown = network.kept_bytes().saturating_sub(kept);
    Ok(Settlements {
        jobs_each,
        jobs,
        jobs_per_s: done.per_s,
        blocks: done.blocks,
        cpu_us_per_job: done.cpu_us_each,
        bytes_per_job: grown as f64 / jobs as f64,
    })
}

/// Opens a lease for each developer and waits until every peer knows them.
pub async fn open(network: &Network, developers: &[u32]) -> Result<Vec<LeaseId>> {
    let (leases, opens): (Vec<_>, Vec<_>) = developers
        .iter()
        .map(|developer| signed::open_lease(&network.id, *developer, 0, signed::GRANT / 2))
        .unzip();
    let opened = try_join_all(opens.into_iter().map(|open| network.peer(0).one(open))).await?;
    network.reach(opened.into_iter().max().unwrap_or_default()).await?;
    Ok(leases)
}

/// Who settles with the hundred providers.
#[derive(Clone, Copy, Debug)]
pub enum Lanes {
    OneDeveloper,
    /// The same work without anything shared.
    OneEach,
}

/// Settlements of 100 jobs with each of 100 providers, all at once. Any refusal is an error.
pub async fn many_lanes(network: &Network, lanes: Lanes, batches: u64) -> Result<Throughput> {
    const JOBS: u64 = 100;
    let developers: Vec<u32> = match lanes {
        Lanes::OneDeveloper => vec![501],
        Lanes::OneEach => (600..600 + PROVIDERS).collect(),
    };
    let leases = open(network, &developers).await?;
    let lane = |lane: u32| {
        let at = lane as usize % leases.len();
        let batch = |batch| signed::settle(&network.id, leases[at], developers[at], 700 + lane, batch * JOBS, JOBS);
        (0..batches).map(batch).collect()
    };
    let lanes = (0..PROVIDERS).map(lane).collect();
    saturate(network, lanes, u64::from(PROVIDERS) * batches * JOBS).await
}

pub fn percentile(sorted: &[Duration], share: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(at).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}
