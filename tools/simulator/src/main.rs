//! Plays networks from seeds, and says how to play one again that went wrong.

use std::process::ExitCode;

use clap::Parser;
use piecework_simulator::{Bug, run};

/// A whole network in one thread from one seed
#[derive(Debug, Parser)]
struct Options {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Put a bug in: the run must go wrong
    #[arg(long)]
    bug: Option<Bug>,
    /// Print what happens to jobs and on the ledger
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    for seed in options.seed..options.seed.saturating_add(options.count) {
        match run(seed, options.bug, options.trace) {
            Ok(report) => println!("seed {seed}: {report:?}"),
            Err(violation) => {
                eprintln!("{violation}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
