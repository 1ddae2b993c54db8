//! The shared nouns of the platform: ids, keys, credits, prices, limits, functions, tickets and receipts, and their bytes.
//!
//! Everything here is a plain value: no clock, no entropy, no input or output. Whatever is signed or reaches the ledger is
//! encoded with [borsh](https://borsh.io), which has one encoding per value; golden vectors in `tests/` pin it.

mod account;
mod code;
mod credits;
mod digest;
mod egress;
mod format;
mod function;
mod id;
mod job;
mod key;
mod limits;
mod merkle;
mod price;
mod rejection;
mod ticket;
mod time;
mod workload;

pub use account::{Role, Roles, Scope};
pub use code::{AnyCode, Code};
pub use credits::{Credits, CreditsOverflow};
pub use digest::{Digest, DigestStream, Salt};
pub use egress::{Destination, EgressList, EgressPolicy, Host, Network};
pub use format::{Format, MARK, UnknownVersion};
pub use function::{Contract, FunctionName, Language, OwnerName, typescript};
pub use id::{AccountId, FunctionId, JobId, LeaseId, NetworkId};
pub use job::{JobState, ResultState};
pub use key::{BadKey, Domain, PublicKey, SecretKey, Signature, SignatureInvalid, verify_all};
pub use limits::Limits;
pub use merkle::{MerkleProof, ProofStep, leaf, merkle_proof, merkle_root};
pub use price::{Counters, PriceOverflow, Prices};
pub use rejection::Rejection;
pub use ticket::{Ack, JobStatus, Receipt, Seal, Sealed, Ticket};
pub use time::unix_ms;
pub use workload::{BackendName, Workload};
