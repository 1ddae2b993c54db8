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
use commonware_runtime::{
    Runner as _,
    tokio::{self as engine_runtime, Context},
};
use piecework_ledger::{Genesis, RULES};
use piecework_model::{PublicKey, SecretKey};
use tokio::sync::{oneshot, watch};

use crate::{
    Chain, ChainFailure, Node,
    admission::Admission,
    application::Shared,
    committee::{Identity, Member, Part},
    directory::{Directory, HighWater},
    engine::{self, Setup},
    epochs::Epochs,
    gossip,
    handle::{Handle, Starting},
    network,
    publish::Board,
    reads,
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
    /// The highest rules of the ledger that this peer takes part in: [`RULES`], or fewer in a test of what an older build
    /// does.
    pub rules_known: u32,
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
            rules_known: RULES,
        }
    }
}

/// Blocking threads of the engine's runtime: file operations, one at a time for most of its parts.
const BLOCKING_THREADS_MAX: usize = 16;
const HEARTBEAT_MIN: Duration = Duration::from_millis(20);
const HEARTBEAT_MAX: Duration = Duration::from_secs(3600);

/// A peer that runs until its shutdown or a failure. Dropping it stops the peer without waiting.
struct Peer {
    handle: Arc<Handle>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// A peer whose engine does not run yet.
pub(crate) struct Prepared {
    /// To be held as long as the engine runs.
    pub(crate) directory: Directory,
    pub(crate) handle: Arc<Handle>,
    pub(crate) setup: Setup,
    pub(crate) starting: Starting,
    /// Dropping it stops the engine.
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) ended: watch::Sender<Option<ChainFailure>>,
}

/// Starts a peer and returns once it is where its last run had left it. Resolves on a tokio runtime of the caller's; the
/// peer has threads of its own.
pub async fn start(options: Options) -> Result<Box<dyn Node>, ChainFailure> {
    let (root, worker_threads) = (options.directory.clone(), options.worker_threads);
    check_listen(options.listen)?;
    let Prepared {
        directory,
        handle,
        setup,
        starting,
        stop,
        ended,
    } = prepare(options)?;
    let thread = spawn(directory, worker_threads, setup, ended)?;
    let node = Peer {
        handle: handle.clone(),
        stop: Some(stop),
        thread: Some(thread),
    };
    let Starting {
        readied,
        reached,
        indexed,
    } = starting;
    match handle.catch_up(readied, reached, |tip| handle.stalled(tip)).await {
        Ok(resumed) => {
            tokio::spawn(handle.reindex(resumed, indexed));
            Ok(Box::new(node))
        }
        Err(failure) => Err(handle.cause(failure, root).await),
    }
}

/// Checks the options, opens the directory, and makes everything but the engine.
pub(crate) fn prepare(options: Options) -> Result<Prepared, ChainFailure> {
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
    let directory = Directory::open(&options.directory, network, options.key.public())?;

    let shared = Arc::new(Shared::new(network, genesis).knowing(options.rules_known));
    let high_water = HighWater::open(&directory)?;
    let reached = high_water.reached();
    let board = Arc::new(Board::new(shared.clone(), high_water, options.transactions_indexed_max));
    let (reads, queues) = reads::queues();
    let (ready, readied) = oneshot::channel();
    let (stop, stopped) = oneshot::channel();
    let (ended_sender, ended) = watch::channel(None);
    let (indexed_sender, indexed) = watch::channel(false);
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
    let starting = Starting {
        readied,
        reached,
        indexed: indexed_sender,
    };
    Ok(Prepared {
        directory,
        handle,
        setup,
        starting,
        stop,
        ended: ended_sender,
    })
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
        let result = catch_unwind(AssertUnwindSafe(|| runner.start(|context| serve(context, setup))));
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

async fn serve(context: Context, setup: Setup) -> Result<(), ChainFailure> {
    let peers = setup.founders.len() + setup.contacts.len();
    let wires = network::open(&context, &setup.epochs, setup.listen, peers);
    engine::run(context, setup, wires).await
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
