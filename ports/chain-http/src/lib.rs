//! The ledger over its peers' HTTP API: [`remote`] is a chain that asks several peers, [`view`] the bodies of blocks and proofs.
//!
//! Apart from `ports/chain`, so that a change of the HTTP contract does not compile the engine again.

pub mod remote;
pub mod view;
