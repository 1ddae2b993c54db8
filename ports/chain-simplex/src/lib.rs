//! The ledger on commonware's simplex consensus; the only crate that names the engine.
//!
//! [`start`] runs a peer: its own threads, its own directory, consensus over TCP with the peers that the ledger names (one
//! peer alone is a quorum of one and runs the same code). What others see is [`piecework_chain::Chain`].
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
pub mod simulated;
mod state;

use piecework_chain::{Chain, ChainFailure, ChainStatus, Final, FinalBlock, Node, Proven, SubmitError};

pub use directory::check_format;
pub use node::{Contact, Options, start};
pub use replica::Replica;
