//! The ledger on commonware's simplex consensus: blocks, mempool, gossip, epochs, state.
//!
//! Everything that runs is generic over the [`Runtime`] and the [`Transport`], and nothing here names one: this crate and its
//! unit tests compile in seconds. The engine itself, some two minutes of code, is compiled where both are named, and only
//! `ports/chain-node` does that.
//!
//! ```text
//! submit -> mempool -> propose (paced) -> execute, root -> votes -> final -> publish -> waiters, blocks_from
//!                          ^                                             |
//!                          `---------- heartbeat when idle <-------------'
//! ```
//!
//! Contracts run on what was fetched for them, never on a wall clock.

mod admission;
mod application;
mod block;
mod committee;
mod consensus;
mod directory;
mod engine;
mod epochs;
mod gossip;
mod handle;
mod heads;
mod index;
mod mempool;
mod network;
mod node;
mod pace;
mod proofs;
mod publish;
mod reads;
mod replica;
mod runtime;
mod state;

use piecework_chain::{Chain, ChainFailure, ChainStatus, Final, FinalBlock, Proven, SubmitError};

pub use committee::Identity;
pub use directory::{Directory, check_format, has_room};
pub use engine::{Aftermath, Setup, run};
pub use handle::{Handle, Starting};
pub use network::{CHANNELS, Channel, MAILBOX, Wires, message_bytes_max};
pub use node::{Contact, Options, Prepared, prepare};
pub use replica::{Asks, Replica};
pub use runtime::{Runtime, Transport};
