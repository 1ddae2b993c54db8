//! The wiring of the consensus engine: one concrete set of types, the same for one peer and for many.

use std::{
    net::SocketAddr,
    num::{NonZeroU64, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use commonware_broadcast::buffered;
use commonware_consensus::{
    BoundedBlock as _,
    marshal::{
        self, Identifier,
        core::Actor as MarshalActor,
        resolver::p2p as marshal_resolver,
        standard::{Deferred, Standard},
    },
    simplex::{
        self,
        config::{ForwardPolicy, SkipPolicy},
        elector::RoundRobin,
        scheme::ed25519::Scheme,
    },
    types::{Epoch, FixedEpocher, ViewDelta},
};
use commonware_cryptography::{
    ChaCha20Poly1305, Digested, Digestible as _, Sha256, Signer as _, blake3::Digest, certificate::ConstantProvider,
    ed25519::PrivateKey,
};
use commonware_glue::stateful::{
    Config as StatefulConfig, Stateful, SyncPlan,
    db::{DatabaseSet, SyncEngineConfig},
};
use commonware_p2p::{AddressableManager as _, authenticated::lookup, max_message_size};
use commonware_parallel::Sequential;
use commonware_runtime::{Quota, Spawner as _, Supervisor as _, buffer::paged::CacheRef, tokio::Context};
use commonware_storage::{
    archive::prunable, journal::contiguous::variable::Config as LogConfig, mmr::full::Config as TreeConfig,
    qmdb::current::VariableConfig, translator::EightCap,
};
use commonware_stream::{
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::{NZDuration, NZU16, NZU32, NZU64, NZUsize};
use piecework_ledger::SignedTransaction;
use tokio::sync::{mpsc, oneshot};

use crate::{
    admission::Admission,
    application::Ledger,
    block::Block,
    committee::Committee,
    gossip,
    pace::Paced,
    publish::Board,
    reads::{Marshal, ReadQueues, present},
    state::{Databases, Nowhere},
};

/// Messages a peer may send per channel and second. Inbound queues are allocated for it, times the peers: 512 keeps a node
/// at some 60 MiB and was enough for 139 blocks/s.
const QUOTA: Quota = Quota::per_second(NZU32!(512));
const PEERS_MIN: usize = 8;
const MAILBOX: NonZeroUsize = NZUsize!(1024);
const PAGE_BYTES: std::num::NonZeroU16 = NZU16!(4084);
const PAGES_CACHED: NonZeroUsize = NZUsize!(2048);
const BUFFER_BYTES: NonZeroUsize = NZUsize!(64 << 10);
const ITEMS_PER_FILE: NonZeroU64 = NZU64!(16_384);
/// Views whose votes and blocks stay at hand for peers that are a little behind.
const VIEWS_KEPT: ViewDelta = ViewDelta::new(64);
const EPOCH_BLOCKS: NonZeroU64 = NZU64!(u64::MAX);
/// Blocks that may be final before this node has published them.
pub(crate) const FINALS_WAITING_MAX: usize = 256;

/// What a run of the engine needs beyond the committee.
pub(crate) struct Setup {
    pub(crate) committee: Committee,
    pub(crate) listen: SocketAddr,
    pub(crate) heartbeat: Duration,
    pub(crate) admission: Admission,
    /// Transactions to pass on to the other peers.
    pub(crate) outgoing: mpsc::Receiver<SignedTransaction>,
    pub(crate) queues: ReadQueues,
    pub(crate) ready: oneshot::Sender<Ready>,
    pub(crate) stop: oneshot::Receiver<()>,
}

/// The engine runs.
pub(crate) struct Ready {
    /// The highest block known to be final; the node is as it was once it has published it.
    pub(crate) tip: u64,
    /// The last block that an earlier run had published.
    pub(crate) resumed: u64,
}

fn message_bytes_max(members: u32) -> u32 {
    max_message_size(&[
        simplex::max_payload_size::<Scheme, Digest>(members),
        marshal::max_payload_size::<Standard<Block>, Scheme>(members, &()),
        Block::max_encode_size(&()),
        gossip::MESSAGE_BYTES_MAX,
    ])
}

fn network_config(setup: &Setup) -> lookup::Config<Cups<Sake<PrivateKey>, ChaCha20Poly1305>> {
    let handshake = Cups::new(
        Sake {
            signer: setup.committee.key.clone(),
            synchrony_bound: Duration::from_secs(10),
            max_handshake_age: Duration::from_secs(10),
            version: sake::Version::V1,
        },
        cups::Version::V1,
    );
    let peers_max = NonZeroUsize::new(setup.committee.members.len().max(PEERS_MIN)).expect("eight is not zero");
    let mut config = lookup::Config::local(
        handshake,
        &setup.committee.namespace,
        setup.listen,
        peers_max,
        message_bytes_max(setup.committee.len()),
        MAILBOX,
    );
    config.tracked_peer_sets = NZUsize!(1);
    // Peers stand behind address translation as often as not; the handshake proves who they are.
    config.bypass_ip_check = true;
    config
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

type StateConfig = VariableConfig<EightCap, ((), ()), Sequential>;

fn state_config(page_cache: CacheRef) -> StateConfig {
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

/// Runs a peer until it is told to stop.
///
/// # Panics
/// On storage errors and on damaged data, as the engine does; the caller catches it at the thread's boundary.
pub(crate) async fn run(context: Context, setup: Setup) {
    let page_cache = CacheRef::new(PAGE_BYTES, PAGES_CACHED);
    let admission = setup.admission.clone();
    let scheme = setup.committee.scheme();
    let public_key = setup.committee.key.public_key();
    let provider = ConstantProvider::new(scheme.clone());

    let (mut network, mut oracle) = lookup::Network::new(context.child("network"), network_config(&setup));
    oracle.track(0, setup.committee.members.clone());
    let votes = network.register(0, QUOTA);
    let certificates = network.register(1, QUOTA);
    let fetches = network.register(2, QUOTA);
    let backfill = network.register(3, QUOTA);
    let blocks = network.register(4, QUOTA);
    let transactions = network.register(5, QUOTA);

    let resolver = marshal_resolver::init(
        context.child("marshal_resolver"),
        marshal_resolver::Config {
            public_key: public_key.clone(),
            peer_provider: oracle.clone(),
            blocker: oracle.clone(),
            mailbox_size: MAILBOX,
            fetch_timeout: NZDuration!(Duration::from_secs(2)),
            fetch_retry_delay: Duration::from_millis(100),
            priority_requests: false,
            priority_responses: false,
        },
        backfill,
    );
    let (broadcast, buffer) = buffered::Engine::new(
        context.child("broadcast"),
        buffered::Config {
            public_key: public_key.clone(),
            mailbox_size: MAILBOX,
            deque_size: 10,
            priority: false,
            codec_config: (),
            peer_provider: oracle.clone(),
            strategy: Sequential,
        },
    );
    broadcast.start(blocks);

    let certificate_config =
        <Scheme as commonware_cryptography::certificate::Verifier>::certificate_codec_config(&scheme);
    let finalizations = prunable::Archive::init(
        context.child("finalizations"),
        archive("finalizations", page_cache.clone(), certificate_config),
    )
    .await
    .expect("the archive of finalizations opens");
    let finalized = prunable::Archive::init(context.child("blocks"), archive("blocks", page_cache.clone(), ()))
        .await
        .expect("the archive of blocks opens");

    let initial = <Databases<Context> as DatabaseSet<Context>>::initial_sync_targets();
    let first = setup.committee.first();
    let genesis = Block::genesis(admission.shared.network, first, initial.root, initial.range);
    let plan = SyncPlan::init(context.child("plan"), "plan".to_owned()).await;
    // A new peer replays every block; copying the state of others comes with the network of peers.
    let _ = plan.should_sync(false);

    let (marshal_actor, marshal, floor) = MarshalActor::<_, Standard<Block>, _, _, _, _, _>::init(
        context.child("marshal"),
        finalizations,
        finalized,
        marshal::Config {
            provider,
            epocher: FixedEpocher::new(EPOCH_BLOCKS),
            start: plan.marshal_start(Digested::precomputed(genesis.clone(), genesis.digest())),
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
        },
    )
    .await;
    let resumed = floor.processed().map_or(0, |processed| processed.height().get());

    let (finals_sender, finals) = mpsc::channel(FINALS_WAITING_MAX);
    let (stateful, stateful_mailbox) = Stateful::new(
        context.child("stateful"),
        StatefulConfig {
            application: Ledger {
                genesis: genesis.clone(),
                shared: admission.shared.clone(),
                finals: finals_sender,
            },
            db_config: state_config(page_cache.clone()),
            provider: (),
            marshal: (marshal.clone(), floor),
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
        },
    );
    let deferred = Deferred::new(
        context.child("deferred"),
        stateful_mailbox.clone(),
        marshal.clone(),
        FixedEpocher::new(EPOCH_BLOCKS),
    );
    marshal_actor.start(stateful_mailbox.clone(), buffer, resolver);
    resume(&marshal, &admission.board, resumed).await;
    stateful.start();
    let databases = stateful_mailbox.subscribe_databases().await;
    setup.queues.serve(&context, databases, marshal.clone());
    let publisher = admission
        .board
        .clone()
        .run(finals, marshal.clone(), admission.reads.clone());
    context.child("publish").spawn(move |_| publisher);

    if setup.committee.len() > 1 {
        gossip::start(&context, transactions, setup.outgoing, admission.clone());
    }

    let timeouts = Timeouts::after(setup.heartbeat);
    let pacer = context.child("pacer");
    let engine = simplex::Engine::new(
        // The parent context: aborting the engine must abort everything above.
        context,
        simplex::Config {
            scheme,
            elector: RoundRobin::<Sha256>::default(),
            blocker: oracle,
            automaton: Paced {
                clock: Arc::new(pacer),
                automaton: deferred.clone(),
                shared: admission.shared.clone(),
                heartbeat: setup.heartbeat,
            },
            relay: deferred.clone(),
            reporter: deferred,
            strategy: Sequential,
            partition: "simplex".to_owned(),
            mailbox_size: MAILBOX,
            epoch: Epoch::zero(),
            floor: simplex::config::Floor::Genesis(genesis.digest()),
            replay_buffer: BUFFER_BYTES,
            write_buffer: BUFFER_BYTES,
            page_cache,
            leader_timeout: timeouts.leader,
            certification_timeout: timeouts.certification,
            timeout_retry: timeouts.retry,
            view_retention: VIEWS_KEPT,
            skip: SkipPolicy::Enabled {
                timeout: timeouts.skip,
                budget: simplex::SkipBudget::Participants,
            },
            fetch_timeout: NZDuration!(Duration::from_secs(2)),
            fetch_retry_delay: Duration::from_secs(1),
            forward: ForwardPolicy::Disabled,
            track_historical_votes: false,
        },
    );
    let running = engine.start(votes, certificates, fetches);
    network.start();
    let tip = marshal
        .get_info(Identifier::Latest)
        .await
        .map_or(0, |(height, _)| height.get());
    // The starter has gone: stop at once, which the closed channel below does.
    let _ = setup.ready.send(Ready { tip, resumed });
    tokio::select! {
        _ = setup.stop => {}
        ended = running => panic!("the consensus engine ended: {ended:?}"),
    }
}

/// Shows the last block of the run before.
async fn resume(marshal: &Marshal, board: &Board, height: u64) {
    if height == 0 {
        return;
    }
    let block = marshal
        .get_block(commonware_consensus::types::Height::new(height))
        .await;
    let block = block.expect("the last processed block is in the archive");
    board.resume(&present(marshal, block.inner()).await);
}

/// A leader may wait a heartbeat before it proposes; silence beyond that counts against it.
struct Timeouts {
    leader: Duration,
    certification: Duration,
    retry: Duration,
    skip: Duration,
}

impl Timeouts {
    fn after(heartbeat: Duration) -> Self {
        let leader = heartbeat + Duration::from_millis(700);
        let certification = leader + Duration::from_secs(1);
        Self {
            leader,
            certification,
            retry: Duration::from_secs(1),
            skip: certification + Duration::from_secs(2),
        }
    }
}
