//! Ledger peers on a model of consensus: the real contracts, and a place to put bugs into them.
//!
//! The model is what the engine promises and no more: rounds with one leader each, proposals and votes that get lost, a
//! block final with more than two thirds of the votes. A round that ends without is void by decree. What is real: every
//! peer executes every block for itself, on a state and a log of its own, before it votes and after a restart again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use borsh::BorshSerialize;
use piecework_ledger::{
    Applied, BlockContext, Changes, Genesis, Key, SignedTransaction, TransactionId, Value, execute,
};
use piecework_model::Digest;
use rand::RngExt as _;

use crate::{
    Consensus,
    bug::Bug,
    engine::apply,
    setup::PEERS,
    wire::{Message, Node},
    world::{CALM_MS, LAST_BLOCK_MS, World},
};

pub type State = BTreeMap<Key, Value>;

/// From a proposal to the count of its votes, and from there to the next proposal: the block is on its way then.
const VOTING_MS: u64 = 100;
const TELLING_MS: u64 = 50;
const TRANSACTIONS_PER_BLOCK: usize = 60;
/// States on disk: a restart may fall back to the oldest and replay.
const SNAPSHOTS: usize = 4;

#[derive(Clone, Debug, BorshSerialize)]
pub struct Block {
    pub height: u64,
    pub transactions: Vec<SignedTransaction>,
    /// Of everything up to this block, as its proposer executed it.
    pub state: Digest,
}

impl Block {
    pub fn digest(&self) -> Digest {
        Digest::of_value("piecework 2026 simulated block", self)
    }
}

pub struct Peer {
    pub state: State,
    height: u64,
    digest: Digest,
    log: Vec<Arc<Block>>,
    snapshots: VecDeque<(usize, State, Digest)>,
    /// Durable before it leaves.
    voted: BTreeSet<u64>,
    mempool: BTreeMap<u64, Arc<SignedTransaction>>,
    known: BTreeSet<TransactionId>,
    arrivals: u64,
}

pub fn first_state(genesis: &Genesis) -> State {
    let state = genesis.state().expect("the genesis of this crate is valid");
    let set = state.into_iter().filter_map(|(key, value)| Some((key, value?)));
    set.collect()
}

impl Peer {
    pub fn new(genesis: &Genesis) -> Self {
        let state = first_state(genesis);
        Self {
            snapshots: VecDeque::from([(0, state.clone(), Digest::default())]),
            state,
            height: 0,
            digest: Digest::default(),
            log: Vec::new(),
            voted: BTreeSet::new(),
            mempool: BTreeMap::new(),
            known: BTreeSet::new(),
            arrivals: 0,
        }
    }

    pub fn height(&self) -> u64 {
        self.height
    }

    /// Of a peer that keeps its log itself: it has shown the next block.
    pub fn show(&mut self, height: u64, changes: &Changes) {
        apply(&mut self.state, changes);
        self.height = height;
    }

    /// Executes the next block; gives the digest of the state after it.
    fn execute(&self, world: &World, transactions: &[SignedTransaction]) -> (Applied, Digest) {
        let context = BlockContext {
            network: world.network,
            height: self.height() + 1,
        };
        let mut applied = execute(&self.state, &context, transactions);
        world.spoil(&self.state, &mut applied);
        let changes: Vec<_> = applied.changes.iter().collect();
        let digest = Digest::of_value("piecework 2026 simulated state", &(self.digest, changes));
        (applied, digest)
    }

    fn apply(&mut self, block: Arc<Block>, applied: Applied, digest: Digest) {
        self.show(block.height, &applied.changes);
        self.digest = digest;
        let done: BTreeSet<TransactionId> = block.transactions.iter().map(SignedTransaction::id).collect();
        self.mempool.retain(|_, waiting| !done.contains(&waiting.id()));
        self.log.push(block);
        self.snapshots.push_back((self.log.len(), self.state.clone(), digest));
        while self.snapshots.len() > SNAPSHOTS {
            self.snapshots.pop_front();
        }
    }
}

/// The model of consensus.
#[derive(Default)]
pub struct Rounds {
    number: u64,
    is_voting: bool,
    height: u64,
    proposals: Vec<Arc<Block>>,
    votes: BTreeMap<Digest, BTreeSet<u8>>,
}

impl World {
    pub fn peer(&mut self, number: u8, message: Message) {
        let at = usize::from(number);
        if self.consensus == Consensus::Engine {
            return self.wish(number, message);
        }
        match message {
            Message::Submit(transaction) => self.queue_transaction(number, transaction),
            Message::Proposal(round, block) => self.consider(number, round, &block),
            Message::Final(block) => self.finalize(number, block),
            Message::Restart => self.restart_peer(number),
            Message::Tick => {
                self.catch_up(number);
                self.after(100, Node::Peer(number), Message::Tick);
            }
            Message::Vote(..)
            | Message::Order(_)
            | Message::Answer(..)
            | Message::Seal(..)
            | Message::SealTaken(..)
            | Message::AskSeal(_)
            | Message::ReceiptsSealed(..)
            | Message::Ended(_) => unreachable!("peer {at} was sent what is not for peers"),
        }
    }

    /// The same for a peer that runs by itself.
    fn wish(&mut self, number: u8, message: Message) {
        match message {
            Message::Submit(transaction) => self.wishes.submit.push((number, transaction)),
            Message::Restart => {
                self.faults.down.remove(&Node::Peer(number));
                self.wishes.start.push(number);
            }
            Message::Tick => self.after(100, Node::Peer(number), Message::Tick),
            _ => unreachable!("the engine's messages are its own"),
        }
    }

    fn queue_transaction(&mut self, number: u8, transaction: Arc<SignedTransaction>) {
        let peer = &mut self.peers[usize::from(number)];
        if !peer.known.insert(transaction.id()) {
            return;
        }
        peer.arrivals += 1;
        peer.mempool.insert(peer.arrivals, transaction.clone());
        for other in (0..PEERS).filter(|other| *other != number) {
            self.send(
                Node::Peer(number),
                Node::Peer(other),
                Message::Submit(transaction.clone()),
            );
        }
    }

    /// One vote a round, for a block that comes to the same here.
    fn consider(&mut self, number: u8, round: u64, block: &Arc<Block>) {
        let peer = &self.peers[usize::from(number)];
        if block.height != peer.height() + 1 {
            return;
        }
        let twice = self.bug == Some(Bug::PeersVoteTwice) || self.traitors.contains(&number);
        if peer.voted.contains(&round) && !twice {
            return;
        }
        let (_, digest) = peer.execute(self, &block.transactions);
        if digest != block.state {
            return;
        }
        self.peers[usize::from(number)].voted.insert(round);
        let vote = Message::Vote(round, number, block.digest());
        self.send(Node::Peer(number), Node::Rounds, vote);
    }

    fn finalize(&mut self, number: u8, block: Arc<Block>) {
        let peer = &self.peers[usize::from(number)];
        if block.height != peer.height() + 1 {
            return;
        }
        let (mut applied, digest) = peer.execute(self, &block.transactions);
        if digest != block.state {
            self.breaks(format!(
                "peer {number} comes to another state at height {}",
                block.height
            ));
            return;
        }
        let outcomes = applied.outcomes.clone();
        let loses = self.bug == Some(Bug::PeerLosesAChange) && number == 1 && self.chance(5);
        if loses {
            applied.changes.pop_last();
        }
        self.peers[usize::from(number)].apply(block.clone(), applied, digest);
        self.check_block(number, block.height, (block.digest(), block.state), &outcomes);
    }

    /// Asks another peer for what is missing.
    fn catch_up(&mut self, number: u8) {
        let other = self.rng.random_range(0..PEERS);
        let (here, there) = (Node::Peer(number), Node::Peer(other));
        if self.is_cut(here, there) || !self.is_up(there) {
            return;
        }
        let height = self.peers[usize::from(number)].log.len();
        let missing = self.peers[usize::from(other)].log.iter().skip(height);
        let missing: Vec<_> = missing.take(20).cloned().collect();
        for block in missing {
            self.finalize(number, block);
        }
    }

    /// What was in memory is gone; the state is an earlier one, and the log is replayed.
    fn restart_peer(&mut self, number: u8) {
        self.faults.down.remove(&Node::Peer(number));
        let snapshot = self
            .rng
            .random_range(0..self.peers[usize::from(number)].snapshots.len());
        let peer = &mut self.peers[usize::from(number)];
        let (height, state, digest) = peer.snapshots[snapshot].clone();
        let again = peer.log.split_off(height);
        peer.snapshots.truncate(snapshot + 1);
        (peer.state, peer.digest, peer.height) = (state, digest, height as u64);
        (peer.mempool, peer.known) = (BTreeMap::new(), BTreeSet::new());
        for block in again {
            self.finalize(number, block);
        }
    }

    /// The end of a round and the beginning of the next.
    pub fn round(&mut self, message: Message) {
        if self.consensus == Consensus::Engine {
            return;
        }
        if let Message::Vote(round, peer, block) = message {
            if round == self.rounds.number {
                self.rounds.votes.entry(block).or_default().insert(peer);
            }
            return;
        }
        self.rounds.is_voting = !self.rounds.is_voting;
        if self.rounds.is_voting {
            self.rounds.number += 1;
            if self.now < LAST_BLOCK_MS {
                self.propose();
            }
            self.after(VOTING_MS, Node::Rounds, Message::Tick);
        } else {
            self.close_round();
            self.after(TELLING_MS, Node::Rounds, Message::Tick);
        }
    }

    fn close_round(&mut self) {
        let proposals = std::mem::take(&mut self.rounds.proposals);
        let votes = std::mem::take(&mut self.rounds.votes);
        let quorum = usize::from(PEERS) * 2 / 3 + 1;
        let has_quorum = |block: &&Arc<Block>| votes.get(&block.digest()).is_some_and(|votes| votes.len() >= quorum);
        let finals: Vec<_> = proposals.iter().filter(has_quorum).cloned().collect();
        for (nth, block) in finals.iter().enumerate() {
            self.rounds.height = block.height;
            // Who saw the one does not ask for the other.
            let told = (0..PEERS).filter(|peer| finals.len() == 1 || usize::from(peer % 2) == nth % 2);
            for peer in told.collect::<Vec<_>>() {
                self.send(Node::Rounds, Node::Peer(peer), Message::Final(block.clone()));
            }
        }
        // Whoever the messages reach or not: what is final is on the disks of more than two thirds.
        if let Some(block) = finals.first() {
            let keeper = votes[&block.digest()].first().copied();
            self.finalize(keeper.expect("a quorum is not empty"), block.clone());
        }
    }

    fn propose(&mut self) {
        let leader = (self.rounds.number % u64::from(PEERS)) as u8;
        let peer = &self.peers[usize::from(leader)];
        if !self.is_up(Node::Peer(leader)) || peer.height() < self.rounds.height {
            return;
        }
        let waiting = peer.mempool.values().take(TRANSACTIONS_PER_BLOCK);
        let transactions: Vec<SignedTransaction> = waiting.map(|transaction| (**transaction).clone()).collect();
        let mut proposals = vec![self.block(leader, transactions.clone())];
        if self.traitors.contains(&leader) && self.now < CALM_MS && !transactions.is_empty() {
            let fewer = transactions[1..].to_vec();
            proposals.push(self.block(leader, fewer));
        }
        let round = self.rounds.number;
        for to in 0..PEERS {
            for (nth, block) in proposals.iter().enumerate() {
                let shown = self.bug == Some(Bug::PeersVoteTwice) || to == leader || usize::from(to % 2) == nth;
                if proposals.len() == 1 || shown {
                    self.send(
                        Node::Peer(leader),
                        Node::Peer(to),
                        Message::Proposal(round, block.clone()),
                    );
                }
            }
        }
        self.rounds.proposals = proposals;
    }

    fn block(&self, leader: u8, transactions: Vec<SignedTransaction>) -> Arc<Block> {
        let peer = &self.peers[usize::from(leader)];
        let (_, state) = peer.execute(self, &transactions);
        Arc::new(Block {
            height: peer.height() + 1,
            transactions,
            state,
        })
    }

    /// The contracts as they would be with a bug in them.
    fn spoil(&self, before: &State, applied: &mut Applied) {
        match self.bug {
            Some(Bug::LedgerForgetsLanes) => {
                for (key, change) in &mut applied.changes {
                    if let (Key::Lane(..), Some(Value::Lane(lane))) = (key, change) {
                        lane.taken.clear();
                    }
                }
            }
            Some(Bug::LedgerMints) => {
                for (key, change) in &mut applied.changes {
                    if let (Key::Pools, Some(Value::Pools(pools))) = (key, change) {
                        pools.insurance.0 += i128::from(before.get(&Key::Pools).is_some());
                    }
                }
            }
            Some(_) | None => {}
        }
    }
}
