//! Runs consensus, one instance for each epoch.
//!
//! ```text
//! enter: who votes, by the state -> run -> the epoch's last block is final -> stop -> enter the next
//! ```
//!
//! The last block of an epoch is where the next one's instance begins; nobody proposes beyond it in the old one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use commonware_consensus::{
    marshal::standard::Deferred,
    simplex::{
        self, Floor,
        config::{ForwardPolicy, SkipPolicy},
        elector::RoundRobin,
        scheme::ed25519::Scheme,
    },
    types::{Epoch, Height},
};
use commonware_cryptography::{Digestible as _, Sha256, blake3::Digest, ed25519::PublicKey};
use commonware_glue::stateful;
use commonware_p2p::utils::mux::{SubReceiver, SubSender};
use commonware_parallel::Sequential;
use commonware_runtime::{Error as StorageError, Handle, buffer::paged::CacheRef};
use commonware_utils::{NZDuration, vec::NonEmptyVec};
use piecework_ledger::Peer;

use crate::{
    ChainFailure,
    admission::Admission,
    application::Ledger,
    block::Block,
    committee::{Member, Part, contains},
    directory::Memory,
    engine::{BUFFER_BYTES, VIEWS_KEPT},
    epochs::Epochs,
    heads::Heads,
    network::{ConsensusWires, MAILBOX, Neighbours},
    pace::Paced,
    reads::Marshal,
    runtime::{Runtime, Transport},
};

/// The application as an instance of consensus drives it.
pub(crate) type Driven<E> = Deferred<E, Scheme, stateful::Mailbox<E, Ledger>, Block, Epochs>;

/// What all instances have in common.
pub(crate) struct Consensus<E: Runtime, T: Transport> {
    pub(crate) context: E,
    pub(crate) epochs: Epochs,
    pub(crate) wires: ConsensusWires<T>,
    pub(crate) neighbours: Neighbours<T>,
    pub(crate) driven: Driven<E>,
    pub(crate) genesis: Digest,
    pub(crate) marshal: Marshal,
    pub(crate) admission: Admission,
    pub(crate) heartbeat: Duration,
    pub(crate) page_cache: CacheRef,
    pub(crate) heads: Arc<Heads>,
    pub(crate) memory: Memory,
}

/// More than two thirds of four are three.
const MEMBERS_THAT_SPARE_ONE: usize = 4;

type Subchannel<T> = (SubSender<<T as Transport>::Sender>, SubReceiver<PublicKey>);

/// Where an instance's messages go and come from.
struct Lines<T: Transport> {
    votes: Subchannel<T>,
    certificates: Subchannel<T>,
    fetches: Subchannel<T>,
}

impl<E: Runtime, T: Transport> Consensus<E, T> {
    /// Runs from the block after `height` on until this peer is taken out of the network or the chain stops.
    ///
    /// # Panics
    /// When an instance ends by itself.
    pub(crate) async fn run(mut self, height: u64) -> ChainFailure {
        let mut epoch = self.epochs.of(height + 1);
        let mut lines = self.open(epoch).await;
        loop {
            if let Err(failure) = self.enter(epoch).await {
                return failure;
            }
            // The next epoch's lines are open before anybody can be in it: what the faster peers send waits here.
            let next = self.open(epoch.next()).await;
            let is_live = Arc::new(AtomicBool::new(false));
            let mut running = self.start(epoch, lines, is_live.clone()).await;
            tokio::select! {
                biased;
                ended = &mut running => panic!("the consensus engine ended: {ended:?}"),
                failure = self.outgrown(epoch) => return failure,
                () = self.last(epoch) => {}
            }
            running.abort();
            if let Err(failure) = self.remember(epoch, is_live.load(Ordering::Relaxed)) {
                return failure;
            }
            self.forget(epoch).await;
            (epoch, lines) = (epoch.next(), next);
        }
    }

    /// Resolves when the next block is one of this epoch by rules that this peer does not know. That they come is known when
    /// the epoch is entered, since a switch is announced a whole epoch ahead; until their height it may be called off.
    async fn outgrown(&self, epoch: Epoch) -> ChainFailure {
        loop {
            let rules = match self.admission.rules().await {
                Ok(rules) => rules,
                Err(failure) => return failure,
            };
            let next = self.admission.board.head().height + 1;
            if let Err(failure) = self.check_rules(rules.at(next), next) {
                return failure;
            }
            let comes = rules.pending(next).filter(|comes| {
                comes.rules > self.admission.shared.rules_known && comes.from_height <= self.epochs.last_block(epoch)
            });
            let Some(comes) = comes else {
                return std::future::pending().await;
            };
            tracing::warn!(
                rules = comes.rules,
                from_height = comes.from_height,
                known = self.admission.shared.rules_known,
                "the peers voted for ledger rules that this program does not support; update it before they take effect"
            );
            if !self.admission.board.reach(comes.from_height - 1).await {
                // The chain is stopping, and with it whoever waits here.
                return std::future::pending().await;
            }
        }
    }

    fn check_rules(&self, found: u32, height: u64) -> Result<(), ChainFailure> {
        let known = self.admission.shared.rules_known;
        match found <= known {
            true => Ok(()),
            false => Err(ChainFailure::UnknownRules { height, found, known }),
        }
    }

    /// Finds out who votes, and connects to them. Fails where this peer voted before and does no more.
    async fn enter(&mut self, epoch: Epoch) -> Result<(), ChainFailure> {
        let first = self.epochs.first_block(epoch);
        self.check_rules(self.admission.rules().await?.at(first), first)?;
        let committee = self.admission.committee().await?;
        let members = |peers: &[Peer]| peers.iter().map(Member::from).collect::<Vec<_>>();
        let now = members(committee.at(first));
        let next = committee
            .pending(first)
            .map(|next| members(&next.peers))
            .unwrap_or_default();
        self.neighbours.track(epoch, &now, &next);
        self.heads.enter(epoch);
        let (before, own) = (members(committee.at(first.saturating_sub(1))), &self.neighbours.own);
        if contains(&before, own) && !contains(&now, own) {
            return Err(ChainFailure::Removed { height: first });
        }
        let part = self.part(committee.at(first), first);
        self.epochs.learn(epoch, now, part)
    }

    /// A peer whose directory is new may have voted in this epoch, in a directory that it lost: it follows until an epoch
    /// begins of which it has seen the one before. Not in its first, where every directory is new, nor where the others
    /// cannot do without it.
    fn part(&self, members: &[Peer], first: u64) -> Part {
        let own = members.iter().find(|peer| peer.key.0 == self.neighbours.own.as_ref());
        let is_first = own.is_none_or(|own| own.since_height >= first);
        if is_first || members.len() < MEMBERS_THAT_SPARE_ONE || self.memory.is_whole() {
            return Part::Votes;
        }
        tracing::info!(
            first_block = first,
            "this peer's directory is new: the peer follows now and votes from a later epoch"
        );
        Part::Follows
    }

    /// At the end of an epoch: whoever was in it together with others knows all that it gave its votes to.
    fn remember(&self, epoch: Epoch, is_live: bool) -> Result<(), ChainFailure> {
        let alone = self.epochs.voters(epoch).0 == 1;
        if self.memory.is_whole() || !(alone || is_live || self.heads.is_level()) {
            return Ok(());
        }
        self.memory.complete()
    }

    /// Waits until the epoch's last block is final and published, and fetches it where others are further already.
    async fn last(&self, epoch: Epoch) {
        let last = self.epochs.last_block(epoch);
        let hint = |peers: Vec<PublicKey>| {
            if let Ok(targets) = NonEmptyVec::try_from(peers) {
                self.marshal.hint_finalized(Height::new(last), targets);
            }
        };
        hint(self.heads.known_ahead());
        let fetch = async {
            loop {
                hint(self.heads.ahead().await);
            }
        };
        tokio::select! {
            biased;
            () = fetch => {}
            reached = self.admission.board.reach(last) => {
                if !reached {
                    // The chain is stopping, and with it whoever waits here.
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// What an epoch stands on: the last block of the one before.
    async fn floor(&self, epoch: Epoch) -> Digest {
        match self.epochs.first_block(epoch) {
            0 => self.genesis,
            first => {
                let block = self.marshal.get_block(Height::new(first - 1)).await;
                block
                    .expect("the block before an epoch is final before it begins")
                    .digest()
            }
        }
    }

    async fn open(&mut self, epoch: Epoch) -> Lines<T> {
        let opened = "each epoch opens its lines once, and the network outlives it";
        Lines {
            votes: self.wires.votes.register(epoch.get()).await.expect(opened),
            certificates: self.wires.certificates.register(epoch.get()).await.expect(opened),
            fetches: self.wires.fetches.register(epoch.get()).await.expect(opened),
        }
    }

    async fn start(&self, epoch: Epoch, lines: Lines<T>, is_live: Arc<AtomicBool>) -> Handle<()> {
        let floor = self.floor(epoch).await;
        let scheme = self
            .epochs
            .scheme_of(epoch)
            .expect("an epoch is entered with its peers");
        let timeouts = Timeouts::after(self.heartbeat);
        let context = self.context.child("simplex").with_attribute("epoch", epoch);
        let pacer = context.child("pacer");
        let engine = simplex::Engine::new(
            context,
            simplex::Config {
                scheme: (*scheme).clone(),
                elector: RoundRobin::<Sha256>::default(),
                blocker: self.neighbours.oracle.clone(),
                automaton: Paced {
                    clock: Arc::new(pacer),
                    automaton: self.driven.clone(),
                    shared: self.admission.shared.clone(),
                    board: self.admission.board.clone(),
                    heartbeat: self.heartbeat,
                    is_live,
                },
                relay: self.driven.clone(),
                reporter: self.driven.clone(),
                strategy: Sequential,
                partition: partition(epoch),
                mailbox_size: MAILBOX,
                epoch,
                floor: Floor::Genesis(floor),
                replay_buffer: BUFFER_BYTES,
                write_buffer: BUFFER_BYTES,
                page_cache: self.page_cache.clone(),
                leader_timeout: timeouts.leader,
                certification_timeout: timeouts.certification,
                timeout_retry: timeouts.retry,
                view_retention: VIEWS_KEPT,
                skip: SkipPolicy::Enabled {
                    timeout: timeouts.skip,
                    budget: simplex::SkipBudget::Participants,
                },
                fetch_timeout: NZDuration!(Duration::from_secs(1)),
                fetch_retry_delay: Duration::from_millis(500),
                forward: ForwardPolicy::Disabled,
                track_historical_votes: false,
            },
        );
        engine.start(lines.votes, lines.certificates, lines.fetches)
    }

    /// The votes of the epoch before this one serve nobody any more: this one's last block is final.
    async fn forget(&self, epoch: Epoch) {
        let Some(before) = epoch.previous() else { return };
        match self.context.remove(&partition(before), None).await {
            Ok(()) | Err(StorageError::PartitionMissing(_)) => {}
            Err(error) => tracing::warn!(%error, epoch = before.get(), "old votes could not be removed"),
        }
    }
}

/// What an instance writes down of its votes is of use to itself alone.
fn partition(epoch: Epoch) -> String {
    format!("simplex-{epoch}")
}

/// A leader may wait a heartbeat before it proposes; silence beyond that counts against it.
///
/// Chosen for peers on one network: a leader that died costs its turn `leader` until it has been silent for `skip`, and
/// nothing after that.
struct Timeouts {
    leader: Duration,
    certification: Duration,
    retry: Duration,
    skip: Duration,
}

impl Timeouts {
    fn after(heartbeat: Duration) -> Self {
        let leader = heartbeat + Duration::from_millis(300);
        // Executing a full block may take its time on a small machine: it must not be voted away meanwhile.
        let certification = leader + Duration::from_secs(1);
        Self {
            leader,
            certification,
            retry: Duration::from_millis(500),
            skip: certification + Duration::from_millis(200),
        }
    }
}
