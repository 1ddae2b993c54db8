//! What others hold of a running peer: the chain.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{
    FutureExt as _,
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt as _},
};
use piecework_ledger::{Key, SignedTransaction, TransactionId, Value};
use piecework_model::{Digest, NetworkId};
use tokio::sync::{oneshot, watch};

use crate::{
    Chain, ChainFailure, ChainStatus, Final, FinalBlock, Proven, SubmitError,
    admission::Admission,
    engine::{FINALS_WAITING_MAX, Ready},
    epochs::Epochs,
    gossip::Outbox,
    publish::{Board, Verdict},
    reads::Reads,
};

/// The engine's time to say what stopped it.
const STOPPING: Duration = Duration::from_secs(10);
/// The same where it may well not stop at all.
const STOPPING_SOON: Duration = Duration::from_secs(2);
/// A block that a start lacks: by then the other peers have been asked several times.
const BLOCK_FETCHED_WITHIN: Duration = Duration::from_secs(30);

pub struct Handle {
    pub(crate) network: NetworkId,
    /// The only peer of its network: nobody else can have made its first block.
    pub(crate) founder: bool,
    pub(crate) epochs: Epochs,
    pub(crate) board: Arc<Board>,
    pub(crate) reads: Reads,
    pub(crate) admission: Admission,
    /// To the other peers.
    pub(crate) outbox: Outbox,
    /// `None` while it runs; closed without a failure after a clean stop.
    pub(crate) ended: watch::Receiver<Option<ChainFailure>>,
    /// Whether the index holds the blocks of earlier runs.
    pub(crate) indexed: watch::Receiver<bool>,
}

/// What tells a handle how far its engine is.
pub struct Starting {
    pub(crate) readied: oneshot::Receiver<Ready>,
    /// What the last run had shown as final.
    pub(crate) reached: Option<(u64, Digest)>,
    pub(crate) indexed: watch::Sender<bool>,
}

impl Handle {
    pub async fn failed(&self) -> ChainFailure {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(failure)) => failure.clone(),
            Ok(None) | Err(_) => ChainFailure::Stopped {
                detail: "it was shut down".to_owned(),
            },
        }
    }

    /// The failure that ended it; none while it runs, and after a clean stop.
    pub fn ended(&self) -> Option<ChainFailure> {
        self.ended.borrow().clone()
    }

    /// Waits until the peer is where its last run had left it, or `stalled` resolves, which is told how far that was. Returns
    /// what is left to do beside the running peer: reading the blocks of earlier runs until the index is full.
    pub async fn catch_up<S: Future<Output = ChainFailure>>(
        self: &Arc<Self>,
        starting: Starting,
        stalled: impl FnOnce(u64) -> S,
    ) -> Result<BoxFuture<'static, ()>, ChainFailure> {
        let Starting {
            readied,
            reached,
            indexed,
        } = starting;
        let Ok(ready) = readied.await else {
            return Err(self.failed().await);
        };
        tokio::select! {
            // In a fixed order: a simulated network plays the same from the same seed.
            biased;
            reached = self.reach(&ready) => reached?,
            failure = stalled(ready.tip) => return Err(failure),
        }
        if let Some(reached) = reached {
            self.check_history(reached).await?;
        }
        Ok(self.clone().reindex(ready.resumed, indexed).boxed())
    }

    /// Reads the blocks of earlier runs until the index is full.
    async fn reindex(self: Arc<Self>, from: u64, indexed: watch::Sender<bool>) {
        match self.board.reindex(&self.reads, from).await {
            Ok(()) => {
                indexed.send_replace(true);
            }
            Err(failure) => tracing::warn!(%failure, "old transactions could not be indexed"),
        }
    }

    /// What stopped the engine, for a read that only knows that it did not answer.
    async fn because<T>(&self, read: Result<T, ChainFailure>) -> Result<T, ChainFailure> {
        match read {
            Err(unanswered @ ChainFailure::Stopped { .. }) => {
                let failed = tokio::time::timeout(STOPPING_SOON, self.failed()).await;
                Err(failed.unwrap_or(unanswered))
            }
            other => other,
        }
    }

    /// Why a start failed: what the engine itself says of it comes first, and silence means that the data is not as it was.
    pub async fn cause(&self, failure: ChainFailure, directory: PathBuf) -> ChainFailure {
        let ended = tokio::time::timeout(STOPPING_SOON, self.failed()).await;
        match ended.unwrap_or(failure) {
            ChainFailure::Stopped { detail } => ChainFailure::Corrupt { directory, detail },
            other => other,
        }
    }

    /// Waits until all that was final before is published again; a peer alone also writes its first block.
    async fn reach(&self, ready: &Ready) -> Result<(), ChainFailure> {
        let target = ready.tip.max(u64::from(self.founder));
        match self.board.reach(target).await {
            true => Ok(()),
            false => Err(self.failed().await),
        }
    }

    /// Resolves where a block up to `tip`, which is final, does not come: nobody else has it. Says so meanwhile, where others
    /// may.
    pub async fn stalled(&self, tip: u64) -> ChainFailure {
        loop {
            let next = self.board.head().height + 1;
            tokio::time::sleep(BLOCK_FETCHED_WITHIN).await;
            if next > tip || self.board.head().height >= next {
                continue;
            }
            if self.status().peers == 1 {
                return ChainFailure::Stopped {
                    detail: format!("block {next}: final and not there, and there is no other peer"),
                };
            }
            tracing::warn!(
                block = next,
                "is final but missing here; requesting it from the other peers"
            );
        }
    }

    /// A ledger that ends below what it once showed as final was rolled back or damaged.
    async fn check_history(&self, (height, digest): (u64, Digest)) -> Result<(), ChainFailure> {
        match self.block(height).await? {
            Some(block) if block.digest == digest => Ok(()),
            Some(_) | None => Err(ChainFailure::Stopped {
                detail: format!("block {height} was final and is not there any more"),
            }),
        }
    }

    /// Why a block that was final cannot be read: the engine stops over what it finds, a moment later.
    async fn missing(&self, height: u64) -> ChainFailure {
        let failed = tokio::time::timeout(STOPPING, self.failed()).await;
        failed.unwrap_or_else(|_| ChainFailure::Stopped {
            detail: format!("block {height} is not there any more"),
        })
    }

    /// The block after which the state had this root: the state is a few blocks ahead of what is published.
    async fn height_of(&self, root: Digest) -> Result<u64, ChainFailure> {
        for _ in 0..FINALS_WAITING_MAX {
            let head = self.board.head().height;
            if let Some(height) = self.board.with_state(root) {
                return Ok(height);
            }
            if !self.board.reach(head + 1).await {
                return Err(self.failed().await);
            }
        }
        Err(ChainFailure::Stopped {
            detail: "the state belongs to no block".to_owned(),
        })
    }

    /// What became of a transaction, if that is known: executed, and by which block.
    async fn executed(&self, id: TransactionId) -> Result<Option<Final>, ChainFailure> {
        let Some(located) = self.locate(id).await? else {
            return Ok(None);
        };
        if !located.executed {
            return Ok(None);
        }
        let block = self.block(located.height).await?;
        Ok(block
            .and_then(|block| block.result_of(located.index))
            .and_then(Result::ok))
    }

    async fn locate(&self, id: TransactionId) -> Result<Option<crate::index::Located>, ChainFailure> {
        if let Some(located) = self.board.located(&id) {
            return Ok(Some(located));
        }
        // Closed without `true`: the older ones could not be read, and the chain is stopping.
        let _ = self.indexed.clone().wait_for(|indexed| *indexed).await;
        Ok(self.board.located(&id))
    }

    /// As [`Handle::admit`]; what stopped the engine meanwhile is said by name.
    async fn admitted(&self, id: TransactionId, tx: SignedTransaction) -> Result<Option<Final>, SubmitError> {
        match self.admit(id, tx).await {
            Err(SubmitError::Failed(failure)) => self.because(Err(failure)).await.map_err(SubmitError::Failed),
            other => other,
        }
    }

    /// Queues the transaction unless it is executed already.
    async fn admit(&self, id: TransactionId, tx: SignedTransaction) -> Result<Option<Final>, SubmitError> {
        if let Some(done) = self.executed(id).await? {
            return Ok(Some(done));
        }
        match self.admission.admit(id, tx.clone()).await {
            Ok(fresh) => {
                if fresh {
                    // A full outbox: this peer proposes it itself.
                    let _ = self.outbox.try_send(tx);
                }
                Ok(None)
            }
            // It may have become final between the two questions.
            Err(error) => self.executed(id).await?.map(Some).ok_or(error),
        }
    }

    async fn verdict(&self, waiter: oneshot::Receiver<Verdict>) -> Result<Final, SubmitError> {
        match waiter.await {
            Ok(verdict) => Ok(verdict?),
            Err(_) => Err(self.failed().await.into()),
        }
    }
}

#[async_trait]
impl Chain for Handle {
    fn network(&self) -> NetworkId {
        self.network
    }

    fn status(&self) -> ChainStatus {
        let head = self.board.head();
        ChainStatus {
            network: self.network,
            height: head.height,
            block: head.digest,
            state_root: head.state_root,
            last_block_at_ms: head.timestamp_ms,
            peers: self.epochs.voters(self.epochs.of(head.height + 1)).0,
            queued: self.admission.shared.mempool.len() as u32,
        }
    }

    async fn submit(&self, tx: SignedTransaction) -> Result<TransactionId, SubmitError> {
        let id = tx.id();
        self.admitted(id, tx).await.map(|_| id)
    }

    async fn submit_and_wait(&self, tx: SignedTransaction) -> Result<Final, SubmitError> {
        let id = tx.id();
        let waiter = self.board.wait(id);
        match self.admitted(id, tx).await {
            Ok(None) => self.verdict(waiter).await,
            Ok(Some(done)) => {
                drop(waiter);
                self.board.forget(&id);
                Ok(done)
            }
            Err(error) => {
                drop(waiter);
                self.board.forget(&id);
                Err(error)
            }
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<Value>, ChainFailure> {
        let values = self.admission.values(vec![key.clone()]).await;
        Ok(self.because(values).await?.pop().flatten())
    }

    async fn prove(&self, keys: &[Key]) -> Result<Proven, ChainFailure> {
        let proven = self.because(self.reads.proofs(keys.to_vec()).await).await?;
        Ok(Proven {
            height: self.height_of(proven.root).await?,
            values: proven.values,
        })
    }

    async fn block(&self, height: u64) -> Result<Option<Arc<FinalBlock>>, ChainFailure> {
        if height > self.board.head().height {
            return Ok(None);
        }
        if let Some(block) = self.board.recent(height) {
            return Ok(Some(block));
        }
        match self.reads.block(height).await {
            Ok(Some(block)) => Ok(Some(Arc::new(block))),
            Ok(None) | Err(_) => Err(self.missing(height).await),
        }
    }

    async fn block_by_digest(&self, digest: Digest) -> Result<Option<Arc<FinalBlock>>, ChainFailure> {
        let head = self.board.head().height;
        let block = self.because(self.reads.block_by_digest(digest).await).await?;
        Ok(block.filter(|block| block.height <= head).map(Arc::new))
    }

    async fn transaction(&self, id: TransactionId) -> Result<Option<(u64, u32)>, ChainFailure> {
        Ok(self.locate(id).await?.map(|located| (located.height, located.index)))
    }

    fn blocks_from(&self, from: u64) -> BoxStream<'static, Arc<FinalBlock>> {
        let reader = Reader {
            board: self.board.clone(),
            reads: self.reads.clone(),
            next: from.max(1),
        };
        stream::unfold(reader, Reader::step).boxed()
    }
}

/// A place in the chain.
struct Reader {
    board: Arc<Board>,
    reads: Reads,
    next: u64,
}

impl Reader {
    async fn step(mut self) -> Option<(Arc<FinalBlock>, Self)> {
        if !self.board.reach(self.next).await {
            return None;
        }
        let block = match self.board.recent(self.next) {
            Some(block) => block,
            // A failed read means that the chain has stopped; the stream ends and the owner of the node knows why.
            None => Arc::new(self.reads.block(self.next).await.ok()??),
        };
        self.next += 1;
        Some((block, self))
    }
}
