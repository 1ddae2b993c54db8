//! A running peer of the ledger: `ports/chain-simplex` on threads, files and TCP, or on a simulated machine.
//!
//! [`start`] runs a peer: its own threads, its own directory, consensus over TCP with the peers that the ledger names (one
//! peer alone is a quorum of one and runs the same code). What others see is [`piecework_chain::Chain`].
//!
//! The engine is generic code. [`machine::Machine`] and [`wires::Line`] are one type each for what is real and what is
//! simulated, so the engine is compiled once, in this library, and what runs in a simulation is what runs anywhere.

mod disk;
mod lasting;
mod machine;
mod node;
mod replica;
mod room;
pub mod simulated;
mod tcp;
mod wires;

pub use node::start;
pub use piecework_chain_simplex::{Contact, Options, Replica, check_format};
pub use replica::replica;
