//! What votes cover: the header of a block, in two parts, so that a job's proof need not carry all of it.

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::{Digest, NetworkId, PublicKey};
use serde::{Deserialize, Serialize};

/// The header of a block. Its digest is that of its [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Header {
    pub height: u64,
    /// Whose votes make the block final: `height / Params::epoch_blocks`.
    pub epoch: u64,
    /// The proposer's clock, never below the parent's.
    pub timestamp_ms: u64,
    /// Over the outcomes of the transactions: [`crate::outcomes_root`].
    pub outcomes_root: Digest,
    pub details: Details,
}

/// The part of a header that a job's proof shows only the digest of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Details {
    /// The round of the epoch in which the block was first proposed.
    pub view: u64,
    /// Who proposed it.
    pub leader: PublicKey,
    pub parent_view: u64,
    pub parent: Digest,
    /// The latest block before this one that holds transactions, or 0.
    pub previous_busy: u64,
    /// Of the state after this block: [`crate::StateProof`].
    pub state_root: Digest,
    /// Of the log of state operations after this block, which is a part of the state root.
    pub operations_root: Digest,
    /// The part of that log from which the state can be built, `[from, to)`.
    pub operations: (u64, u64),
    /// Over the signed transactions: [`crate::transactions_root`].
    pub transactions_root: Digest,
}

/// A header as a job's proof shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Summary {
    pub height: u64,
    pub epoch: u64,
    pub timestamp_ms: u64,
    pub outcomes_root: Digest,
    pub details: Digest,
}

impl Header {
    pub fn summary(&self) -> Summary {
        Summary {
            height: self.height,
            epoch: self.epoch,
            timestamp_ms: self.timestamp_ms,
            outcomes_root: self.outcomes_root,
            details: Digest::of_value("piecework 2026 block details", &self.details),
        }
    }

    pub fn digest(&self) -> Digest {
        self.summary().digest()
    }
}

impl Summary {
    /// The block's digest, which peers sign and children name as their parent.
    pub fn digest(&self) -> Digest {
        Digest::of_value("piecework 2026 block", self)
    }
}

impl Header {
    /// Block 0: it names the network and holds nothing. The genesis state is written by block 1.
    pub fn genesis(network: &NetworkId) -> Self {
        Self {
            height: 0,
            epoch: 0,
            timestamp_ms: 0,
            outcomes_root: Digest::default(),
            details: Details {
                view: 0,
                leader: PublicKey::default(),
                parent_view: 0,
                parent: Digest(network.0),
                previous_busy: 0,
                state_root: Digest::default(),
                operations_root: Digest::default(),
                operations: (0, 0),
                transactions_root: Digest::default(),
            },
        }
    }
}
