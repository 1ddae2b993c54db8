//! What a block commits to, and how to check it with the genesis alone: headers, finality certificates, proofs of jobs
//! and of values, exports of the whole ledger.
//!
//! ```text
//! entry of a job -- Merkle --> header.outcomes_root ---.
//! value of a key -- Merkle --> header.state_root -------+--> header digest <-- certificate <-- peers <-- genesis
//! ```
//! docs/ledger-format.md describes every byte.

mod certificate;
mod entries;
mod export;
mod header;
mod invalid;
mod peers;
mod proof;
mod record;
mod state;

pub use certificate::{Certificate, Finalization, quorum};
pub use entries::{Entry, EntryProof, JobEntry, Metering, Path, Step, entries, outcomes_root, transactions_root};
pub use export::{Checker, EXPORT_MAGIC, ExportBlock, Exported, Frame, ReadFailure, StateRoots, Verified, read_frames};
pub use header::{Details, Header, Summary};
pub use invalid::Invalid;
pub use peers::Anchor;
pub use proof::{Evidence, Finality, JobProof, PROOF_MAGIC, Proof, ProvenEntry, ProvenJob, ValueProof};
pub use record::Record;
pub use state::{StateProof, place};
