//! Who the peers are: those of the genesis, then what more than two thirds of them vote for.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    books::{Books, Checked, Entry, ensure},
    format::*,
    trees::tagged,
};

/// Keys with their owners' accounts.
pub type Peers = BTreeMap<Key, Id>;

/// A change, and the owners of peers that are for it.
pub struct Proposal {
    change: Change,
    votes: BTreeSet<Id>,
}

impl Books {
    pub fn peers(&self, height: u64) -> &Peers {
        let set = self.peers.iter().rev().find(|(from, _)| *from <= height);
        &set.unwrap_or(&self.peers[0]).1
    }

    /// Whose votes count at a height, ascending.
    pub fn peers_at(&self, height: u64) -> Vec<Key> {
        self.peers(height).keys().copied().collect()
    }

    /// Books a proposal, a vote, or the change that they carried.
    pub fn vote(&mut self, entry: &Entry, event: &Event) -> Checked {
        let transaction = &entry.signed.transaction;
        let sender = transaction.sender;
        let owners: Vec<Id> = self.peers(entry.height).values().copied().collect();
        ensure(owners.contains(&sender), "a vote is not from the owner of a peer")?;
        match (event, &transaction.action) {
            (Event::ChangeProposed { .. }, Action::Propose { change }) => {
                let proposal = Proposal {
                    change: change.clone(),
                    votes: [sender].into(),
                };
                self.proposals.insert(sender, proposal);
                Ok(())
            }
            (Event::ChangeVoted { .. }, Action::Vote { proposer, change }) => {
                let proposal = self.proposals.get_mut(proposer).ok_or("a vote is for no proposal")?;
                let same = tagged("piecework 2026 change", &proposal.change) == *change;
                ensure(same, "a vote is for another change")?;
                proposal.votes.insert(sender);
                Ok(())
            }
            (event, action) => {
                let proposer = match action {
                    Action::Vote { proposer, .. } => *proposer,
                    _ => sender,
                };
                let carried = self.proposals.remove(&proposer).ok_or("a change was not proposed")?;
                let votes = owners.iter().filter(|owner| carried.votes.contains(*owner)).count();
                ensure(
                    3 * votes > 2 * owners.len(),
                    "a change lacks more than two thirds of the votes",
                )?;
                self.carry(entry.height, event, carried.change)
            }
        }
    }

    fn carry(&mut self, height: u64, event: &Event, change: Change) -> Checked {
        let mut next = self.peers(height).clone();
        match change {
            Change::SetParams(params) => {
                self.params = params;
                return ensure(
                    *event == Event::ParamsChanged,
                    "a change differs from the one that was voted for",
                );
            }
            Change::AddPeer(key, owner, ..) => next.insert(key, owner),
            Change::RemovePeer(key) => next.remove(&key),
        };
        let Event::PeersChanged { from_height, peers } = event else {
            return Err("a change differs from the one that was voted for".to_owned());
        };
        let last = self.peers.last().map_or(0, |(from, _)| *from);
        let keys: Vec<Key> = next.keys().copied().collect();
        ensure(
            keys == *peers && *from_height > height && height >= last,
            "the peers differ from those that were voted for",
        )?;
        self.peers.push((*from_height, next));
        Ok(())
    }
}
