//! The ledger without consensus: its own rules on a state in memory. Each submission is a block.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt as _, stream, stream::BoxStream};
use parking_lot::Mutex;
use piecework_chain::{Chain, ChainFailure, ChainStatus, Final, FinalBlock, Proven, SubmitError};
use piecework_ledger::{BlockContext, Genesis, Key, SignedTransaction, TransactionId, Value, execute};
use piecework_model::{Digest, NetworkId};
use piecework_proof::Header;
use tokio::sync::watch;

pub(crate) struct Ledger {
    network: NetworkId,
    written: Arc<Mutex<Written>>,
    height: watch::Sender<u64>,
    /// Too few peers answer.
    stalled: watch::Sender<bool>,
    /// It executes, and tells nobody.
    mute: watch::Sender<bool>,
}

struct Written {
    state: BTreeMap<Key, Value>,
    /// From block 1.
    blocks: Vec<Arc<FinalBlock>>,
}

impl Ledger {
    pub(crate) fn of(genesis: &Genesis) -> Arc<Self> {
        let state = genesis.state().expect("sound").into_iter();
        let written = Written {
            state: state.filter_map(|(key, value)| Some((key, value?))).collect(),
            blocks: Vec::new(),
        };
        Arc::new(Self {
            network: genesis.network_id(),
            written: Arc::new(Mutex::new(written)),
            height: watch::Sender::new(0),
            stalled: watch::Sender::new(false),
            mute: watch::Sender::new(false),
        })
    }

    /// The next block, of these.
    pub(crate) fn block(&self, transactions: Vec<SignedTransaction>) -> Arc<FinalBlock> {
        let mut written = self.written.lock();
        let height = written.blocks.len() as u64 + 1;
        let context = BlockContext {
            network: self.network,
            height,
        };
        let applied = execute(&written.state, &context, &transactions);
        for (key, change) in applied.changes {
            match change {
                Some(value) => drop(written.state.insert(key, value)),
                None => drop(written.state.remove(&key)),
            }
        }
        let header = Header {
            height,
            ..Header::genesis(&self.network)
        };
        let block = Arc::new(FinalBlock::new(header, transactions, applied.outcomes, Vec::new()));
        written.blocks.push(block.clone());
        drop(written);
        self.height.send_replace(height);
        block
    }

    /// What is submitted from now on waits, until this is told that peers answer again.
    pub(crate) fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// What is submitted from now on is executed, and not answered until this is told to speak again.
    pub(crate) fn mute(&self, mute: bool) {
        self.mute.send_replace(mute);
    }

    pub(crate) fn network_id(&self) -> NetworkId {
        self.network
    }

    pub(crate) fn value(&self, key: &Key) -> Option<Value> {
        self.written.lock().state.get(key).cloned()
    }

    pub(crate) fn all(&self) -> BTreeMap<Key, Value> {
        self.written.lock().state.clone()
    }

    /// Resolves at the next block.
    pub(crate) async fn grown(&self) {
        let mut height = self.height.subscribe();
        height.changed().await.expect("it lives");
    }

    fn place(&self, id: TransactionId) -> Option<(Arc<FinalBlock>, u32)> {
        let written = self.written.lock();
        written.blocks.iter().find_map(|block| {
            let index = block.outcomes.iter().position(|outcome| outcome.id == id)?;
            Some((block.clone(), index as u32))
        })
    }
}

#[async_trait]
impl Chain for Ledger {
    fn network(&self) -> NetworkId {
        self.network
    }

    fn status(&self) -> ChainStatus {
        ChainStatus {
            network: self.network,
            height: *self.height.borrow(),
            block: Digest::default(),
            state_root: Digest::default(),
            last_block_at_ms: 0,
            peers: 1,
            queued: 0,
        }
    }

    async fn submit(&self, tx: SignedTransaction) -> Result<TransactionId, SubmitError> {
        self.submit_and_wait(tx).await.map(|done| done.id)
    }

    async fn submit_and_wait(&self, tx: SignedTransaction) -> Result<Final, SubmitError> {
        let moves = self.stalled.subscribe().wait_for(|stalled| !stalled).await.is_ok();
        assert!(moves, "the sender is here");
        let (block, index) = match self.place(tx.id()) {
            Some(place) => place,
            None => (self.block(vec![tx]), 0),
        };
        let speaks = self.mute.subscribe().wait_for(|mute| !mute).await.is_ok();
        assert!(speaks, "the sender is here");
        Ok(block.result_of(index).expect("it is in it")?)
    }

    async fn get(&self, key: &Key) -> Result<Option<Value>, ChainFailure> {
        Ok(self.value(key))
    }

    async fn prove(&self, _keys: &[Key]) -> Result<Proven, ChainFailure> {
        Err(ChainFailure::Stopped {
            detail: "it proves nothing".to_owned(),
        })
    }

    async fn block(&self, height: u64) -> Result<Option<Arc<FinalBlock>>, ChainFailure> {
        let written = self.written.lock();
        let index = usize::try_from(height).expect("few").checked_sub(1);
        Ok(index.and_then(|index| written.blocks.get(index).cloned()))
    }

    async fn block_by_digest(&self, digest: Digest) -> Result<Option<Arc<FinalBlock>>, ChainFailure> {
        let written = self.written.lock();
        Ok(written.blocks.iter().find(|block| block.digest == digest).cloned())
    }

    async fn transaction(&self, id: TransactionId) -> Result<Option<(u64, u32)>, ChainFailure> {
        Ok(self.place(id).map(|(block, index)| (block.height, index)))
    }

    fn blocks_from(&self, from: u64) -> BoxStream<'static, Arc<FinalBlock>> {
        let place = (self.written.clone(), self.height.subscribe(), from.max(1));
        let step = async |(written, mut height, next): Place| {
            height.wait_for(|height| *height >= next).await.ok()?;
            let block = written.lock().blocks.get(next as usize - 1).cloned()?;
            Some((block, (written, height, next + 1)))
        };
        stream::unfold(place, step).boxed()
    }
}

/// A reader's, in the blocks.
type Place = (Arc<Mutex<Written>>, watch::Receiver<u64>, u64);
