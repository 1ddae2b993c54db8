//! Reads on the engine's runtime, asked for from any other.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use commonware_codec::Encode as _;
use commonware_consensus::{
    Heightable as _,
    marshal::{self, standard::Standard},
    simplex::scheme::ed25519::Scheme,
    types::Height,
};
use commonware_cryptography::Digestible as _;
use commonware_runtime::Spawner;
use commonware_storage::Context as StorageContext;
use piecework_ledger::{Key, Value};
use piecework_model::Digest;
use piecework_proof::StateProof;
use tokio::sync::{mpsc, oneshot};

use crate::{
    ChainFailure, FinalBlock,
    block::Block,
    proofs,
    state::{self, Databases},
};

pub(crate) type Marshal = marshal::core::Mailbox<Scheme, Standard<Block>>;

/// Reads that wait; more callers wait for room.
const WAITING_MAX: usize = 1024;

type Answer<T> = oneshot::Sender<Result<T, ChainFailure>>;

enum StateRead {
    Values {
        keys: Vec<Key>,
        answer: Answer<Vec<Option<Value>>>,
    },
    Proofs {
        keys: Vec<Key>,
        answer: Answer<ProvenState>,
    },
}

/// Values under one root.
pub(crate) struct ProvenState {
    pub(crate) root: Digest,
    pub(crate) values: Vec<Option<(Value, StateProof)>>,
}

#[derive(Clone, Copy)]
enum Which {
    Height(u64),
    Digest(Digest),
}

struct BlockRead {
    which: Which,
    answer: oneshot::Sender<Option<FinalBlock>>,
}

/// Asks the engine's readers.
#[derive(Clone)]
pub(crate) struct Reads {
    states: mpsc::Sender<StateRead>,
    blocks: mpsc::Sender<BlockRead>,
}

/// The readers' ends, for the engine.
pub(crate) struct ReadQueues {
    /// The block that is being read, or the first that could not be, or 0: what a failure was about.
    reading: Arc<AtomicU64>,
    states: mpsc::Receiver<StateRead>,
    blocks: mpsc::Receiver<BlockRead>,
}

pub(crate) fn queues() -> (Reads, ReadQueues) {
    let (state_sender, states) = mpsc::channel(WAITING_MAX);
    let (block_sender, blocks) = mpsc::channel(WAITING_MAX);
    let reads = Reads {
        states: state_sender,
        blocks: block_sender,
    };
    let reading = Arc::default();
    (
        reads,
        ReadQueues {
            reading,
            states,
            blocks,
        },
    )
}

fn stopped() -> ChainFailure {
    ChainFailure::Stopped {
        detail: "it no longer answers reads".to_owned(),
    }
}

impl Reads {
    /// The values of the keys, all from one final state, in their order.
    pub(crate) async fn values(&self, keys: Vec<Key>) -> Result<Vec<Option<Value>>, ChainFailure> {
        let (answer, answered) = oneshot::channel();
        let sent = self.states.send(StateRead::Values { keys, answer }).await;
        sent.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// The same with their proofs.
    pub(crate) async fn proofs(&self, keys: Vec<Key>) -> Result<ProvenState, ChainFailure> {
        let (answer, answered) = oneshot::channel();
        let sent = self.states.send(StateRead::Proofs { keys, answer }).await;
        sent.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    pub(crate) async fn block(&self, height: u64) -> Result<Option<FinalBlock>, ChainFailure> {
        self.read_block(Which::Height(height)).await
    }

    /// The final block of this digest, if it is kept.
    pub(crate) async fn block_by_digest(&self, digest: Digest) -> Result<Option<FinalBlock>, ChainFailure> {
        self.read_block(Which::Digest(digest)).await
    }

    async fn read_block(&self, which: Which) -> Result<Option<FinalBlock>, ChainFailure> {
        let (answer, answered) = oneshot::channel();
        let sent = self.blocks.send(BlockRead { which, answer }).await;
        sent.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())
    }
}

impl ReadQueues {
    pub(crate) fn reading(&self) -> Arc<AtomicU64> {
        self.reading.clone()
    }

    /// Answers until nobody asks any more. Two tasks, so that a walk through history holds up no balance.
    pub(crate) fn serve<E: Spawner + StorageContext>(self, runtime: &E, databases: Databases<E>, marshal: Marshal) {
        let Self {
            reading,
            mut states,
            mut blocks,
        } = self;
        runtime.child("state_reads").spawn(move |_| async move {
            // An answer that nobody waits for any more: nothing to do.
            while let Some(read) = states.recv().await {
                match read {
                    StateRead::Values { keys, answer } => drop(answer.send(read_state(&databases, &keys).await)),
                    StateRead::Proofs { keys, answer } => drop(answer.send(prove_state(&databases, &keys).await)),
                }
            }
        });
        runtime.child("block_reads").spawn(move |_| async move {
            while let Some(BlockRead { which, answer }) = blocks.recv().await {
                let block = match which {
                    Which::Height(height) => {
                        // Those that are asked for after a damaged one find the archive gone.
                        let first = reading.compare_exchange(0, height, Ordering::Relaxed, Ordering::Relaxed);
                        let block = read_block(&marshal, height).await;
                        if first.is_ok() && block.is_some() {
                            reading.store(0, Ordering::Relaxed);
                        }
                        block
                    }
                    Which::Digest(digest) => read_block_by_digest(&marshal, digest).await,
                };
                let _ = answer.send(block);
            }
        });
    }
}

async fn read_state<E: Spawner + StorageContext>(
    databases: &Databases<E>,
    keys: &[Key],
) -> Result<Vec<Option<Value>>, ChainFailure> {
    let database = databases.read().await;
    let mut values = Vec::with_capacity(keys.len());
    for key in keys {
        let bytes = database
            .get(&state::place(key))
            .await
            .map_err(|error| ChainFailure::Stopped {
                detail: format!("a read of the state failed: {error}"),
            })?;
        let value = state::decode(key, bytes).map_err(|error| ChainFailure::Stopped {
            detail: error.to_string(),
        })?;
        values.push(value);
    }
    Ok(values)
}

async fn prove_state<E: Spawner + StorageContext>(
    databases: &Databases<E>,
    keys: &[Key],
) -> Result<ProvenState, ChainFailure> {
    let database = databases.read().await;
    let mut values = Vec::with_capacity(keys.len());
    for key in keys {
        values.push(proofs::prove(&*database, key).await?);
    }
    Ok(ProvenState {
        root: Digest(database.root().0),
        values,
    })
}

async fn read_block(marshal: &Marshal, height: u64) -> Option<FinalBlock> {
    let block = marshal.get_block(Height::new(height)).await?;
    Some(present(marshal, block.inner()).await)
}

/// The engine also knows blocks that did not become final: only what stands at its height did.
async fn read_block_by_digest(marshal: &Marshal, digest: Digest) -> Option<FinalBlock> {
    let digest = commonware_cryptography::blake3::Digest(digest.0);
    let block = marshal.get_block(&digest).await?;
    let finalized = marshal.get_block(block.height()).await?;
    if finalized.inner().digest() != digest {
        return None;
    }
    Some(present(marshal, finalized.inner()).await)
}

/// A final block as others see it, with its certificate if it has one of its own.
pub(crate) async fn present(marshal: &Marshal, block: &Block) -> FinalBlock {
    let certificate = marshal.get_finalization(block.height()).await;
    FinalBlock::new(
        block.sealed(),
        block.body.transactions.clone(),
        block.body.outcomes.clone(),
        certificate
            .map(|finalization| finalization.encode().to_vec())
            .unwrap_or_default(),
    )
}
