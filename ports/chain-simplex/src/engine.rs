//! The wiring of the engine: one concrete set of types, the same for one peer and for many.

use std::{
    net::SocketAddr,
    num::{NonZeroU64, NonZeroUsize},
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use commonware_broadcast::buffered;
use commonware_consensus::{
    marshal::{
        self, Identifier,
        core::Actor as MarshalActor,
        resolver::p2p as marshal_resolver,
        standard::{Deferred, Standard},
    },
    simplex::{scheme::ed25519::Scheme, types::Finalization},
    types::{Height, ViewDelta},
};
use commonware_cryptography::{Digested, Digestible as _, blake3::Digest, certificate::Verifier, ed25519::PublicKey};
use commonware_glue::stateful::{
    Config as StatefulConfig, Stateful, SyncPlan,
    db::{DatabaseSet, SyncEngineConfig},
};
use commonware_p2p::{Blocker, Provider};
use commonware_parallel::Sequential;
use commonware_runtime::buffer::paged::CacheRef;
use commonware_storage::{
    archive::prunable, journal::contiguous::variable::Config as LogConfig, mmr::full::Config as TreeConfig,
    qmdb::current::VariableConfig, translator::EightCap,
};
use commonware_utils::{NZDuration, NZU16, NZU64, NZUsize};
use futures::FutureExt as _;
use piecework_ledger::SignedTransaction;
use tokio::sync::{mpsc, oneshot};

use crate::{
    ChainFailure,
    admission::Admission,
    application::Ledger,
    block::Block,
    committee::{Identity, Member, least},
    consensus::Consensus,
    directory::Memory,
    epochs::Epochs,
    gossip,
    heads::{self, Heads},
    network::{MAILBOX, Neighbours, Wires},
    publish::Board,
    reads::{Marshal, ReadQueues, present},
    runtime::{Runtime, Transport},
    state::{Databases, Nowhere},
};

pub(crate) const PAGE_BYTES: std::num::NonZeroU16 = NZU16!(4084);
pub(crate) const PAGES_CACHED: NonZeroUsize = NZUsize!(2048);
pub(crate) const BUFFER_BYTES: NonZeroUsize = NZUsize!(64 << 10);
const ITEMS_PER_FILE: NonZeroU64 = NZU64!(16_384);
/// Views whose votes and blocks stay at hand for peers that are a little behind.
pub(crate) const VIEWS_KEPT: ViewDelta = ViewDelta::new(64);
/// Blocks that may be final before this node has published them.
pub(crate) const FINALS_WAITING_MAX: usize = 256;

/// What a run of the engine needs.
pub struct Setup {
    pub(crate) epochs: Epochs,
    /// The peers of the genesis.
    pub(crate) founders: Vec<Member>,
    pub(crate) contacts: Vec<Member>,
    pub(crate) listen: SocketAddr,
    pub(crate) heartbeat: Duration,
    pub(crate) memory: Memory,
    pub(crate) admission: Admission,
    /// Transactions to pass on to the other peers.
    pub(crate) outgoing: mpsc::Receiver<SignedTransaction>,
    pub(crate) queues: ReadQueues,
    pub(crate) ready: oneshot::Sender<Ready>,
    pub(crate) stop: oneshot::Receiver<()>,
}

impl Setup {
    pub fn identity(&self) -> &Identity {
        self.epochs.identity()
    }

    /// For the other peers.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Peers that are known by name before the ledger is read.
    pub fn peers_known(&self) -> usize {
        self.founders.len() + self.contacts.len()
    }

    /// What is left to ask and to close once the engine has ended.
    pub fn aftermath(&self) -> Aftermath {
        Aftermath {
            board: self.admission.board.clone(),
            reading: self.queues.reading(),
        }
    }
}

/// What outlives the engine, however it ends.
pub struct Aftermath {
    board: Arc<Board>,
    reading: Arc<AtomicU64>,
}

impl Aftermath {
    /// The block that was being read, or 0.
    pub fn reading(&self) -> u64 {
        self.reading.load(Ordering::Relaxed)
    }

    /// Ends what waits for blocks.
    pub fn close(&self) {
        self.board.close();
    }
}

/// The engine runs.
pub(crate) struct Ready {
    /// The highest block known to be final; the node is as it was once it has published it.
    pub(crate) tip: u64,
    /// The last block that an earlier run had published.
    pub(crate) resumed: u64,
}

/// How long a part that lost another may wait before it says so.
const CAUSE_FIRST: Duration = Duration::from_secs(1);

/// Runs a peer until it is told to stop, or the network takes it out.
///
/// # Panics
/// On storage errors and on damaged data, as the engine does; the caller catches it at the thread's boundary.
pub async fn run<E: Runtime, T: Transport>(context: E, setup: Setup, wires: Wires<T>) -> Result<(), ChainFailure> {
    let clock = context.child("clock");
    match AssertUnwindSafe(serve(context, setup, wires)).catch_unwind().await {
        Ok(ended) => ended,
        Err(panic) => {
            // One part of the engine panics at the cause and the others at having lost it: the runtime reports the first
            // of its own, if it is given the time.
            clock.sleep(CAUSE_FIRST).await;
            resume_unwind(panic)
        }
    }
}

async fn serve<E: Runtime, T: Transport>(context: E, setup: Setup, wires: Wires<T>) -> Result<(), ChainFailure> {
    let page_cache = CacheRef::new(PAGE_BYTES, PAGES_CACHED);
    let admission = setup.admission;

    let initial = <Databases<E> as DatabaseSet<E>>::initial_sync_targets();
    let first = least(&setup.founders)?;
    let genesis = Block::genesis(admission.shared.network, first, initial.root, initial.range);
    let plan = SyncPlan::init(context.child("plan"), "plan".to_owned()).await;
    // A new peer replays every block: it ends with the whole history, and has checked all of it.
    let _ = plan.should_sync(false);

    let start = plan.marshal_start(Digested::precomputed(genesis.clone(), genesis.digest()));
    let archives = Archives::open(&context, &page_cache).await;
    let (marshal_actor, marshal, floor) = MarshalActor::<_, Standard<Block>, _, _, _, _, _>::init(
        context.child("marshal"),
        archives.finalizations,
        archives.blocks,
        marshal_config(&setup.epochs, &page_cache, start),
    )
    .await;
    let resumed = floor.processed().map_or(0, |processed| processed.height().get());

    let (finals_sender, finals) = mpsc::channel(FINALS_WAITING_MAX);
    let application = Ledger {
        genesis: genesis.clone(),
        shared: admission.shared.clone(),
        finals: finals_sender,
    };
    let (stateful, states) = Stateful::new(
        context.child("stateful"),
        stateful_config(application, (marshal.clone(), floor), plan, &page_cache),
    );
    let public_key = setup.epochs.identity().public();
    let resolver = marshal_resolver::init(
        context.child("marshal_resolver"),
        resolver_config(&public_key, &wires.oracle),
        wires.backfill,
    );
    let (broadcast, buffer) =
        buffered::Engine::new(context.child("broadcast"), broadcast_config(&public_key, &wires.oracle));
    broadcast.start(wires.blocks);
    // Before the archive opens: what it lacks after a crash it asks of others, who answer only once the network is there.
    (wires.start)();
    marshal_actor.start(states.clone(), buffer, resolver);
    resume(&marshal, &admission.board, resumed).await;
    stateful.start();
    let databases = states.subscribe_databases().await;
    setup.queues.serve(&context, databases, marshal.clone());
    let publisher = admission
        .board
        .clone()
        .run(finals, marshal.clone(), admission.reads.clone());
    context.child("publish").spawn(move |_| publisher);
    gossip::start(&context, wires.transactions, setup.outgoing, admission.clone());
    let heads = Arc::new(Heads::default());
    heads::start(&context, wires.heads, heads.clone());

    let consensus = Consensus {
        driven: Deferred::new(context.child("deferred"), states, marshal.clone(), setup.epochs.clone()),
        genesis: genesis.digest(),
        neighbours: Neighbours {
            oracle: wires.oracle,
            own: public_key,
            listen: setup.listen,
            contacts: setup.contacts,
        },
        marshal: marshal.clone(),
        wires: wires.consensus,
        heartbeat: setup.heartbeat,
        memory: setup.memory,
        epochs: setup.epochs,
        admission,
        page_cache,
        heads,
        context,
    };
    let tip = marshal.get_info(Identifier::Latest).await;
    let tip = tip.map_or(0, |(height, _)| height.get());
    // The starter has gone: stop at once, which the closed channel below does.
    let _ = setup.ready.send(Ready { tip, resumed });
    tokio::select! {
        biased;
        _ = setup.stop => Ok(()),
        failure = consensus.run(resumed) => Err(failure),
    }
}

type Archive<E, V> = prunable::Archive<EightCap, E, Digest, V>;

/// What is final, for good.
struct Archives<E: Runtime> {
    finalizations: Archive<E, Finalization<Scheme, Digest>>,
    blocks: Archive<E, Arc<Block>>,
}

impl<E: Runtime> Archives<E> {
    async fn open(context: &E, page_cache: &CacheRef) -> Self {
        let certificates = Scheme::certificate_codec_config_unbounded();
        let finalizations = archive("finalizations", page_cache.clone(), certificates);
        let finalizations = prunable::Archive::init(context.child("finalizations"), finalizations).await;
        let blocks = archive("blocks", page_cache.clone(), ());
        let blocks = prunable::Archive::init(context.child("blocks"), blocks).await;
        Self {
            finalizations: finalizations.expect("the archive of finalizations opens"),
            blocks: blocks.expect("the archive of blocks opens"),
        }
    }
}

fn archive<C>(name: &str, page_cache: CacheRef, codec_config: C) -> prunable::Config<EightCap, C> {
    prunable::Config {
        translator: EightCap,
        metadata_partition: format!("{name}-pins"),
        key_partition: format!("{name}-key"),
        key_page_cache: page_cache,
        value_partition: format!("{name}-value"),
        compression: Some(3),
        codec_config,
        items_per_section: ITEMS_PER_FILE,
        key_write_buffer: BUFFER_BYTES,
        value_write_buffer: BUFFER_BYTES,
        replay_buffer: BUFFER_BYTES,
    }
}

type MarshalConfig = marshal::Config<Epochs, Epochs, Sequential, Block, Digested<Block>>;

fn marshal_config(
    epochs: &Epochs,
    page_cache: &CacheRef,
    start: marshal::Start<Scheme, Digest, Digested<Block>>,
) -> MarshalConfig {
    marshal::Config {
        provider: epochs.clone(),
        epocher: epochs.clone(),
        start,
        partition_prefix: "marshal".to_owned(),
        mailbox_size: MAILBOX,
        view_retention: VIEWS_KEPT,
        prunable_items_per_section: NZU64!(256),
        page_cache: page_cache.clone(),
        replay_buffer: BUFFER_BYTES,
        key_write_buffer: BUFFER_BYTES,
        value_write_buffer: BUFFER_BYTES,
        block_codec_config: (),
        max_repair: NZUsize!(32),
        max_pending_acks: NZUsize!(16),
        strategy: Sequential,
    }
}

fn resolver_config<O>(own: &PublicKey, oracle: &O) -> marshal_resolver::Config<PublicKey, O, O>
where
    O: Provider<PublicKey = PublicKey> + Blocker<PublicKey = PublicKey>,
{
    marshal_resolver::Config {
        public_key: own.clone(),
        peer_provider: oracle.clone(),
        blocker: oracle.clone(),
        mailbox_size: MAILBOX,
        fetch_timeout: NZDuration!(Duration::from_secs(2)),
        fetch_retry_delay: Duration::from_millis(100),
        priority_requests: false,
        priority_responses: false,
    }
}

fn broadcast_config<O>(own: &PublicKey, oracle: &O) -> buffered::Config<PublicKey, (), O, Sequential>
where
    O: Provider<PublicKey = PublicKey>,
{
    buffered::Config {
        public_key: own.clone(),
        mailbox_size: MAILBOX,
        // Of each peer's latest blocks: one is on its way to be final at a time, and a full one takes megabytes.
        deque_size: 3,
        priority: false,
        codec_config: (),
        peer_provider: oracle.clone(),
        strategy: Sequential,
    }
}

fn stateful_config<E: Runtime>(
    application: Ledger,
    marshal: (Marshal, marshal::core::Floor),
    plan: SyncPlan<E, Scheme, Standard<Block>>,
    page_cache: &CacheRef,
) -> StatefulConfig<E, Ledger, Standard<Block>, Nowhere, Sequential> {
    StatefulConfig {
        application,
        db_config: state_config(page_cache.clone()),
        provider: (),
        marshal,
        mailbox_size: MAILBOX,
        plan,
        resolvers: Nowhere,
        sync_config: SyncEngineConfig {
            fetch_batch_size: NZU64!(64),
            apply_batch_size: NZU64!(64),
            max_outstanding_requests: NZUsize!(8),
        },
        // History is what the ledger is for: nothing is pruned.
        prune_config: None,
        strategy: Sequential,
    }
}

pub(crate) type StateConfig = VariableConfig<EightCap, ((), ()), Sequential>;

pub(crate) fn state_config(page_cache: CacheRef) -> StateConfig {
    VariableConfig {
        merkle_config: TreeConfig {
            journal_partition: "state-tree-log".to_owned(),
            metadata_partition: "state-tree-pins".to_owned(),
            items_per_blob: ITEMS_PER_FILE,
            write_buffer: BUFFER_BYTES,
            replay_buffer: BUFFER_BYTES,
            strategy: Sequential,
            page_cache: page_cache.clone(),
        },
        journal_config: LogConfig {
            partition: "state-operations".to_owned(),
            items_per_section: ITEMS_PER_FILE,
            compression: None,
            codec_config: ((), ()),
            page_cache,
            write_buffer: BUFFER_BYTES,
            replay_buffer: BUFFER_BYTES,
        },
        grafted_metadata_partition: "state-status-pins".to_owned(),
        translator: EightCap,
        init_cache: Some(NZUsize!(65_536)),
        init_buffer: NZUsize!(1 << 20),
        init_concurrency: (),
    }
}

/// Shows the last block of the run before.
async fn resume(marshal: &Marshal, board: &Board, height: u64) {
    if height == 0 {
        return;
    }
    let Some(block) = marshal.get_block(Height::new(height)).await else {
        let first = first_missing(marshal, height).await;
        panic!("block {first}: corrupt or gone, as is all up to the last, {height}");
    };
    board.resume(&present(marshal, block.inner()).await);
}

/// The archive drops all from a damaged block on, where it takes the damage for a write that a crash cut short.
async fn first_missing(marshal: &Marshal, last: u64) -> u64 {
    let (mut there, mut missing) = (0, last);
    while there + 1 < missing {
        let middle = there.midpoint(missing);
        match marshal.get_block(Height::new(middle)).await {
            Some(_) => there = middle,
            None => missing = middle,
        }
    }
    missing
}
