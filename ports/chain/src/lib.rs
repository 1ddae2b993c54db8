//! The ledger as the rest of the platform sees it: [`Chain`] submits, reads and follows blocks; [`Node`] is a running peer.
//!
//! Only final blocks are ever shown or acted upon.

mod contract;
mod failure;

pub use contract::{Chain, ChainStatus, Final, FinalBlock, Node, SubmitError};
pub use failure::ChainFailure;
