//! Running peers: alone, several in one process, as processes that are killed, and simulated. One executable, which is linked once.

#![allow(clippy::unwrap_used)]

mod conformance;
mod crash;
mod deterministic;
mod faults;
mod fuzz;
mod membership;
mod network;
mod peer;
mod peers;
mod processes;
mod proofs;
mod rules;
