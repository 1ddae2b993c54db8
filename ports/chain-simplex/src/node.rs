//! What a peer is made of before its engine runs: its options, its directory, and the handle that others hold.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use commonware_consensus::types::Epoch;
use piecework_ledger::{Genesis, RULES};
use piecework_model::{PublicKey, SecretKey};
use tokio::sync::{oneshot, watch};

use crate::{
    ChainFailure,
    admission::Admission,
    application::Shared,
    committee::{Identity, Member, Part},
    directory::{Directory, HighWater},
    engine::Setup,
    epochs::Epochs,
    gossip,
    handle::{Handle, Starting},
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

const HEARTBEAT_MIN: Duration = Duration::from_millis(20);
const HEARTBEAT_MAX: Duration = Duration::from_secs(3600);

/// A peer whose engine does not run yet.
pub struct Prepared {
    /// To be held as long as the engine runs.
    pub directory: Directory,
    pub handle: Arc<Handle>,
    pub setup: Setup,
    pub starting: Starting,
    /// Dropping it stops the engine.
    pub stop: oneshot::Sender<()>,
    pub ended: watch::Sender<Option<ChainFailure>>,
}

/// Checks the options, opens the directory, and makes everything but the engine.
pub fn prepare(options: Options) -> Result<Prepared, ChainFailure> {
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
