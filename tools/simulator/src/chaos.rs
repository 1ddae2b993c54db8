//! What befalls the network: crashes, partitions, and a controller that does not come back.

use rand::RngExt as _;

use crate::{
    wire::{Faults, Message, Node},
    world::{CALM_MS, World},
};

impl World {
    pub fn chaos(&mut self) {
        self.wishes.link = true;
        if self.vanishes_ms.is_some_and(|at| self.now >= at) {
            self.faults.down.insert(Node::Controller);
        }
        if self.now >= CALM_MS {
            self.calm();
            if self.vanishes_ms.is_some_and(|at| self.now < at) {
                self.after(200, Node::Chaos, Message::Tick);
            }
            return;
        }
        match self.rng.random_range(0..10) {
            0 | 1 => self.crash(),
            2 => self.split(),
            3 | 4 => self.faults.partition.clear(),
            _ => {}
        }
        self.after(300, Node::Chaos, Message::Tick);
    }

    fn crash(&mut self) {
        let nodes = self.nodes();
        let node = nodes[self.rng.random_range(0..nodes.len())];
        let peers_down = self.faults.down.iter().any(|node| matches!(node, Node::Peer(_)));
        let spared = match node {
            Node::Peer(_) => peers_down,
            Node::Provider(_) | Node::Controller => false,
            Node::Developer | Node::Rounds | Node::Chaos => true,
        };
        if spared || !self.faults.down.insert(node) {
            return;
        }
        if let Node::Peer(number) = node {
            self.wishes.crash.push(number);
        }
        self.report.crashes += 1;
        let back = self.rng.random_range(200..3_000);
        self.after(back, node, Message::Restart);
    }

    fn split(&mut self) {
        let half = self.nodes().into_iter().filter(|_| self.rng.random_bool(0.5));
        self.faults.partition = half.collect();
    }

    /// All faults end; only a vanished controller stays away.
    fn calm(&mut self) {
        let down = self.faults.down.clone();
        self.faults = Faults {
            down,
            ..Faults::default()
        };
    }

    pub fn controller_is_gone(&self) -> bool {
        self.vanishes_ms.is_some_and(|at| self.now >= at)
    }
}
