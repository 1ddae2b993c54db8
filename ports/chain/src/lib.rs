//! The ledger as the rest of the platform sees it: [`Chain`] submits, reads and follows blocks; [`Node`] is a running peer.
//!
//! Only final blocks are ever shown or acted upon.

mod contract;
mod export;
mod failure;
mod proofs;
pub mod wire;

pub use contract::{Chain, ChainStatus, Final, FinalBlock, Node, Proven, SubmitError};
pub use export::{Export, ExportFailure, export};
pub use failure::ChainFailure;
pub use proofs::{PeerChanges, account_proof, finality, job_proof};
