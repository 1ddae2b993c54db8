//! The ledger's interface for the rest of the platform.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use piecework_ledger::{Event, Key, Outcome, SignedTransaction, TransactionId, Value};
use piecework_model::{Digest, NetworkId, Rejection};
use piecework_proof::{Header, StateProof};

use crate::ChainFailure;

/// The ledger as its users see it. Everything shown is final.
#[async_trait]
pub trait Chain: Send + Sync {
    fn network(&self) -> NetworkId;

    fn status(&self) -> ChainStatus;

    /// Checks against the latest final state (and what waits before it of the same sender) and queues. The rejection
    /// comes at once; acceptance does not yet mean that it will be executed. Submitting again what is queued or final
    /// is no error.
    ///
    /// Rejects with what [`piecework_ledger::check`] says, and `mempool.full`, `mempool.nonce_taken`,
    /// `transaction.too_large`. Cancel safe.
    async fn submit(&self, tx: SignedTransaction) -> Result<TransactionId, SubmitError>;

    /// Submits and waits until final; a rejection by the block is a rejection as well. Idempotent: what is final
    /// already is returned as it was. Dropping the future stops the waiting, not the transaction.
    async fn submit_and_wait(&self, tx: SignedTransaction) -> Result<Final, SubmitError>;

    /// From the latest final state.
    async fn get(&self, key: &Key) -> Result<Option<Value>, ChainFailure>;

    /// The values of these keys in the latest final state, all of one block's, each with the proof against that block's
    /// state root. That a key has no value is not proven.
    async fn prove(&self, keys: &[Key]) -> Result<Proven, ChainFailure>;

    /// `None` above the head. Block 0 is the genesis and holds nothing.
    async fn block(&self, height: u64) -> Result<Option<Arc<FinalBlock>>, ChainFailure>;

    /// The final block with this digest; an adapter may know only those it keeps.
    async fn block_by_digest(&self, digest: Digest) -> Result<Option<Arc<FinalBlock>>, ChainFailure>;

    /// Where a transaction became final, whatever its outcome; an adapter may
    /// remember only the latest ones.
    async fn transaction(&self, id: TransactionId) -> Result<Option<(u64, u32)>, ChainFailure>;

    /// All final blocks from `from` (at least 1) on, in order, each once: history first, then live. Pulls: a slow
    /// reader holds nothing but its place and reads from disk. Ends when the chain stops.
    fn blocks_from(&self, from: u64) -> BoxStream<'static, Arc<FinalBlock>>;
}

/// A peer that runs in this process. Dropping it stops the peer without waiting.
#[async_trait]
pub trait Node: Send + Sync {
    fn chain(&self) -> Arc<dyn Chain>;

    /// Resolves when the peer has stopped by itself, with the reason. Cancel safe.
    async fn failed(&self) -> ChainFailure;

    /// Stops and waits until the directory is free. Final blocks are already on disk; queued transactions are
    /// forgotten.
    async fn shutdown(self: Box<Self>) -> Result<(), ChainFailure>;
}

/// The head of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainStatus {
    pub network: NetworkId,
    /// Of the last final block; 0 before the first.
    pub height: u64,
    pub block: Digest,
    pub state_root: Digest,
    /// The last block's own time, as its proposer saw it.
    pub last_block_at_ms: u64,
    /// Peers that vote, this one included.
    pub peers: u32,
    /// Transactions that wait here for a block.
    pub queued: u32,
}

/// A transaction that has been executed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Final {
    pub id: TransactionId,
    pub height: u64,
    /// Its place in the block.
    pub index: u32,
    pub events: Vec<Event>,
}

/// A block that can no longer be undone.
#[derive(Clone, Debug)]
pub struct FinalBlock {
    pub height: u64,
    /// Of `header`.
    pub digest: Digest,
    pub parent: Digest,
    /// The proposer's clock, never below the parent's. Nothing on the ledger depends on it.
    pub timestamp_ms: u64,
    /// The latest block before this one that holds transactions, or 0: history without the idle hours.
    pub previous_busy: u64,
    /// Of the state after this block.
    pub state_root: Digest,
    pub transactions: Vec<SignedTransaction>,
    /// One for each transaction, in order.
    pub outcomes: Vec<Outcome>,
    /// The encoded finalization over `digest`; empty where the block became final through a descendant's.
    pub certificate: Vec<u8>,
    pub header: Header,
}

/// Values of one state.
#[derive(Clone, Debug)]
pub struct Proven {
    /// The block after which the state is this one.
    pub height: u64,
    /// In the order of the keys.
    pub values: Vec<Option<(Value, StateProof)>>,
}

impl FinalBlock {
    pub fn new(
        header: Header,
        transactions: Vec<SignedTransaction>,
        outcomes: Vec<Outcome>,
        certificate: Vec<u8>,
    ) -> Self {
        Self {
            height: header.height,
            digest: header.digest(),
            parent: header.details.parent,
            timestamp_ms: header.timestamp_ms,
            previous_busy: header.details.previous_busy,
            state_root: header.details.state_root,
            transactions,
            outcomes,
            certificate,
            header,
        }
    }

    /// The final transaction at `index`, with its events or its rejection.
    pub fn result_of(&self, index: u32) -> Option<Result<Final, Rejection>> {
        let outcome = self.outcomes.get(index as usize)?;
        Some(outcome.result.clone().map(|events| Final {
            id: outcome.id,
            height: self.height,
            index,
            events,
        }))
    }
}

/// Why a transaction did not get in.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    Failed(#[from] ChainFailure),
}
