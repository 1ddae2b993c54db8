//! The ledger through the HTTP API of its peers: for a program that runs none itself.
//!
//! ```text
//! submit, get, block -> the peer that answered last -> the next one when it does not
//! follower: long poll from the head on -> parent and roots checked -> head, recent blocks, whoever waits
//! ```
//!
//! Any of the peers may go and come back: a question goes to the next one, a transaction that waits is sent again (the
//! same bytes: nothing happens twice), and an answer never comes from a state older than one that was seen before.
//!
//! **What is trusted.** The peers whose URLs are given: that what they show as final is final, and that a value is what
//! the state holds. What one peer alone cannot do unnoticed: change a block's transactions or outcomes (its digest
//! covers them), answer for another network (every answer names it, and the genesis file says which is right), or, when
//! asked after another peer, tell a different history from there on (each block must name the last one seen as its
//! parent). Use peers of your own or of several owners; certificates are not checked here, a job's proof is checked by
//! `piecework job ID --proof`.

mod follow;
mod peers;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use parking_lot::Mutex;
use piecework_api::ledger::{BlocksQuery, ValueQuery};
use piecework_ledger::{Genesis, Key, SignedTransaction, TransactionId, Value};
use piecework_model::{Digest, NetworkId};
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use follow::{Recent, Verdict};
use peers::{Peers, Trouble};
use piecework_chain::{Chain, ChainFailure, ChainStatus, Final, FinalBlock, Proven, SubmitError};

/// Which ledger, and who shows it.
#[derive(Clone, Debug)]
pub struct Options {
    /// `http://host:port` of each peer, the preferred one first.
    pub peers: Vec<String>,
    /// Says which network it is.
    pub genesis: Genesis,
    /// How long a question waits for any peer to answer before it fails.
    pub patience: Duration,
}

impl Options {
    /// Half a minute of patience: a peer's restart and a change of leader fit in.
    pub fn new(peers: Vec<String>, genesis: Genesis) -> Self {
        Self {
            peers,
            genesis,
            patience: Duration::from_secs(30),
        }
    }
}

/// A transaction that was taken and is not final after this long is sent again: the peer that had it may be gone.
const RESUBMIT_AFTER: Duration = Duration::from_secs(2);

/// The handle; dropping the last one ends the follower and all streams.
struct Remote {
    ledger: Arc<Ledger>,
    _following: DropGuard,
}

pub(crate) struct Ledger {
    network: NetworkId,
    peers: Peers,
    head: watch::Sender<ChainStatus>,
    recent: Mutex<Recent>,
    waiters: Mutex<HashMap<TransactionId, Vec<oneshot::Sender<Verdict>>>>,
    /// The peer that was asked is gone: what waits there is sent to another.
    moved: Notify,
    closed: CancellationToken,
}

/// Follows the ledger through its peers. Returns once one of them has answered; fails if none does within the patience,
/// or if all that do belong to another network.
pub async fn connect(options: Options) -> Result<Arc<dyn Chain>, ChainFailure> {
    let network = options.genesis.network_id();
    let peers = Peers::new(&options.peers, network, options.patience)?;
    let (head, recent) = follow::begin(&peers).await?;
    let closed = CancellationToken::new();
    let ledger = Arc::new(Ledger {
        network,
        peers,
        head: watch::Sender::new(head),
        recent: Mutex::new(recent),
        waiters: Mutex::default(),
        moved: Notify::new(),
        closed: closed.clone(),
    });
    tokio::spawn(follow::run(ledger.clone()));
    Ok(Arc::new(Remote {
        ledger,
        _following: closed.drop_guard(),
    }))
}

impl Ledger {
    fn height(&self) -> u64 {
        self.head.borrow().height
    }

    /// As many blocks from `from` on as fit one answer.
    async fn page(&self, from: u64, count: u32) -> Result<Vec<Arc<FinalBlock>>, ChainFailure> {
        let query = BlocksQuery {
            from,
            count: Some(count),
            wait_ms: None,
        };
        let asked = self
            .peers
            .ask(|peer| async move {
                let page = peer.page(&query).await?;
                if page.blocks.is_empty() {
                    return Err(Trouble::Other("it has not seen that block yet".to_owned()));
                }
                follow::open(from, page.blocks)
            })
            .await;
        asked.map_err(Trouble::into_failure)
    }

    /// Queues it at some peer. The height is that of a block that holds it already.
    async fn send(&self, encoded: &str) -> Result<Option<u64>, SubmitError> {
        let asked = self
            .peers
            .ask(|peer| async move { peer.submit(encoded.to_owned()).await })
            .await;
        asked.map_err(Trouble::into_submit_error)
    }

    fn wait(&self, id: TransactionId) -> oneshot::Receiver<Verdict> {
        let (sender, receiver) = oneshot::channel();
        let mut waiters = self.waiters.lock();
        let waiting = waiters.entry(id).or_default();
        waiting.retain(|waiter| !waiter.is_closed());
        waiting.push(sender);
        receiver
    }

    /// Drops waiters that have gone.
    fn forget(&self, id: &TransactionId) {
        let mut waiters = self.waiters.lock();
        if let Some(waiting) = waiters.get_mut(id) {
            waiting.retain(|waiter| !waiter.is_closed());
            if waiting.is_empty() {
                waiters.remove(id);
            }
        }
    }

    /// As it was executed by the block at `height`; `None` where that block refused it.
    async fn executed_at(&self, id: TransactionId, height: u64) -> Result<Option<Final>, ChainFailure> {
        // The head is never behind what was answered.
        self.reach(height).await;
        let block = self.find(height).await?;
        Ok(block.and_then(|block| {
            let index = block.outcomes.iter().position(|outcome| outcome.id == id)?;
            block.result_of(u32::try_from(index).ok()?)?.ok()
        }))
    }

    async fn executed(&self, id: TransactionId) -> Result<Option<Final>, ChainFailure> {
        let seen = self.recent.lock().executed(&id);
        match seen {
            Some(height) => self.executed_at(id, height).await,
            None => Ok(None),
        }
    }

    async fn reach(&self, height: u64) {
        let mut head = self.head.subscribe();
        tokio::select! {
            // The sender lives as long as the ledger.
            _ = head.wait_for(|head| head.height >= height) => {}
            () = self.closed.cancelled() => {}
        }
    }

    async fn find(&self, height: u64) -> Result<Option<Arc<FinalBlock>>, ChainFailure> {
        if height > self.height() {
            return Ok(None);
        }
        let recent = self.recent.lock().block(height);
        match recent {
            Some(block) => Ok(Some(block)),
            None if height == 0 => self.genesis().await,
            None => Ok(self.page(height, 1).await?.into_iter().next()),
        }
    }

    /// Block 0 has no place in a page.
    async fn genesis(&self) -> Result<Option<Arc<FinalBlock>>, ChainFailure> {
        let asked = self.peers.ask(|peer| async move { peer.block("0").await }).await;
        asked.map_err(Trouble::into_failure)
    }

    /// Sends until it is final or refused. What the follower sees decides.
    async fn settle(
        &self,
        id: TransactionId,
        encoded: &str,
        mut verdict: oneshot::Receiver<Verdict>,
    ) -> Result<Final, SubmitError> {
        loop {
            let moved = self.moved.notified();
            match self.send(encoded).await {
                Ok(Some(height)) => {
                    if let Some(done) = self.executed_at(id, height).await? {
                        return Ok(done);
                    }
                }
                Ok(None) => {}
                Err(error) => return self.executed(id).await?.ok_or(error),
            }
            tokio::select! {
                verdict = &mut verdict => return verdict_of(verdict),
                () = tokio::time::sleep(RESUBMIT_AFTER) => {}
                () = moved => {}
                () = self.closed.cancelled() => return Err(stopped().into()),
            }
        }
    }
}

fn verdict_of(verdict: Result<Verdict, oneshot::error::RecvError>) -> Result<Final, SubmitError> {
    match verdict {
        Ok(verdict) => Ok(verdict?),
        Err(_) => Err(stopped().into()),
    }
}

fn stopped() -> ChainFailure {
    ChainFailure::Stopped {
        detail: "it is no longer followed".to_owned(),
    }
}

fn encode(tx: &SignedTransaction) -> String {
    hex::encode(borsh::to_vec(tx).expect("a vector accepts every byte"))
}

#[async_trait]
impl Chain for Remote {
    fn network(&self) -> NetworkId {
        self.ledger.network
    }

    fn status(&self) -> ChainStatus {
        *self.ledger.head.borrow()
    }

    async fn submit(&self, tx: SignedTransaction) -> Result<TransactionId, SubmitError> {
        let id = tx.id();
        match self.ledger.send(&encode(&tx)).await {
            Ok(_) => Ok(id),
            Err(error) => self.ledger.executed(id).await?.map(|_| id).ok_or(error),
        }
    }

    async fn submit_and_wait(&self, tx: SignedTransaction) -> Result<Final, SubmitError> {
        let id = tx.id();
        let verdict = self.ledger.wait(id);
        let settled = self.ledger.settle(id, &encode(&tx), verdict).await;
        self.ledger.forget(&id);
        settled
    }

    async fn get(&self, key: &Key) -> Result<Option<Value>, ChainFailure> {
        let key = hex::encode(borsh::to_vec(key).expect("a vector accepts every byte"));
        let (key, query) = (
            &key,
            ValueQuery {
                at_least: Some(self.ledger.height()),
            },
        );
        let asked = self
            .ledger
            .peers
            .ask(|peer| async move { peer.value(key, &query).await })
            .await;
        asked.map_err(Trouble::into_failure)
    }

    async fn prove(&self, keys: &[Key]) -> Result<Proven, ChainFailure> {
        let asked_for = keys.len();
        let keys = &hex::encode(borsh::to_vec(keys).expect("a vector accepts every byte"));
        let asked = self
            .ledger
            .peers
            .ask(|peer| async move {
                let proven = peer.prove(keys).await?;
                match proven.values.len() == asked_for {
                    true => Ok(proven),
                    false => Err(Trouble::Other("it proves something else".to_owned())),
                }
            })
            .await;
        let proven = asked.map_err(Trouble::into_failure)?;
        self.ledger.reach(proven.height).await;
        Ok(proven)
    }

    async fn block(&self, height: u64) -> Result<Option<Arc<FinalBlock>>, ChainFailure> {
        self.ledger.find(height).await
    }

    async fn block_by_digest(&self, digest: Digest) -> Result<Option<Arc<FinalBlock>>, ChainFailure> {
        let name = &digest.to_string();
        let asked = self
            .ledger
            .peers
            .ask(|peer| async move { peer.block(name).await })
            .await;
        let block = asked.map_err(Trouble::into_failure)?;
        Ok(block.filter(|block| block.digest == digest))
    }

    async fn transaction(&self, id: TransactionId) -> Result<Option<(u64, u32)>, ChainFailure> {
        let name = &id.0.to_string();
        let asked = self
            .ledger
            .peers
            .ask(|peer| async move { peer.transaction(name).await })
            .await;
        asked.map_err(Trouble::into_failure)
    }

    fn blocks_from(&self, from: u64) -> BoxStream<'static, Arc<FinalBlock>> {
        let reader = Reader {
            ledger: self.ledger.clone(),
            next: from.max(1),
            read: VecDeque::new(),
        };
        let closed = self.ledger.closed.clone();
        stream::unfold(reader, Reader::step)
            .take_until(closed.cancelled_owned())
            .boxed()
    }
}

/// A place in the chain, and what was read ahead of it.
struct Reader {
    ledger: Arc<Ledger>,
    next: u64,
    read: VecDeque<Arc<FinalBlock>>,
}

/// Blocks read ahead: a page's worth of idle history.
const READ_AHEAD: u32 = 256;
/// Between attempts when no peer answers: a reader waits for as long as it takes.
const READ_AGAIN: Duration = Duration::from_secs(1);

impl Reader {
    async fn step(mut self) -> Option<(Arc<FinalBlock>, Self)> {
        while self.read.is_empty() {
            self.ledger.reach(self.next).await;
            let recent = self.ledger.recent.lock().block(self.next);
            match recent {
                Some(block) => self.read.push_back(block),
                None => match self.ledger.page(self.next, READ_AHEAD).await {
                    Ok(blocks) => self.read.extend(blocks),
                    Err(_) => tokio::time::sleep(READ_AGAIN).await,
                },
            }
        }
        let block = self.read.pop_front()?;
        self.next = block.height + 1;
        Some((block, self))
    }
}
