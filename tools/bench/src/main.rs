//! Measures the platform beside floors and peers, in one run.
//!
//! Everything is on: auth, tickets, receipts, metering, limits. The load generator is a closed loop over kept-alive
//! connections in one thread; what counts is the CPU time of the server's processes, not of the generator.

mod attacks;
mod cold;
mod first;
mod floors;
mod http;
mod idle;
mod ledger;
mod load;
mod neighbours;
mod network;
mod receipts;
mod report;
mod sandbox;
mod server;
mod tree;
mod warm;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

use crate::{report::Report, server::Server, warm::Target};

/// Measures `piecework up` beside a bare Node server, bare interpreter starts and peers given by URL.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/piecework")]
    binary: PathBuf,
    /// Seconds of each measurement at saturation.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Requests of each measurement with one connection.
    #[arg(long, default_value_t = 3_000)]
    single: usize,
    /// Connections at saturation.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Rounds; all targets take turns in each, the table shows medians over the rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Fresh functions that are called cold, per language.
    #[arg(long, default_value_t = 50)]
    cold: usize,
    /// Functions that are deployed and left idle (100000 for the full figure).
    #[arg(long, default_value_t = 1_000)]
    idle: usize,
    /// The sandbox to deploy with: auto, wasm, jail.
    #[arg(long, default_value = "auto")]
    sandbox: String,
    /// Something else to measure beside: NAME=URL or NAME=URL,PID for its CPU time. May be repeated.
    #[arg(long = "peer", value_name = "NAME=URL[,PID]")]
    peers: Vec<String>,
    /// Where the raw numbers go.
    #[arg(long, default_value = "bench-results")]
    results: PathBuf,
    /// One short round of everything: shows that it works, measures little.
    #[arg(long)]
    quick: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// Parts that are measured alone.
#[derive(Clone, Debug, clap::Subcommand)]
enum Part {
    /// Peers of a ledger on this machine: time to final, transactions, settled jobs, bytes, memory.
    Ledger(ledger::LedgerOptions),
    /// A controller and providers linked to it: what the link costs, idle links, joining, killed providers.
    Network(network::NetworkOptions),
    /// A victim's calls while a neighbour misbehaves: spins, forks, churns memory, floods its logs, crashes.
    Neighbours(neighbours::NeighboursOptions),
    /// What hostile code gets in each sandbox: files, processes, the network, calls, the next function's data.
    Attacks(attacks::AttacksOptions),
    /// Cold and warm of each sandbox beside the least that each takes: a bare process, interpreter, container.
    Sandbox(sandbox::SandboxOptions),
    /// The first hour: two commands until a function answers, the start of `up`, adapters, the first byte of a stream.
    First(first::FirstOptions),
    /// One of those peers.
    #[command(name = ledger::peer::COMMAND, hide = true)]
    LedgerPeer(ledger::peer::PeerArgs),
}

impl Options {
    fn settled(mut self) -> Self {
        if self.quick {
            self.seconds = 1.0;
            self.rounds = 1;
            self.single = self.single.min(500);
            self.cold = self.cold.min(10);
            self.idle = self.idle.min(100);
        }
        self
    }
}

fn main() -> Result<()> {
    let options = Options::parse().settled();
    match options.part.clone() {
        Some(Part::Ledger(options)) => ledger::measure(&options),
        Some(Part::Network(options)) => network::measure(&options),
        Some(Part::Neighbours(options)) => neighbours::measure(&options),
        Some(Part::Attacks(options)) => attacks::attack(&options),
        Some(Part::Sandbox(options)) => sandbox::measure(&options),
        Some(Part::First(options)) => first::measure(&options),
        Some(Part::LedgerPeer(args)) => ledger::peer::run(args),
        None => measure(&options),
    }
}

fn measure(options: &Options) -> Result<()> {
    let peers: Vec<Target> = options
        .peers
        .iter()
        .map(|peer| warm::peer(peer))
        .collect::<Result<_>>()?;
    let mut report = Report::new(options);
    report.floors(floors::interpreter_starts()?);
    report.receipts(receipts::measure());

    let node = floors::NodeServer::start()?;
    let mut server = Server::start(&options.binary)?;
    eprintln!("measuring {} (pid {})", server.url, server.pid());
    let mut targets = warm::deploy(&server, options)?;
    targets.push(node.target());
    targets.extend(peers);
    for round in 1..=options.rounds {
        for target in &targets {
            eprintln!("round {round}: {}", target.name);
            report.warm(warm::measure(target, options).with_context(|| format!("measure {}", target.name))?);
        }
    }
    for language in warm::LANGUAGES {
        eprintln!("cold calls: {}", language.name);
        report.cold(cold::measure(&server, language, options)?);
    }
    eprintln!("idle functions: {}", options.idle);
    report.idle(idle::measure(&server, options)?);
    server.stop()?;
    println!("{report}");
    println!("raw: {}", report.write(&options.results)?.display());
    Ok(())
}
