//! The round of proofs: a peer's process makes them, this one checks them, with the genesis and nothing else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::{try_join, try_join_all};
use piecework_ledger::{Action, SignedTransaction};
use piecework_model::JobId;
use piecework_proof::{Anchor, Proof};
use serde::Serialize;

use super::{
    network::Network,
    rounds::{open, percentile},
    signed,
};

/// Jobs of one settlement: as many as there may be, so that the paths are as long as they get there.
const JOBS: u64 = 1_000;
const DEVELOPER: u32 = 506;
const PROVIDER: u32 = 516;
/// From here on accounts that no other round sends from, a hundred of them.
const FIRST_SENDER: u32 = 400;
const SENDERS: u32 = 100;

/// What it takes to prove one thing to who holds the genesis alone.
#[derive(Clone, Debug, Serialize)]
pub struct Proofs {
    /// In the block that it is about; 0 where it is of a state.
    pub transactions: u64,
    pub proofs: usize,
    /// Of the longest.
    pub bytes_max: usize,
    /// From the question to a peer's process until its answer is checked.
    pub p50_ms: f64,
    pub max_ms: f64,
    /// The check alone.
    pub check_p50_ms: f64,
}

/// Of single jobs: of a settlement that came alone, and of one that came with a crowd.
pub async fn jobs(network: &Network, count: usize) -> Result<(Proofs, Proofs)> {
    let lease = open(network, &[DEVELOPER]).await?[0];
    let settle = |provider| signed::settle(&network.id, lease, DEVELOPER, provider, 0, JOBS);
    let alone = settle(PROVIDER);
    let height = network.peer(0).one(alone.clone()).await?;
    let quiet = prove_jobs(network, &alone, height, count).await?;

    let crowded = settle(PROVIDER + 1);
    let crowd = (0..SENDERS).map(|sender| signed::transfer(&network.id, FIRST_SENDER + sender, 0, 3));
    let all = try_join_all(crowd.map(|transfer| network.peer(0).one(transfer)));
    let (_, height) = try_join(all, network.peer(0).one(crowded.clone())).await?;
    Ok((quiet, prove_jobs(network, &crowded, height, count).await?))
}

async fn prove_jobs(network: &Network, settled: &SignedTransaction, height: u64, count: usize) -> Result<Proofs> {
    network.reach(height).await?;
    let Action::Settle(settle) = &settled.transaction.action else {
        bail!("a settlement settles");
    };
    let step = (settle.jobs.len() / count.max(1)).max(1);
    let mut timed = Timed::default();
    for (at, job) in settle.jobs.iter().step_by(step).enumerate() {
        let began = Instant::now();
        let bytes = network.peer(at).job_proof(job.job, height).await?;
        let asked = began.elapsed();
        let entries = check_job(network, &bytes, job.job).context("a job's proof")?;
        timed.add(asked, began.elapsed(), bytes.len());
        if entries == 0 {
            bail!("the proof does not say that job {} was paid", job.job);
        }
    }
    let transactions = network.peer(0).transactions(height).await?;
    Ok(timed.figures(transactions))
}

/// How many of the blocks in it paid the job.
fn check_job(network: &Network, bytes: &[u8], job: JobId) -> Result<usize> {
    let Proof::Job(proof) = Proof::from_bytes(bytes)? else {
        bail!("another proof than was asked for");
    };
    let proven = proof.verify(Anchor::genesis(&network.genesis), job)?;
    Ok(proven
        .entries
        .iter()
        .filter(|proven| proven.entry.paid().is_some())
        .count())
}

/// Of balances, at the head.
pub async fn accounts(network: &Network, count: usize) -> Result<Proofs> {
    let mut timed = Timed::default();
    for number in 0..count {
        let account = signed::account(number as u32);
        let began = Instant::now();
        let bytes = network.peer(number).account_proof(account).await?;
        let asked = began.elapsed();
        let Proof::Value(proof) = Proof::from_bytes(&bytes)? else {
            bail!("another proof than was asked for");
        };
        proof
            .verify(Anchor::genesis(&network.genesis))
            .context("an account's proof")?;
        timed.add(asked, began.elapsed(), bytes.len());
        if proof.account().map(|(id, _)| id) != Some(account) {
            bail!("the proof is of another account");
        }
    }
    Ok(timed.figures(0))
}

#[derive(Default)]
struct Timed {
    whole: Vec<Duration>,
    checks: Vec<Duration>,
    bytes_max: usize,
}

impl Timed {
    fn add(&mut self, asked: Duration, whole: Duration, bytes: usize) {
        self.whole.push(whole);
        self.checks.push(whole.saturating_sub(asked));
        self.bytes_max = self.bytes_max.max(bytes);
    }

    fn figures(mut self, transactions: u64) -> Proofs {
        self.whole.sort();
        self.checks.sort();
        Proofs {
            transactions,
            proofs: self.whole.len(),
            bytes_max: self.bytes_max,
            p50_ms: percentile(&self.whole, 0.5),
            max_ms: percentile(&self.whole, 1.0),
            check_p50_ms: percentile(&self.checks, 0.5),
        }
    }
}
