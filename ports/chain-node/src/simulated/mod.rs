//! A network of real peers on one machine with one thread, every choice of which comes from a seed.
//!
//! What runs here is what [`crate::start`] runs: consensus, the state on disk, the mempool, gossip, epochs. Simulated are the
//! machine (tasks, time, chance, disks) and the wires between peers, both commonware's own. A peer that crashes loses
//! whatever its disks were not told to keep.
//!
//! The engine sees either machine as one type, so it is compiled once for both.

mod local;
mod wires;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::simulated;
use commonware_runtime::{Clock as _, Handle as Task, Runner as _, Spawner as _, Supervisor as _, deterministic};
use commonware_utils::{NZUsize, Probability};
use piecework_chain::{Chain, ChainFailure};
use piecework_chain_simplex::{
    CHANNELS, Channel, Identity, Options, Prepared, Wires, message_bytes_max, prepare, run as run_engine,
};
use piecework_ledger::Genesis;
use piecework_model::SecretKey;

use crate::{
    machine::Machine as Either,
    wires::{Air, Oracle},
};

pub(crate) use local::Local;
pub(crate) use wires::{Gate, Line};

pub use local::Clock;

/// One thread, one seed.
pub type Machine = deterministic::Context;

/// What each round of the machine's tasks takes.
const STEP: Duration = Duration::from_micros(100);

/// Plays on a machine of its own. Returns what `play` did, and a hash over everything that the machine did.
///
/// # Panics
/// When any task does, and when nothing could ever happen again.
pub fn play<F, P>(seed: u64, play: P) -> (F::Output, String)
where
    P: FnOnce(Machine) -> F,
    F: Future,
{
    let config = deterministic::Config::new().with_seed(seed).with_cycle(STEP);
    deterministic::Runner::new(config).start(|machine| async move {
        let auditor = machine.auditor();
        let output = play(machine).await;
        (output, auditor.state())
    })
}

/// From one peer to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub latency: Duration,
    /// The standard deviation of the latency. Messages arrive in the order in which they were sent all the same.
    pub jitter: Duration,
    pub lost_percent: u8,
}

impl Link {
    pub const GOOD: Self = Self {
        latency: Duration::from_millis(5),
        jitter: Duration::from_millis(2),
        lost_percent: 0,
    };
}

/// A peer of the genesis, by its place there.
pub type Place = usize;

/// How a peer is run.
pub struct Peer {
    pub key: SecretKey,
    pub clock: Clock,
    /// Those who see another instance of this peer than everybody else does: the same key, two minds.
    pub other_face: BTreeSet<Place>,
}

struct Running {
    task: Task<()>,
    /// Two where the peer has two faces.
    chains: Vec<Arc<dyn Chain>>,
}

/// The peers and what is between them.
pub struct Network {
    machine: Machine,
    oracle: simulated::Oracle<PublicKey, Machine>,
    genesis: Genesis,
    /// Holds a directory for each peer; the blocks themselves are on the machine's own disks.
    directory: PathBuf,
    heartbeat: Duration,
    peers: Vec<Peer>,
    keys: Vec<PublicKey>,
    running: BTreeMap<Place, Running>,
    links: BTreeMap<(Place, Place), Link>,
}

impl Network {
    /// No peer runs yet and nothing is linked. `peers` are those of the genesis, in its order.
    pub fn new(
        machine: Machine,
        genesis: Genesis,
        peers: Vec<Peer>,
        directory: PathBuf,
        heartbeat: Duration,
    ) -> Result<Self, ChainFailure> {
        let id = genesis.network_id();
        let keys = peers.iter().map(|peer| Ok(Identity::new(id, &peer.key)?.public()));
        let keys = keys.collect::<Result<Vec<_>, ChainFailure>>()?;
        let config = simulated::Config {
            max_size: message_bytes_max(),
            max_peers_per_set: NZUsize!(16),
            disconnect_on_block: true,
            tracked_peer_sets: NZUsize!(8),
        };
        let (network, oracle) = simulated::Network::new(machine.child("air"), config);
        network.start();
        Ok(Self {
            machine,
            oracle,
            genesis,
            directory,
            heartbeat,
            peers,
            keys,
            running: BTreeMap::new(),
            links: BTreeMap::new(),
        })
    }

    /// Since the machine was switched on.
    pub fn now(&self) -> Duration {
        self.machine.current().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    pub async fn sleep(&self, duration: Duration) {
        self.machine.sleep(duration).await;
    }

    pub async fn sleep_until(&self, since_start: Duration) {
        self.machine.sleep_until(SystemTime::UNIX_EPOCH + since_start).await;
    }

    /// Runs beside everything else, until the machine stops.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(&self, future: F) {
        self.machine.child("beside").spawn(move |_| future);
    }

    /// Makes the links what `between` says; `None` is a cut.
    ///
    /// # Panics
    /// When the simulated network has stopped.
    pub async fn link(&mut self, between: impl Fn(Place, Place) -> Option<Link>) {
        let alive = "the simulated network runs as long as the machine";
        for from in 0..self.peers.len() {
            for to in (0..self.peers.len()).filter(|to| *to != from) {
                let link = between(from, to);
                let known = self.links.get(&(from, to)).copied();
                if link == known {
                    continue;
                }
                let (sender, receiver) = (self.keys[from].clone(), self.keys[to].clone());
                if known.is_some() {
                    let removed = self.oracle.remove_link(sender.clone(), receiver.clone()).await;
                    removed.expect(alive);
                }
                match link {
                    Some(link) => {
                        let added = self.oracle.add_link(sender, receiver, link.into()).await;
                        added.expect(alive);
                        self.links.insert((from, to), link);
                    }
                    None => drop(self.links.remove(&(from, to))),
                }
            }
        }
    }

    /// Peers that a peer has cut off, for what they sent.
    ///
    /// # Panics
    /// When the simulated network has stopped.
    pub async fn blocked(&self) -> Vec<(Place, Place)> {
        let blocked = self.oracle.blocked().await;
        let blocked = blocked.expect("the simulated network runs as long as the machine");
        let place = |key: &PublicKey| self.keys.iter().position(|known| known == key);
        let places = blocked.iter().map(|(by, whom)| Some((place(by)?, place(whom)?)));
        places.flatten().collect()
    }

    /// Starts a peer, or starts it again where its disks left it.
    pub fn start(&mut self, place: Place) -> Result<(), ChainFailure> {
        let faces = 1 + usize::from(!self.peers[place].other_face.is_empty());
        let prepared = (0..faces).map(|face| prepare(self.options(place, face)));
        let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
        let chains = prepared
            .iter()
            .map(|prepared| prepared.handle.clone() as Arc<dyn Chain>);
        let chains = chains.collect();
        let (oracle, own) = (self.oracle.clone(), self.keys[place].clone());
        let (clock, sees_other) = (self.peers[place].clock, self.faces(place));
        let machine = self.machine.child("peer").with_attribute("place", place);
        let task = machine.spawn(move |machine| async move {
            let channels = wires::register(&machine, &oracle, &own, sees_other).await;
            for (face, (prepared, channels)) in prepared.into_iter().zip(channels).enumerate() {
                let local = Local::new(machine.child("face"), format!("peer-{place}-{face}-"), clock);
                run(local, prepared, Gate::new(&oracle, &own), channels).await;
            }
            std::future::pending().await
        });
        self.running.insert(place, Running { task, chains });
        Ok(())
    }

    /// Those who see the first face of a peer and those who see the second.
    fn faces(&self, place: Place) -> Option<[Vec<PublicKey>; 2]> {
        let other = &self.peers[place].other_face;
        let all = (0..self.peers.len()).filter(|seer| *seer != place);
        let (second, first): (Vec<Place>, Vec<Place>) = all.partition(|seer| other.contains(seer));
        let keys = |places: Vec<Place>| places.into_iter().map(|place| self.keys[place].clone()).collect();
        (!other.is_empty()).then(|| [keys(first), keys(second)])
    }

    fn options(&self, place: Place, face: usize) -> Options {
        let directory = self.directory.join(format!("{place}-{face}"));
        let key = SecretKey::from_seed(self.peers[place].key.to_seed());
        let mut options = Options::new(directory, self.genesis.clone(), key, ([127, 0, 0, 1], 0).into());
        options.heartbeat = self.heartbeat;
        options
    }

    /// Ends a peer between two of its steps. Its disks keep what they were told to keep.
    pub async fn crash(&mut self, place: Place) {
        if let Some(running) = self.running.remove(&place) {
            running.task.abort();
            // Its tasks let go of the disks when they are next looked at.
            self.sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn is_up(&self, place: Place) -> bool {
        self.running.contains_key(&place)
    }

    /// What a peer shows, unless it is down; of one with two faces the first.
    pub fn chain(&self, place: Place) -> Option<Arc<dyn Chain>> {
        let chains = self.running.get(&place).map(|running| &running.chains);
        chains.and_then(|chains| chains.first().cloned())
    }
}

/// Starts the engine of a prepared peer and sees to it that it comes up.
async fn run(local: Local, prepared: Prepared, gate: Gate, channels: [Channel<Air>; CHANNELS.len()]) {
    let machine = Either::Simulated(local);
    let wires: Wires<Air> = Wires::new(&machine, Oracle::Simulated(gate), channels, Box::new(|| ()));
    let Prepared {
        directory,
        handle,
        setup,
        starting,
        stop,
        ended,
    } = prepared;
    machine.child("engine").spawn(move |machine| async move {
        // Held as long as the engine runs.
        let _held = (directory, stop);
        let result = Box::pin(run_engine(machine, setup, wires)).await;
        panic!("a simulated peer ended: {result:?}");
    });
    machine.child("starting").spawn(move |_| async move {
        // The handle reads it as long as the engine runs.
        let _ended = ended;
        match handle.catch_up(starting, |_| std::future::pending()).await {
            Ok(indexing) => indexing.await,
            Err(failure) => panic!("a simulated peer did not come up: {failure}"),
        }
        std::future::pending::<()>().await;
    });
}

impl From<Link> for simulated::Link {
    fn from(link: Link) -> Self {
        let arrives = 100 - u64::from(link.lost_percent.min(100));
        Self {
            latency: link.latency,
            jitter: link.jitter,
            success_rate: Probability::new(arrives, 100).expect("at most all"),
        }
    }
}
