//! The ledger as the rest of the platform sees it: [`Chain`] submits, reads and follows blocks; [`Node`] is a running peer.
//!
//! Only final blocks are ever shown or acted upon.

#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod failure;
mod record;
pub mod remote;
mod view;
pub mod wire;

pub use contract::{Chain, ChainStatus, Final, FinalBlock, Node, SubmitError};
pub use failure::ChainFailure;
pub use record::Record;
