//! The ledger alone: peers as processes with real TCP between them, and what becomes final how fast.
//!
//! All peers share this machine's cores, which peers of a network do not, and so does the generator. Load comes in through
//! all of them, signed before.

mod network;
pub mod peer;
mod proofs;
mod rounds;
mod signed;

use std::{fmt, path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::report::{self, Machine};
use network::Network;
use proofs::Proofs;
use rounds::{Lanes, Settlements, Throughput, Waits};

/// Peers of one network on this machine, and what is asked of them.
#[derive(Clone, Debug, Args)]
pub struct LedgerOptions {
    /// Peers of the network.
    #[arg(long, default_value_t = 4)]
    pub peers: usize,
    /// Seconds of load at the given rate.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Transactions per second for the time from submission to final.
    #[arg(long, default_value_t = 1_000)]
    pub rate: u64,
    /// A short round: shows that it works, measures little.
    #[arg(long)]
    pub quick: bool,
    /// Where the raw numbers go.
    #[arg(long, default_value = "bench-results")]
    pub results: PathBuf,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    began_at: u64,
    machine: Machine,
    peers: usize,
    /// Of one peer before any load.
    rest_mib: f64,
    loaded_mib: f64,
    waits: Waits,
    transfers: Throughput,
    settlements: Vec<Settlements>,
    /// One developer that settles with 100 providers at once.
    one_developer: Throughput,
    /// 100 developers with a provider each.
    hundred_developers: Throughput,
    /// Of a settlement of a thousand jobs that came alone in its block.
    job_proofs: Proofs,
    /// The same in a block with others.
    crowded_proofs: Proofs,
    account_proofs: Proofs,
}

/// Runs a network, measures it, prints the table and writes the raw numbers; everything else is removed afterwards.
pub fn measure(options: &LedgerOptions) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let figures = runtime.block_on(run(options))?;
    println!("{figures}");
    let name = format!("ledger-{}", figures.began_at);
    println!(
        "raw: {}",
        report::write_json(&options.results, &name, &figures)?.display()
    );
    Ok(())
}

async fn run(options: &LedgerOptions) -> Result<Figures> {
    let (began_at, machine) = (report::now(), Machine::read());
    let network = Network::start(options.peers).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let rest_mib = network.memory_mib();
    let short = |quick: u64, full: u64| if options.quick { quick } else { full };
    note("at a steady rate");
    let waits = rounds::open_loop(&network, options.rate, short(2, options.seconds)).await?;
    note("transfers");
    let transfers = rounds::transfers(&network, short(20, 300)).await?;
    let mut settlements = Vec::new();
    for (at, (jobs_each, jobs)) in [(1, 1_000), (10, 8_000), (100, 60_000), (1_000, 200_000)]
        .into_iter()
        .enumerate()
    {
        note(&format!("settlements of {jobs_each}"));
        let jobs = jobs / short(10, 1);
        settlements.push(rounds::settlements(&network, 502 + at as u32, jobs_each, jobs).await?);
    }
    note("many providers");
    let one_developer = rounds::many_lanes(&network, Lanes::OneDeveloper, short(1, 5)).await?;
    let hundred_developers = rounds::many_lanes(&network, Lanes::OneEach, short(1, 5)).await?;
    note("proofs");
    let (job_proofs, crowded_proofs) = proofs::jobs(&network, short(20, 200) as usize).await?;
    let account_proofs = proofs::accounts(&network, short(20, 200) as usize).await?;
    let loaded_mib = network.memory_mib();
    let peers = network.count();
    network.stop().await?;
    Ok(Figures {
        began_at,
        machine,
        peers,
        rest_mib,
        loaded_mib,
        waits,
        transfers,
        settlements,
        one_developer,
        hundred_developers,
        job_proofs,
        crowded_proofs,
        account_proofs,
    })
}

fn note(round: &str) {
    eprintln!("ledger: {round}");
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waits = &self.waits;
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "\na ledger of {} peers, each a process, on this machine", self.peers)?;
        let mut row = |name: &str, value: String| writeln!(f, "{name:<44}{value}");
        row(
            &format!("submit to final at {:.0} of {}/s", waits.rate_reached, waits.rate_asked),
            format!(
                "p50 {:.1} ms, p99 {:.1} ms ({:.0} % of a core, {:.0} blocks/s)",
                waits.p50_ms,
                waits.p99_ms,
                100.0 * waits.cpu_share,
                waits.blocks_per_s
            ),
        )?;
        row("transfers", throughput(&self.transfers))?;
        for size in &self.settlements {
            row(
                &format!("jobs in settlements of {}", size.jobs_each),
                format!(
                    "{:.0}/s in {} blocks, {:.0} us of CPU and {:.0} bytes each",
                    size.jobs_per_s, size.blocks, size.cpu_us_per_job, size.bytes_per_job
                ),
            )?;
        }
        row(
            "jobs of one developer at 100 providers",
            throughput(&self.one_developer),
        )?;
        row(
            "jobs of 100 developers at 100 providers",
            throughput(&self.hundred_developers),
        )?;
        let crowd = self.crowded_proofs.transactions;
        row("proof of a job of 1000, made and checked", in_words(&self.job_proofs))?;
        row(
            &format!("the same in a block of {crowd}"),
            in_words(&self.crowded_proofs),
        )?;
        row("proof of a balance, made and checked", in_words(&self.account_proofs))?;
        row(
            "memory of a peer",
            format!(
                "{:.0} MiB at rest, {:.0} MiB after all this",
                self.rest_mib, self.loaded_mib
            ),
        )
    }
}

fn throughput(done: &Throughput) -> String {
    format!(
        "{:.0}/s in {} blocks, {:.0} us of CPU each",
        done.per_s, done.blocks, done.cpu_us_each
    )
}

fn in_words(proven: &Proofs) -> String {
    format!(
        "p50 {:.1} ms, max {:.1} ms (the check {:.2} ms), at most {} bytes",
        proven.p50_ms, proven.max_ms, proven.check_p50_ms, proven.bytes_max
    )
}
