//! Tells everybody what became final: the head, recent blocks, the index, and whoever waits for a transaction.

use std::{
    collections::{BTreeMap, VecDeque},
    io::ErrorKind,
    sync::Arc,
};

use commonware_cryptography::Digestible as _;
use parking_lot::Mutex;
use piecework_ledger::{BlockContext, SignedTransaction, TransactionId, check};
use piecework_model::{Code, Digest, Rejection};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{
    ChainFailure, Final, FinalBlock,
    application::Shared,
    block::Block,
    directory::HighWater,
    index::{Index, Located},
    reads::{Marshal, Reads, present},
    state::Fetched,
};

/// Blocks kept in memory for those who follow the head.
const RECENT_MAX: usize = 128;
/// And their transactions, so that full blocks do not fill the memory.
const RECENT_BYTES_MAX: usize = 16 << 20;

/// The last published block.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Head {
    pub(crate) height: u64,
    pub(crate) digest: Digest,
    pub(crate) state_root: Digest,
    pub(crate) timestamp_ms: u64,
    /// Nothing will follow.
    closed: bool,
}

impl From<&FinalBlock> for Head {
    fn from(block: &FinalBlock) -> Self {
        Self {
            height: block.height,
            digest: block.digest,
            state_root: block.state_root,
            timestamp_ms: block.timestamp_ms,
            closed: false,
        }
    }
}

pub(crate) type Verdict = Result<Final, Rejection>;

/// What has been published, for the node's readers.
pub(crate) struct Board {
    shared: Arc<Shared>,
    high_water: HighWater,
    head: Mutex<Head>,
    /// Whoever waits for the head is woken in the order in which they came: the same in each run of a simulation.
    moved: Notify,
    recent: Mutex<Recent>,
    index: Mutex<Index>,
    waiters: Mutex<BTreeMap<TransactionId, Vec<oneshot::Sender<Verdict>>>>,
}

#[derive(Default)]
struct Recent {
    blocks: VecDeque<(Arc<FinalBlock>, usize)>,
    bytes: usize,
}

impl Board {
    pub(crate) fn new(shared: Arc<Shared>, high_water: HighWater, transactions_indexed_max: usize) -> Self {
        Self {
            shared,
            high_water,
            head: Mutex::default(),
            moved: Notify::new(),
            recent: Mutex::default(),
            index: Mutex::new(Index::new(transactions_indexed_max)),
            waiters: Mutex::default(),
        }
    }

    pub(crate) fn head(&self) -> Head {
        *self.head.lock()
    }

    fn set_head(&self, head: Head) {
        *self.head.lock() = head;
        self.moved.notify_waiters();
    }

    /// Waits until `height` is published; `false` if the chain stops before. Cancel safe.
    pub(crate) async fn reach(&self, height: u64) -> bool {
        loop {
            let moved = self.moved.notified();
            let head = self.head();
            if head.height >= height || head.closed {
                return head.height >= height;
            }
            moved.await;
        }
    }

    /// Waits until the last published block is this one. Cancel safe.
    pub(crate) async fn published(&self, block: Digest) {
        loop {
            let moved = self.moved.notified();
            if self.head().digest == block {
                return;
            }
            moved.await;
        }
    }

    /// The engine has stopped: lets go of everybody who waits.
    pub(crate) fn close(&self) {
        self.head.lock().closed = true;
        self.moved.notify_waiters();
        self.waiters.lock().clear();
    }

    pub(crate) fn recent(&self, height: u64) -> Option<Arc<FinalBlock>> {
        let recent = self.recent.lock();
        let first = recent.blocks.front()?.0.height;
        let at = usize::try_from(height.checked_sub(first)?).ok()?;
        recent.blocks.get(at).map(|(block, _)| block.clone())
    }

    /// The latest of the recent blocks after which the state had this root.
    pub(crate) fn with_state(&self, root: Digest) -> Option<u64> {
        let head = self.head();
        if head.state_root == root {
            return Some(head.height);
        }
        let recent = self.recent.lock();
        let found = recent.blocks.iter().rev().find(|(block, _)| block.state_root == root);
        found.map(|(block, _)| block.height)
    }

    pub(crate) fn located(&self, id: &TransactionId) -> Option<Located> {
        self.index.lock().get(id)
    }

    /// Resolves with what becomes of the transaction. Register before submitting.
    pub(crate) fn wait(&self, id: TransactionId) -> oneshot::Receiver<Verdict> {
        let (sender, receiver) = oneshot::channel();
        let mut waiters = self.waiters.lock();
        if self.head().closed {
            return receiver;
        }
        let waiting = waiters.entry(id).or_default();
        waiting.retain(|waiter| !waiter.is_closed());
        waiting.push(sender);
        receiver
    }

    /// Forgets waiters that have gone, of a transaction that is not queued.
    pub(crate) fn forget(&self, id: &TransactionId) {
        let mut waiters = self.waiters.lock();
        if let Some(waiting) = waiters.get_mut(id) {
            waiting.retain(|waiter| !waiter.is_closed());
            if waiting.is_empty() {
                waiters.remove(id);
            }
        }
    }

    fn tell(&self, id: &TransactionId, verdict: &Verdict) {
        for waiter in self.waiters.lock().remove(id).into_iter().flatten() {
            // A waiter that has gone does not care.
            let _ = waiter.send(verdict.clone());
        }
    }

    /// Where a restarted node begins: everything up to `block` was published before.
    pub(crate) fn resume(&self, block: &FinalBlock) {
        self.shared.set_height(block.height);
        self.set_head(Head::from(block));
    }

    /// The order matters: who finds a transaction neither queued nor indexed may take it for unknown.
    fn publish(&self, block: Arc<FinalBlock>) -> Vec<Arc<SignedTransaction>> {
        self.recent.lock().push(block.clone());
        self.index.lock().push(block.height, &block.outcomes);
        let done: Vec<_> = block
            .outcomes
            .iter()
            .zip(&block.transactions)
            .map(|(outcome, transaction)| (outcome.id, transaction, outcome.result.is_ok()))
            .collect();
        let stale = self.shared.mempool.settle(&done);
        self.shared.set_height(block.height);
        self.set_head(Head::from(&*block));
        for (index, outcome) in block.outcomes.iter().enumerate() {
            if let Some(verdict) = block.result_of(index as u32) {
                self.tell(&outcome.id, &verdict);
            }
        }
        stale
    }

    /// Publishes final blocks as they come, each once, until the engine stops.
    pub(crate) async fn run(self: Arc<Self>, mut finals: mpsc::Receiver<Block>, marshal: Marshal, reads: Reads) {
        while let Some(block) = finals.recv().await {
            if block.header.height.get() <= self.head().height {
                continue; // delivered again after a crash
            }
            self.raise(&block);
            let stale = self.publish(Arc::new(present(&marshal, &block).await));
            for transaction in stale {
                self.tell(&transaction.id(), &Err(self.refusal(&reads, &transaction).await));
            }
        }
    }

    /// Before anybody is told.
    fn raise(&self, block: &Block) {
        let (height, digest) = (block.header.height.get(), Digest(block.digest().0));
        match self.high_water.raise(height, digest) {
            Ok(()) => {}
            // The block itself is on disk. A mark that is behind finds less of a damage, and the next block raises it.
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                tracing::warn!(height, "the disk is full: the high-water mark stays behind");
            }
            Err(error) => panic!("the high-water mark cannot be written: {error}"),
        }
    }

    /// Why a transaction that was dropped could not be executed.
    async fn refusal(&self, reads: &Reads, transaction: &SignedTransaction) -> Rejection {
        let context = BlockContext {
            network: self.shared.network,
            height: self.head().height + 1,
        };
        let mut fetched = Fetched::default();
        let fetch = |keys| reads.values(keys);
        let checked: Result<_, ChainFailure> = fetched
            .complete(&fetch, |view| check(view, &context, transaction))
            .await;
        match checked {
            Ok(Err(rejection)) => rejection,
            Ok(Ok(())) | Err(_) => Rejection::new(Code::MempoolNonceTaken, "another transaction used this nonce"),
        }
    }

    /// Fills the index from the blocks before the head, newest first, skipping those without transactions.
    pub(crate) async fn reindex(&self, reads: &Reads, from: u64) -> Result<(), ChainFailure> {
        let mut height = from;
        while height > 0 && !self.index.lock().is_full() {
            let Some(block) = reads.block(height).await? else {
                return Ok(());
            };
            self.index.lock().push_older(block.height, &block.outcomes);
            height = block.previous_busy;
        }
        Ok(())
    }
}

impl Recent {
    fn push(&mut self, block: Arc<FinalBlock>) {
        let bytes: usize = block
            .transactions
            .iter()
            .map(|transaction| borsh::object_length(transaction).expect("a counter accepts every byte"))
            .sum();
        if self
            .blocks
            .back()
            .is_some_and(|(last, _)| last.height + 1 != block.height)
        {
            *self = Self::default(); // heights must be contiguous for the lookup by place
        }
        self.bytes += bytes;
        self.blocks.push_back((block, bytes));
        while self.blocks.len() > 1 && (self.blocks.len() > RECENT_MAX || self.bytes > RECENT_BYTES_MAX) {
            if let Some((_, bytes)) = self.blocks.pop_front() {
                self.bytes -= bytes;
            }
        }
    }
}
