//! Ledger peers: the real ones, engine and all, in the same thread and from the same seed.
//!
//! The world steps on a machine that simulates their tasks, disks and wires. What it wants of them is written down while it
//! steps and done before the next step; what they show as final is executed once more, outside of them, and compared.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use piecework_chain::FinalBlock;
use piecework_chain_node::simulated::{Clock, Link, Machine, Network, Peer, Place, play};
use piecework_ledger::{BlockContext, Changes, SignedTransaction, execute};
use piecework_model::Digest;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    Report,
    bug::Bug,
    peers::State,
    setup::{PEERS, peer_key},
    wire::Node,
    world::{CLOSE_MS, World, text},
};

const HEARTBEAT: Duration = Duration::from_millis(150);

/// What is to be done with the peers before the next step.
#[derive(Default)]
pub struct Wishes {
    pub submit: Vec<(u8, Arc<SignedTransaction>)>,
    pub crash: Vec<u8>,
    pub start: Vec<u8>,
    pub link: bool,
}

/// The ledger executed apart from the peers.
#[derive(Default)]
pub struct Witness {
    state: State,
    /// By each block.
    changes: Vec<Changes>,
}

impl Witness {
    pub fn new(genesis: State) -> Self {
        Self {
            state: genesis,
            changes: Vec::new(),
        }
    }
}

/// Plays the world on a machine of its own. Something that does not hold is `Err`.
pub fn run(world: World, seed: u64) -> Result<Report, (u64, String)> {
    let directory = tempfile::tempdir().map_err(|error| (0, format!("no directory for the peers: {error}")))?;
    let (root, clock) = (directory.path().to_owned(), world.clock.clone());
    let played = catch_unwind(AssertUnwindSafe(|| {
        play(seed, |machine| perform(world, machine, root, seed))
    }));
    match played {
        Ok((Ok(mut report), machine)) => {
            report.history = Digest::of_value("piecework 2026 simulated history", &(report.history, machine));
            Ok(report)
        }
        Ok((Err(broken), _)) => Err(broken),
        Err(panic) => Err((clock.load(Ordering::Relaxed), format!("a panic: {}", text(&*panic)))),
    }
}

async fn perform(mut world: World, machine: Machine, root: PathBuf, seed: u64) -> Result<Report, (u64, String)> {
    let peers = peers(&world, seed);
    let network = Network::new(machine, world.genesis.clone(), peers, root, HEARTBEAT);
    let mut network = network.expect("the keys are those of the genesis");
    world.wishes.link = true;
    world.wishes.start = (0..PEERS).collect();
    let mut looked_ms = CLOSE_MS;
    while let Some(at) = world.next_ms() {
        fulfil(&mut world, &mut network).await;
        network.sleep_until(Duration::from_millis(at)).await;
        look(&mut world, &network).await;
        let more = world.step();
        if let Some(says) = world.broken() {
            return Err((world.now, says));
        }
        if !more {
            break;
        }
        if world.now > looked_ms {
            looked_ms += 1_000;
            if world.undrained().is_none() {
                break;
            }
        }
    }
    compare(&world, &network).await.map_err(|says| (world.now, says))?;
    Ok(world.report())
}

/// Their clocks are off, and some show two faces.
fn peers(world: &World, seed: u64) -> Vec<Peer> {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_add(1 << 32));
    let mut seers = |place: Place| -> BTreeSet<Place> {
        if world.bug == Some(Bug::PeersVoteTwice) {
            return BTreeSet::from([Place::from(PEERS - 1)]);
        }
        let others = (0..Place::from(PEERS)).filter(|other| *other != place);
        let mut seers: BTreeSet<Place> = others.filter(|_| rng.random_bool(0.5)).collect();
        seers.insert((place + 1) % Place::from(PEERS));
        seers
    };
    let peer = |number: u8| Peer {
        key: peer_key(number),
        clock: Clock {
            ahead: Duration::from_millis(u64::from(number) * 200),
            gains_ppm: u32::from(number) * 10_000,
        },
        other_face: match world.traitors.contains(&number) {
            true => seers(Place::from(number)),
            false => BTreeSet::new(),
        },
    };
    (0..PEERS).map(peer).collect()
}

async fn fulfil(world: &mut World, network: &mut Network) {
    let wishes = std::mem::take(&mut world.wishes);
    for peer in wishes.crash {
        network.crash(peer.into()).await;
    }
    for peer in wishes.start {
        if let Err(failure) = network.start(peer.into()) {
            world.breaks(format!("peer {peer} does not start: {failure}"));
        }
    }
    if wishes.link {
        network.link(|from, to| link(world, from as u8, to as u8)).await;
    }
    for (peer, transaction) in wishes.submit {
        let Some(chain) = network.chain(peer.into()) else {
            continue;
        };
        let transaction = (*transaction).clone();
        // A refusal is the ledger's word on a sender who did not know better; whoever needs it sends again.
        network.spawn(async move { drop(chain.submit(transaction).await) });
    }
}

fn link(world: &World, from: u8, to: u8) -> Option<Link> {
    let apart = world.bug == Some(Bug::PeersVoteTwice) && from.min(to) == PEERS - 2;
    if apart || world.is_cut(Node::Peer(from), Node::Peer(to)) {
        return None;
    }
    let late = Duration::from_millis(world.faults.late_percent.into());
    Some(Link {
        jitter: Link::GOOD.jitter + late * 5,
        lost_percent: world.faults.lost_percent.try_into().unwrap_or(100),
        ..Link::GOOD
    })
}

/// What the peers have made final since the last step.
async fn look(world: &mut World, network: &Network) {
    for number in 0..PEERS {
        let Some(chain) = network.chain(number.into()) else {
            continue;
        };
        loop {
            let next = world.peers[usize::from(number)].height() + 1;
            if chain.status().height < next {
                break;
            }
            match chain.block(next).await {
                Ok(Some(block)) => world.show(number, &block),
                other => return world.breaks(format!("peer {number} does not show block {next}: {other:?}")),
            }
        }
    }
}

/// What lies on each honest peer's disk is what the witness came to.
async fn compare(world: &World, network: &Network) -> Result<(), String> {
    for number in (0..PEERS).filter(|number| !world.traitors.contains(number)) {
        let Some(chain) = network.chain(number.into()) else {
            return Err(format!("peer {number} is down in the end"));
        };
        for (key, value) in &world.witness.state {
            let found = chain
                .get(key)
                .await
                .map_err(|failure| format!("peer {number}: {failure}"))?;
            if found.as_ref() != Some(value) {
                return Err(format!("peer {number} has {found:?} at {key:?} instead of {value:?}"));
            }
        }
    }
    Ok(())
}

impl World {
    /// A peer has made a block final.
    pub fn show(&mut self, number: u8, block: &FinalBlock) {
        let at = block.height as usize - 1;
        if at == self.witness.changes.len() {
            let context = BlockContext {
                network: self.network,
                height: block.height,
            };
            let applied = execute(&self.witness.state, &context, &block.transactions);
            if applied.outcomes != block.outcomes {
                self.breaks(format!("block {} executed again comes to something else", block.height));
            }
            apply(&mut self.witness.state, &applied.changes);
            self.witness.changes.push(applied.changes);
        }
        self.peers[usize::from(number)].show(block.height, &self.witness.changes[at]);
        let found = (block.digest, block.state_root);
        self.check_block(number, block.height, found, &block.outcomes);
    }
}

pub fn apply(state: &mut State, changes: &Changes) {
    for (key, change) in changes {
        match change {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
}
