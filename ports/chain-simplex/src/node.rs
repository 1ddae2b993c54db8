//! A running peer: the engine's thread, and the handle that others hold.

use std::{
    net::{SocketAddr, TcpListener},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use commonware_consensus::types::Epoch;
use commonware_runtime::{Runner as _, tokio as engine_runtime};
use futures::stream::{self, BoxStream, StreamExt as _};
use piecework_ledger::{Genesis, Key, SignedTransaction, TransactionId, Value};
use piecework_model::{Digest, NetworkId, PublicKey, SecretKey};
use tokio::sync::{oneshot, watch};

use crate::{
    Chain, ChainFailure, ChainStatus, Final, FinalBlock, Node, Proven, SubmitError,
    admission::Admission,
    application::Shared,
    committee::{Identity, Member, Part},
    directory::{Directory, HighWater},
    engine::{self, FINALS_WAITING_MAX, Ready, Setup},
    epochs::Epochs,
    gossip::{self, Outbox},
    publish::{Board, Verdict},
    reads::{self, Reads},
};

/// How a peer runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of this peer alone; created if missing.
    pub directory: PathBuf,
    pub genesis: Genesis,
    /// The consensus key, named in the genesis. A peer that lost its directory needs a new one.
    pub key: SecretKey,
    /// For the other peers. Port 0 will do where there are none.
    pub listen: SocketAddr,
    /// The longest time between blocks when nothing happens, 20 ms to 1 hour. All peers of a network use the same. Blocks
    /// are the ledger's clock: a short heartbeat costs disk, a long one lets windows last longer.
    pub heartbeat: Duration,
    /// Threads of the engine's own runtime: 1 or 2 for a small network.
    pub worker_threads: usize,
    /// Transactions whose place is remembered, some 80 bytes each.
    pub transactions_indexed_max: usize,
    /// Starts with a key that the genesis does not name: it follows the ledger once the peers have voted it in, and votes
    /// from the block that they fixed.
    pub joins: bool,
    /// Peers of today, where those of the genesis may be gone.
    pub contacts: Vec<Contact>,
}

/// A peer that the operator names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    pub key: PublicKey,
    /// `host:port`
    pub address: String,
}

impl Options {
    /// A second between empty blocks, two threads, the latest 100,000 transactions.
    pub fn new(directory: PathBuf, genesis: Genesis, key: SecretKey, listen: SocketAddr) -> Self {
        Self {
            directory,
            genesis,
            key,
            listen,
            heartbeat: Duration::from_secs(1),
            worker_threads: 2,
            transactions_indexed_max: 100_000,
            joins: false,
            contacts: Vec::new(),
        }
    }
}

/// Blocking threads of the engine's runtime: file operations, one at a time for most of its parts.
const BLOCKING_THREADS_MAX: usize = 16;
/// The engine's time to say what stopped it.
const STOPPING: Duration = Duration::from_secs(10);
/// The same where it may well not stop at all.
const STOPPING_SOON: Duration = Duration::from_secs(2);
const HEARTBEAT_MIN: Duration = Duration::from_millis(20);
const HEARTBEAT_MAX: Duration = Duration::from_secs(3600);

/// A peer that runs until its shutdown or a failure. Dropping it stops the peer without waiting.
struct Peer {
    handle: Arc<Handle>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Handle {
    network: NetworkId,
    /// The only peer of its network: nobody else can have made its first block.
    founder: bool,
    epochs: Epochs,
    board: Arc<Board>,
    reads: Reads,
    admission: Admission,
    /// To the other peers.
    outbox: Outbox,
    /// `None` while it runs; closed without a failure after a clean stop.
    ended: watch::Receiver<Option<ChainFailure>>,
    /// Whether the index holds the blocks of earlier runs.
    indexed: watch::Receiver<bool>,
}

/// Starts a peer and returns once it is where its last run had left it. Resolves on a tokio runtime of the caller's; the
/// peer has threads of its own.
pub async fn start(options: Options) -> Result<Box<dyn Node>, ChainFailure> {
    let network = options.genesis.network_id();
    let genesis = options.genesis.state().map_err(ChainFailure::Genesis)?;
    let genesis = genesis
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    let heartbeat = options.heartbeat.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX);
    let founders: Vec<Member> = options.genesis.peers.iter().map(Member::from).collect();
    let named = founders.iter().any(|founder| founder.key == options.key.public());
    if !named && !options.joins {
        return Err(ChainFailure::NotAPeer);
    }
    let epochs = Epochs::new(
        options.genesis.params.epoch_blocks,
        Identity::new(network, &options.key)?,
    );
    epochs.learn(Epoch::zero(), founders.clone(), Part::Votes)?;
    check_listen(options.listen)?;
    let directory = Directory::open(&options.directory, network, options.key.public())?;

    let shared = Arc::new(Shared::new(network, genesis));
    let high_water = HighWater::open(&directory)?;
    let reached = high_water.reached();
    let board = Arc::new(Board::new(shared.clone(), high_water, options.transactions_indexed_max));
    let (reads, queues) = reads::queues();
    let (ready, readied) = oneshot::channel();
    let (stop, stopped) = oneshot::channel();
    let admission = Admission {
        network,
        shared,
        board: board.clone(),
        reads: reads.clone(),
    };
    let (outbox, outgoing) = gossip::outbox();
    let founder = named && founders.len() == 1;
    let contacts = options.contacts.into_iter().map(Member::from).collect();
    let setup = Setup {
        epochs: epochs.clone(),
        founders,
        contacts,
        listen: options.listen,
        heartbeat,
        memory: directory.memory(),
        admission: admission.clone(),
        outgoing,
        queues,
        ready,
        stop: stopped,
    };
    let (ended_sender, ended) = watch::channel(None);
    let thread = spawn(directory, options.worker_threads, setup, ended_sender)?;
    let (indexed_sender, indexed) = watch::channel(false);
    let handle = Arc::new(Handle {
        network,
        founder,
        epochs,
        board,
        reads,
        admission,
        outbox,
        ended,
        indexed,
    });
    let node = Peer {
        handle: handle.clone(),
        stop: Some(stop),
        thread: Some(thread),
    };
    match handle.catch_up(readied, reached).await {
        Ok(resumed) => {
            tokio::spawn(reindex(handle, resumed, indexed_sender));
            Ok(Box::new(node))
        }
        Err(failure) => Err(handle.cause(failure, options.directory).await),
    }
}

/// The engine would panic; this names the address.
fn check_listen(address: SocketAddr) -> Result<(), ChainFailure> {
    TcpListener::bind(address)
        .map(drop)
        .map_err(|source| ChainFailure::Listen {
            address,
            source: Arc::new(source),
        })
}

fn spawn(
    directory: Directory,
    worker_threads: usize,
    setup: Setup,
    ended: watch::Sender<Option<ChainFailure>>,
) -> Result<thread::JoinHandle<()>, ChainFailure> {
    let config = engine_runtime::Config::new()
        .with_storage_directory(directory.data())
        .with_worker_threads(worker_threads.max(1))
        .with_max_blocking_threads(BLOCKING_THREADS_MAX);
    let root = directory.root().to_owned();
    let run = move || {
        let board = setup.admission.board.clone();
        let reading = setup.queues.reading();
        let runner = engine_runtime::Runner::new(config);
        let result = catch_unwind(AssertUnwindSafe(|| runner.start(|context| engine::run(context, setup))));
        let failure = match result {
            Ok(stopped) => stopped.err(),
            Err(payload) => {
                let reading = reading.load(Ordering::Relaxed);
                Some(directory.blame(ChainFailure::from_panic(payload.as_ref()), reading))
            }
        };
        if failure.is_some() {
            ended.send_replace(failure);
        }
        board.close();
        // The lock goes last: nobody else may open the directory before.
        drop(directory);
    };
    let thread = thread::Builder::new().name("chain".to_owned()).spawn(run);
    thread.map_err(|error| ChainFailure::directory(root, error))
}

async fn reindex(handle: Arc<Handle>, from: u64, indexed: watch::Sender<bool>) {
    match handle.board.reindex(&handle.reads, from).await {
        Ok(()) => {
            indexed.send_replace(true);
        }
        Err(failure) => tracing::warn!(%failure, "old transactions could not be indexed"),
    }
}

#[async_trait]
impl Node for Peer {
    fn chain(&self) -> Arc<dyn Chain> {
        self.handle.clone()
    }

    async fn failed(&self) -> ChainFailure {
        self.handle.failed().await
    }

    async fn shutdown(mut self: Box<Self>) -> Result<(), ChainFailure> {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            debug_assert!(matches!(joined, Ok(Ok(()))), "the thread catches its panics");
        }
        match &*self.handle.ended.borrow() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }
}

impl Handle {
    async fn failed(&self) -> ChainFailure {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(failure)) => failure.clone(),
            Ok(None) | Err(_) => ChainFailure::Stopped {
                detail: "it was shut down".to_owned(),
            },
        }
    }

    /// Waits until the peer is where its last run had left it; returns the block at which it began.
    async fn catch_up(
        &self,
        readied: oneshot::Receiver<Ready>,
        reached: Option<(u64, Digest)>,
    ) -> Result<u64, ChainFailure> {
        let Ok(ready) = readied.await else {
            return Err(self.failed().await);
        };
        self.reach(&ready).await?;
        if let Some(reached) = reached {
            self.check_history(reached).await?;
        }
        Ok(ready.resumed)
    }

    /// Why a start failed: what the engine itself says of it comes first, and silence means that the data is not as it was.
    async fn cause(&self, failure: ChainFailure, directory: PathBuf) -> ChainFailure {
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
        self.admit(id, tx).await.map(|_| id)
    }

    async fn submit_and_wait(&self, tx: SignedTransaction) -> Result<Final, SubmitError> {
        let id = tx.id();
        let waiter = self.board.wait(id);
        match self.admit(id, tx).await {
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
        Ok(self.admission.values(vec![key.clone()]).await?.pop().flatten())
    }

    async fn prove(&self, keys: &[Key]) -> Result<Proven, ChainFailure> {
        let proven = self.reads.proofs(keys.to_vec()).await?;
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
        match self.reads.block(height).await? {
            Some(block) => Ok(Some(Arc::new(block))),
            None => Err(self.missing(height).await),
        }
    }

    async fn block_by_digest(&self, digest: Digest) -> Result<Option<Arc<FinalBlock>>, ChainFailure> {
        let head = self.board.head().height;
        let block = self.reads.block_by_digest(digest).await?;
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
