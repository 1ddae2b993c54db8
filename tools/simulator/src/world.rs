//! Everything there is, the clock, and one step after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use piecework_ledger::Genesis;

use piecework_model::{Digest, NetworkId};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    Consensus, Report,
    bug::Bug,
    checks::Checks,
    controller::Controller,
    engine::{Wishes, Witness},
    peers::{Peer, Rounds, first_state},
    provider::{Behaviour, Provider},
    setup::{self, PEERS, PROVIDERS},
    wire::{Faults, Message, Node},
};

/// Faults end here: what is still open has to come to its end after it.
pub const CALM_MS: u64 = 20_000;
/// The developer closes the lease.
pub const CLOSE_MS: u64 = 24_000;
/// No block is proposed after this: what is final reaches every peer before the end.
pub const LAST_BLOCK_MS: u64 = 78_000;
/// By now everything has drained.
const END_MS: u64 = 80_000;

pub struct World {
    pub rng: StdRng,
    pub now: u64,
    /// The same for who looks in from outside.
    pub clock: Arc<AtomicU64>,
    queue: BTreeMap<(u64, u64), (Node, Message)>,
    ties: u64,
    pub faults: Faults,
    pub bug: Option<Bug>,
    pub consensus: Consensus,
    pub genesis: Genesis,
    pub network: NetworkId,
    pub peers: Vec<Peer>,
    /// Peers that show different blocks to different others.
    pub traitors: BTreeSet<u8>,
    pub rounds: Rounds,
    pub wishes: Wishes,
    pub witness: Witness,
    pub providers: Vec<Provider>,
    pub controller: Controller,
    pub checks: Checks,
    pub report: Report,
    pub is_traced: bool,
    /// The controller goes for good at this time.
    pub vanishes_ms: Option<u64>,
    history: Digest,
    broken: Option<String>,
}

impl World {
    pub fn new(seed: u64, bug: Option<Bug>, consensus: Consensus) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let genesis = setup::genesis(consensus);
        let network = genesis.network_id();
        let lossy = |rng: &mut StdRng, most: u32| rng.random_range(0..=most);
        let faults = Faults {
            lost_percent: lossy(&mut rng, 12),
            late_percent: lossy(&mut rng, 12),
            doubled_percent: lossy(&mut rng, 12),
            ..Faults::default()
        };
        let vanishes_ms = rng.random_bool(0.4).then(|| rng.random_range(4_000..16_000));
        let providers = (0..PROVIDERS).map(|number| {
            let behaviour = match number {
                0 => Behaviour::Honest,
                _ => Behaviour::ALL[rng.random_range(0..Behaviour::ALL.len())],
            };
            Provider::new(number, behaviour, network, rng.random_range(0..600))
        });
        let providers = providers.collect();
        let traitor = rng.random_bool(0.5).then(|| rng.random_range(0..PEERS));
        let traitors = match (consensus, bug) {
            (Consensus::Engine, Some(Bug::PeersVoteTwice)) => BTreeSet::from([0, 1]),
            _ => traitor.into_iter().collect(),
        };
        let mut world = Self {
            now: 0,
            clock: Arc::default(),
            queue: BTreeMap::new(),
            ties: 0,
            faults,
            bug,
            consensus,
            network,
            peers: (0..PEERS).map(|_| Peer::new(&genesis)).collect(),
            traitors,
            rounds: Rounds::default(),
            wishes: Wishes::default(),
            witness: Witness::new(first_state(&genesis)),
            providers,
            controller: Controller::new(rng.random_range(0..600)),
            checks: Checks::new(&genesis),
            genesis,
            report: Report::default(),
            is_traced: false,
            vanishes_ms,
            history: Digest::default(),
            broken: None,
            rng,
        };
        for node in world.nodes() {
            let first = world.rng.random_range(1..200);
            world.after(first, node, Message::Tick);
        }
        world
    }

    pub fn nodes(&self) -> Vec<Node> {
        let peers = (0..PEERS).map(Node::Peer);
        let providers = (0..PROVIDERS).map(Node::Provider);
        let others = [Node::Controller, Node::Developer, Node::Rounds, Node::Chaos];
        peers.chain(providers).chain(others).collect()
    }

    /// Without faults: timers, and what the network has decided to deliver.
    pub fn after(&mut self, delay_ms: u64, to: Node, message: Message) {
        self.ties += 1;
        self.queue.insert((self.now + delay_ms, self.ties), (to, message));
    }

    pub fn trace(&self, says: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{:>6} {}", self.now, says());
        }
    }

    /// Something that must hold does not. The first is told; the run ends.
    pub fn breaks(&mut self, says: impl Into<String>) {
        self.broken.get_or_insert(says.into());
    }

    /// The first thing that did not hold.
    pub fn broken(&mut self) -> Option<String> {
        self.broken.take()
    }

    pub fn report(self) -> Report {
        Report {
            history: self.history,
            ..self.report
        }
    }

    /// When something happens next.
    pub fn next_ms(&self) -> Option<u64> {
        self.queue.keys().next().map(|(at, _)| *at)
    }

    /// Runs to the end, or to the first thing that does not hold.
    pub fn run(mut self) -> Result<Report, (u64, String)> {
        loop {
            let stepped = catch_unwind(AssertUnwindSafe(|| self.step()));
            let more = match stepped {
                Ok(more) => more,
                Err(panic) => {
                    self.breaks(format!("a panic: {}", text(&*panic)));
                    false
                }
            };
            if let Some(says) = self.broken() {
                return Err((self.now, says));
            }
            if !more {
                return Ok(self.report());
            }
        }
    }

    /// What happens next; `false` at the end.
    pub fn step(&mut self) -> bool {
        let Some(((at, _), (to, message))) = self.queue.pop_first() else {
            return false;
        };
        if at > END_MS {
            self.check_drained();
            return false;
        }
        self.now = at;
        self.clock.store(at, Ordering::Relaxed);
        self.report.steps += 1;
        self.note(to, &message);
        if self.is_up(to) || matches!(message, Message::Restart) {
            self.deliver(to, message);
        } else if matches!(message, Message::Tick) {
            // Its clock goes on; what it would have done is lost.
            self.after(100, to, Message::Tick);
        }
        true
    }

    fn note(&mut self, to: Node, message: &Message) {
        let head = self.checks.height();
        let place = match to {
            Node::Peer(number) => (0u8, number),
            Node::Provider(number) => (1, number),
            Node::Controller => (2, 0),
            Node::Developer => (3, 0),
            Node::Rounds => (4, 0),
            Node::Chaos => (5, 0),
        };
        let step = (self.history, self.now, place, message.kind(), head, self.checks.state());
        self.history = Digest::of_value("piecework 2026 simulated step", &step);
    }

    fn deliver(&mut self, to: Node, message: Message) {
        match to {
            Node::Peer(number) => self.peer(number, message),
            Node::Provider(number) => self.provider(number, message),
            Node::Controller => self.controller(message),
            Node::Developer => self.developer(),
            Node::Rounds => self.round(message),
            Node::Chaos => self.chaos(),
        }
    }
}

pub fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}
