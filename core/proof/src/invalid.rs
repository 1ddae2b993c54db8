//! What is wrong with a proof or an export, and where.

use piecework_ledger::Key;
use piecework_model::{Code, NetworkId, PublicKey};

/// Why a proof or an export is refused. Each names the block that it found wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("this is neither a proof nor an export of a ledger: {0}")]
    Malformed(&'static str),
    #[error("this belongs to network {found}, not to {expected}")]
    OtherNetwork { found: NetworkId, expected: NetworkId },
    #[error("the genesis is invalid: {0}")]
    Genesis(String),
    #[error("block {height}: the certificate does not match the peers of its epoch")]
    Certificate { height: u64 },
    #[error("block {height}: {signed} peers signed the certificate, but {needed} are needed")]
    TooFewSignatures { height: u64, signed: usize, needed: usize },
    #[error("block {height}: the signature of peer {peer} in the certificate is invalid")]
    CertificateSignature { height: u64, peer: PublicKey },
    #[error("block {height}: neither this block nor a later one has a certificate")]
    NotFinal { height: u64 },
    #[error("block {height} is missing: found block {found} instead")]
    MissingBlock { height: u64, found: u64 },
    #[error("the export was cut off: it ends after block {height} without its closing line")]
    CutOff { height: u64 },
    #[error("block {height} does not name the block before it as its parent")]
    Parent { height: u64 },
    #[error("block {height}: {what} in the header is wrong")]
    Header { height: u64, what: &'static str },
    #[error(
        "block {height} was made by rules {found}, but this program knows only rules up to {known}; use a newer one"
    )]
    UnknownRules { height: u64, found: u32, known: u32 },
    #[error("block {height}: its transactions do not match its header")]
    Transactions { height: u64 },
    #[error("block {height}: the outcomes of its transactions do not match its header")]
    Outcomes { height: u64 },
    #[error("block {height}, transaction {index}: executing it again gives a different outcome")]
    Replay { height: u64, index: usize },
    #[error("block {height}: executing it again gives a different state root")]
    StateRoot { height: u64 },
    #[error("block {height}: the Merkle path does not lead to the root of outcomes")]
    Path { height: u64 },
    #[error("block {height}: the proof of {key:?} does not lead to the state root")]
    StatePath { height: u64, key: Box<Key> },
    #[error("block {height}: the export says that {key:?} is {said}, but the blocks give {found}")]
    Value {
        height: u64,
        key: Box<Key>,
        said: String,
        found: String,
    },
    #[error("block {height}: it contains no change of the peers")]
    NoPeerChange { height: u64 },
    #[error("the proof is for {found}, not for {expected}")]
    Other { found: String, expected: String },
    #[error("the state cannot be replayed: {0}")]
    Replica(String),
}

impl Invalid {
    /// Stable, for programs.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::ProofMalformed,
            Self::OtherNetwork { .. } => Code::ProofOtherNetwork,
            Self::Genesis(_) => Code::ProofBadGenesis,
            Self::Certificate { .. } | Self::CertificateSignature { .. } => Code::ProofBadCertificate,
            Self::TooFewSignatures { .. } => Code::ProofTooFewSignatures,
            Self::NotFinal { .. } => Code::ProofNotFinal,
            Self::MissingBlock { .. } => Code::ProofMissingBlock,
            Self::CutOff { .. } => Code::ProofCutOff,
            Self::Parent { .. } => Code::ProofBadParent,
            Self::Header { .. } => Code::ProofBadHeader,
            Self::UnknownRules { .. } => Code::ProofUnknownRules,
            Self::Transactions { .. } => Code::ProofBadTransactions,
            Self::Outcomes { .. } | Self::Replay { .. } => Code::ProofBadOutcomes,
            Self::StateRoot { .. } => Code::ProofBadStateRoot,
            Self::Path { .. } | Self::StatePath { .. } => Code::ProofBadPath,
            Self::Value { .. } => Code::ProofBadValue,
            Self::NoPeerChange { .. } => Code::ProofNoPeerChange,
            Self::Other { .. } => Code::ProofOfAnother,
            Self::Replica(_) => Code::ProofReplayFailed,
        }
    }
}
