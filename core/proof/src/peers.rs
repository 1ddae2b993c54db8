//! Whose votes count at which height: the peers of the genesis, then each set that the one before voted in.

use piecework_ledger::{Event, Genesis};
use piecework_model::{NetworkId, PublicKey};

use crate::{Entry, Evidence, Invalid};

/// What a checker trusts, and what follows from it.
///
/// If you start with the genesis alone and follow the changes, you trust that no former set of peers ever signs another
/// history with more than two thirds of its keys, not even long after its peers left: nothing forces them to destroy
/// their keys. If you know today's peers from another source, you need only them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    network: NetworkId,
    /// From which height on, and the keys, ascending.
    sets: Vec<(u64, Vec<PublicKey>)>,
}

impl Anchor {
    /// The peers of the genesis, from the start on.
    pub fn genesis(genesis: &Genesis) -> Self {
        Self::peers(
            genesis.network_id(),
            genesis.peers.iter().map(|peer| peer.key).collect(),
        )
    }

    /// These peers and no others, whatever a proof says of changes.
    pub fn peers(network: NetworkId, mut peers: Vec<PublicKey>) -> Self {
        peers.sort();
        peers.dedup();
        Self {
            network,
            sets: vec![(0, peers)],
        }
    }

    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Who makes the block at `height`.
    pub fn at(&self, height: u64) -> &[PublicKey] {
        let set = self.sets.iter().rev().find(|(from, _)| *from <= height);
        set.map_or(&[], |(_, peers)| peers)
    }

    /// How often the peers changed, as far as was shown.
    pub fn changes(&self) -> usize {
        self.sets.len() - 1
    }

    /// Follows changes of the peers in their order, each proven by the set before it.
    pub fn follow(&mut self, changes: &[Evidence]) -> Result<(), Invalid> {
        for change in changes {
            let height = change.block.height;
            change.verify(self)?;
            let Entry::Event(Event::PeersChanged { from_height, peers }) = &change.entry.entry else {
                return Err(Invalid::NoPeerChange { height });
            };
            let last = self.sets.last().map_or(0, |(from, _)| *from);
            if *from_height <= height || *from_height <= last {
                return Err(Invalid::NoPeerChange { height });
            }
            let mut peers = peers.clone();
            peers.sort();
            self.sets.push((*from_height, peers));
        }
        Ok(())
    }
}
