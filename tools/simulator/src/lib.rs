//! A whole network in one thread from one seed: faults, cheats, and what must hold all the same.
//!
//! Real: the ledger's contracts, executed by each peer for itself; the provider's rules for tickets, lanes, receipts and
//! claims; the controller's numbers, exposure, check of receipts and settlements. Modelled: the network, the clocks, the
//! disks, what a run uses, and the order of blocks (`peers`): the consensus engine itself is tested where it is.

mod bug;
mod chaos;
mod checks;
mod controller;
mod developer;
mod peers;
mod provider;
mod setup;
mod wire;
mod world;

use std::fmt;

use piecework_model::Digest;

pub use bug::Bug;

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
    pub seed: u64,
    pub bug: Option<Bug>,
    pub at_ms: u64,
    pub says: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, at_ms, says, .. } = self;
        write!(
            f,
            "seed {seed}, {at_ms} ms: {says}; again: cargo run --release -p piecework-simulator -- --seed {seed}"
        )?;
        match self.bug {
            Some(bug) => write!(f, " --bug {}", name(bug)),
            None => Ok(()),
        }
    }
}

fn name(bug: Bug) -> String {
    let value = clap::ValueEnum::to_possible_value(&bug);
    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Plays one network's life. The same seed, the same history. `trace` prints it.
pub fn run(seed: u64, bug: Option<Bug>, trace: bool) -> Result<Report, Violation> {
    let mut world = world::World::new(seed, bug);
    world.is_traced = trace;
    world.run(seed)
}
