//! What does not hold, and where.

use piecework_ledger::Key;
use piecework_model::{NetworkId, PublicKey};

/// Why a proof or an export is refused. Each names the block that it found wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("these bytes are no proof and no export of a ledger: {0}")]
    Malformed(&'static str),
    #[error("this is of the network {found}, not of {expected}")]
    OtherNetwork { found: NetworkId, expected: NetworkId },
    #[error("the genesis is not valid: {0}")]
    Genesis(String),
    #[error("block {height}: the certificate does not fit the peers of its epoch")]
    Certificate { height: u64 },
    #[error("block {height}: {signed} peers signed the certificate, {needed} are needed")]
    TooFewSignatures { height: u64, signed: usize, needed: usize },
    #[error("block {height}: the signature of peer {peer} in the certificate does not verify")]
    CertificateSignature { height: u64, peer: PublicKey },
    #[error("block {height}: neither it nor a block after it has a certificate")]
    NotFinal { height: u64 },
    #[error("block {height} is missing: block {found} comes in its place")]
    MissingBlock { height: u64, found: u64 },
    #[error("the export ends after block {height}, without its closing line: it was cut off")]
    CutOff { height: u64 },
    #[error("block {height} does not name the block before it as its parent")]
    Parent { height: u64 },
    #[error("block {height}: {what} in its header is not what it must be")]
    Header { height: u64, what: &'static str },
    #[error("block {height} was made by the rules {found}, this program knows those up to {known}: use a newer one")]
    UnknownRules { height: u64, found: u32, known: u32 },
    #[error("block {height}: its transactions are not those of its header")]
    Transactions { height: u64 },
    #[error("block {height}: what came of its transactions is not what its header says")]
    Outcomes { height: u64 },
    #[error("block {height}, transaction {index}: replaying it gives another outcome")]
    Replay { height: u64, index: usize },
    #[error("block {height}: replaying it gives another state root")]
    StateRoot { height: u64 },
    #[error("block {height}: the Merkle path does not lead to the root of outcomes")]
    Path { height: u64 },
    #[error("block {height}: the proof of {key:?} does not lead to the state root")]
    StatePath { height: u64, key: Box<Key> },
    #[error("block {height}: {key:?} is said to be {said}, and the blocks give {found}")]
    Value {
        height: u64,
        key: Box<Key>,
        said: String,
        found: String,
    },
    #[error("block {height}: it does not say that the peers change")]
    NoPeerChange { height: u64 },
    #[error("the proof is of {found}, not of {expected}")]
    Other { found: String, expected: String },
    #[error("the state cannot be replayed: {0}")]
    Replica(String),
}

impl Invalid {
    /// Stable, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "proof.malformed",
            Self::OtherNetwork { .. } => "proof.other_network",
            Self::Genesis(_) => "proof.bad_genesis",
            Self::Certificate { .. } | Self::CertificateSignature { .. } => "proof.bad_certificate",
            Self::TooFewSignatures { .. } => "proof.too_few_signatures",
            Self::NotFinal { .. } => "proof.not_final",
            Self::MissingBlock { .. } => "proof.missing_block",
            Self::CutOff { .. } => "proof.cut_off",
            Self::Parent { .. } => "proof.bad_parent",
            Self::Header { .. } => "proof.bad_header",
            Self::UnknownRules { .. } => "proof.unknown_rules",
            Self::Transactions { .. } => "proof.bad_transactions",
            Self::Outcomes { .. } | Self::Replay { .. } => "proof.bad_outcomes",
            Self::StateRoot { .. } => "proof.bad_state_root",
            Self::Path { .. } | Self::StatePath { .. } => "proof.bad_path",
            Self::Value { .. } => "proof.bad_value",
            Self::NoPeerChange { .. } => "proof.no_peer_change",
            Self::Other { .. } => "proof.of_another",
            Self::Replica(_) => "proof.replay_failed",
        }
    }
}
