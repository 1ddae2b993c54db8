//! The network: what is sent arrives late, twice or not at all, and never through a partition.

use std::{collections::BTreeSet, sync::Arc};

use piecework_ledger::{Action, Key, SignedTransaction, Transaction, Value, View};
use piecework_model::{AccountId, Digest, Rejection, Seal, SecretKey};
use piecework_queue::{Delivery, Order, Unsealed};
use rand::RngExt as _;

use crate::{Consensus, peers::Block, setup::PEERS, world::World};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Peer(u8),
    Provider(u8),
    Controller,
    Developer,
    /// What the peers' consensus is made to be: see `peers`.
    Rounds,
    Chaos,
}

#[derive(Clone)]
pub enum Message {
    Submit(Arc<SignedTransaction>),
    Proposal(u64, Arc<Block>),
    /// Round, who, for which block.
    Vote(u64, u8, Digest),
    Final(Arc<Block>),
    Order(Arc<Order>),
    /// A provider's answer to an order.
    Answer(u8, u64, Result<Box<Delivery>, Rejection>),
    Seal(Seal, Vec<u64>),
    SealTaken(u8, Vec<u64>),
    AskSeal(Vec<Unsealed>),
    ReceiptsSealed(u8, Vec<u64>, Seal),
    /// A run ends.
    Ended(u64),
    Tick,
    Restart,
}

impl Message {
    pub fn kind(&self) -> u8 {
        match self {
            Self::Submit(_) => 0,
            Self::Proposal(..) => 1,
            Self::Vote(..) => 2,
            Self::Final(_) => 3,
            Self::Order(_) => 4,
            Self::Answer(..) => 5,
            Self::Seal(..) => 6,
            Self::SealTaken(..) => 7,
            Self::AskSeal(_) => 8,
            Self::ReceiptsSealed(..) => 9,
            Self::Ended(_) => 10,
            Self::Tick => 11,
            Self::Restart => 12,
        }
    }
}

/// What goes wrong at this moment.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub lost_percent: u32,
    pub late_percent: u32,
    pub doubled_percent: u32,
    /// Nodes of one side; messages do not cross.
    pub partition: BTreeSet<Node>,
    pub down: BTreeSet<Node>,
}

impl World {
    /// Sends over the network, faults and all.
    pub fn send(&mut self, from: Node, to: Node, message: Message) {
        self.report.sent += 1;
        let (lost, doubled) = (self.faults.lost_percent, self.faults.doubled_percent);
        if self.is_cut(from, to) || self.chance(lost) {
            self.report.lost += 1;
            return;
        }
        if self.chance(doubled) {
            let delay = self.delay();
            self.after(delay, to, message.clone());
        }
        let delay = self.delay();
        self.after(delay, to, message);
    }

    fn delay(&mut self) -> u64 {
        let late = self.faults.late_percent;
        match self.chance(late) {
            true => self.rng.random_range(200..3_000),
            false => self.rng.random_range(1..20),
        }
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    pub fn is_up(&self, node: Node) -> bool {
        !self.faults.down.contains(&node)
    }

    /// Whether messages pass between two nodes at this moment.
    pub fn is_cut(&self, one: Node, other: Node) -> bool {
        self.faults.partition.contains(&one) != self.faults.partition.contains(&other)
    }

    /// The engine's peers stop listening to one that they have caught with two faces: it falls behind, and nobody reads there.
    pub fn is_read(&self, peer: u8) -> bool {
        self.consensus == Consensus::Model || !self.traitors.contains(&peer)
    }

    /// Some peer that the node reaches: what it knows of the ledger it reads there.
    pub fn peer_of(&mut self, reader: Node) -> Option<usize> {
        let reached =
            |peer: &u8| self.is_read(*peer) && self.is_up(Node::Peer(*peer)) && !self.is_cut(reader, Node::Peer(*peer));
        let peers: Vec<u8> = (0..PEERS).filter(reached).collect();
        (!peers.is_empty()).then(|| usize::from(peers[self.rng.random_range(0..peers.len())]))
    }

    /// Signs with the account's next nonce, as some peer knows it, and sends to two peers, who pass it on.
    pub fn submit(&mut self, from: Node, key: &SecretKey, action: Action) {
        let sender = AccountId::of(&key.public());
        let nonce = match (action.takes_nonce(), self.peer_of(from)) {
            (true, None) => return,
            (true, Some(peer)) => match View::get(&self.peers[peer].state, &Key::Account(sender)) {
                Some(Value::Account(account)) => account.nonce,
                Some(_) | None => 0,
            },
            // Another transaction each time, or peers would take it for the one that was refused.
            (false, _) => self.now,
        };
        let transaction = Transaction { sender, nonce, action };
        let transaction = Arc::new(SignedTransaction::sign(transaction, key, &self.network));
        for _ in 0..2 {
            let peer = self.rng.random_range(0..self.peers.len()) as u8;
            self.send(from, Node::Peer(peer), Message::Submit(transaction.clone()));
        }
    }
}
