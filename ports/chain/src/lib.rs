//! Orders transactions among peers and executes the ledger's contracts; the only crate that names the consensus engine.
//!
//! [`start`] runs a peer: its own threads, its own directory, consensus over TCP with the peers of the genesis file (one
//! peer alone is a quorum of one and runs the same code). What others see is [`Chain`]: submit, read, follow blocks.
//!
//! ```text
//! submit -> mempool -> propose (paced) -> execute, root -> votes -> final -> publish -> waiters, blocks_from
//!                          ^                                             |
//!                          `---------- heartbeat when idle <-------------'
//! ```
//!
//! Only final blocks are ever shown or acted upon. Contracts run on what was fetched for them, never on a wall clock.

mod admission;
mod application;
mod block;
mod committee;
mod contract;
mod directory;
mod engine;
mod failure;
mod gossip;
mod index;
mod mempool;
mod node;
mod pace;
mod publish;
mod reads;
mod record;
mod state;

pub use contract::{Chain, ChainStatus, Final, FinalBlock, SubmitError};
pub use failure::ChainFailure;
pub use node::{Node, Options, start};
