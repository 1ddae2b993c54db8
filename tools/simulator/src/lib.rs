//! A whole network in one thread from one seed: faults, cheats, and what must hold all the same.
//!
//! Real: the peers, their consensus engine included; the provider's rules for tickets, lanes, receipts and claims; the
//! controller's numbers, exposure, check of receipts and settlements. Modelled: the network, the clocks, the disks, what a
//! run uses. The engine can be replaced by a model of it, which is many times as fast and takes bugs.

mod bug;
mod chaos;
mod checks;
mod controller;
mod developer;
mod engine;
mod peers;
mod provider;
mod setup;
mod wire;
mod world;

use std::fmt;

use clap::ValueEnum;
use piecework_model::Digest;

pub use bug::Bug;

/// What puts transactions into an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Consensus {
    /// The real peers.
    Engine,
    /// Rounds with one leader each.
    Model,
}

/// One network's life.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    pub consensus: Consensus,
    pub bug: Option<Bug>,
    /// Print what happens.
    pub trace: bool,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of every step, in order: the same for the same seed.
    pub history: Digest,
    pub steps: u64,
    pub height: u64,
    pub sent: u64,
    pub lost: u64,
    pub crashes: u64,
    pub ordered: u64,
    pub replaced: u64,
    /// Receipts that the controller did not believe.
    pub lies: u64,
    pub paid: u64,
    pub claimed: u64,
    pub refuted: u64,
    /// Transactions that the ledger refused in a block.
    pub rejected: u64,
}

/// Something that must hold did not.
#[derive(Clone, Debug)]
pub struct Violation {
    pub options: Options,
    pub at_ms: u64,
    pub says: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, at_ms, says } = self;
        let (seed, consensus) = (options.seed, name(&options.consensus));
        write!(
            f,
            "seed {seed}, {at_ms} ms: {says}; again: cargo run --release -p piecework-simulator -- --seed {seed} \
             --consensus {consensus}"
        )?;
        match options.bug {
            Some(bug) => write!(f, " --bug {}", name(&bug)),
            None => Ok(()),
        }
    }
}

fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Plays one network's life. The same seed, the same history.
pub fn run(options: Options) -> Result<Report, Violation> {
    let mut world = world::World::new(options.seed, options.bug, options.consensus);
    world.is_traced = options.trace;
    let played = match options.consensus {
        Consensus::Engine => engine::run(world, options.seed),
        Consensus::Model => world.run(),
    };
    played.map_err(|(at_ms, says)| Violation { options, at_ms, says })
}
