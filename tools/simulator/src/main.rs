//! Plays networks from seeds, and says how to play one again that went wrong.

use std::process::ExitCode;

use clap::Parser;
use piecework_simulator::{Bug, Consensus, Options, run};

/// A whole network in one thread from one seed
#[derive(Debug, Parser)]
struct Arguments {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// The peers' own engine, or a model of it that is much faster
    #[arg(long, default_value = "engine")]
    consensus: Consensus,
    /// Put a bug in: the run must go wrong
    #[arg(long)]
    bug: Option<Bug>,
    /// Print what happens to jobs and on the ledger
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (consensus, bug, trace) = (arguments.consensus, arguments.bug, arguments.trace);
    if consensus == Consensus::Engine && bug.is_some_and(Bug::needs_the_model) {
        eprintln!("this bug is put into the ledger, which only the model has a place for: add --consensus model");
        return ExitCode::FAILURE;
    }
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.count) {
        let options = Options {
            seed,
            consensus,
            bug,
            trace,
        };
        match run(options) {
            Ok(report) => println!("seed {seed}: {report:?}"),
            Err(violation) => {
                eprintln!("{violation}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
