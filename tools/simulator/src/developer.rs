//! The developer's wallet: opens the lease, closes it at the end, and wants its money back as soon as it can.

use piecework_ledger::{Action, CloseLease, ExpireLease, Key, Lease, LeaseState, OpenLease, Subject, Value, View};
use piecework_model::{AccountId, Credits, LeaseId};

use crate::{
    setup::{EXPOSURE_UCR, PRICES, controller_key, developer_key},
    wire::{Message, Node},
    world::{CLOSE_MS, World},
};

const BUDGET: Credits = Credits(500 * Credits::ONE.0);

/// The one lease there is: of the developer's first transaction.
pub fn lease_id() -> LeaseId {
    LeaseId::of(AccountId::of(&developer_key().public()), 0)
}

impl World {
    /// As the reader sees it; `None` also where it reaches no peer.
    pub fn lease(&mut self, reader: Node) -> Option<Lease> {
        let peer = self.peer_of(reader)?;
        match View::get(&self.peers[peer].state, &Key::Lease(lease_id())) {
            Some(Value::Lease(lease)) => Some(lease),
            Some(_) | None => None,
        }
    }

    /// Looks at the ledger and does what is next; whatever gets lost is done again.
    pub fn developer(&mut self) {
        self.after(200, Node::Developer, Message::Tick);
        let Some(peer) = self.peer_of(Node::Developer) else {
            return;
        };
        let height = self.peers[peer].height();
        let lease = lease_id();
        let action = match self.lease(Node::Developer).map(|lease| lease.state) {
            None => Some(open()),
            Some(LeaseState::Open) if self.now > CLOSE_MS => Some(Action::CloseLease(CloseLease { lease })),
            Some(LeaseState::Draining { until_height }) if height > until_height => {
                Some(Action::ExpireLease(ExpireLease { lease }))
            }
            Some(LeaseState::Open | LeaseState::Draining { .. } | LeaseState::Closed) => None,
        };
        if let Some(action) = action {
            self.submit(Node::Developer, &developer_key(), action);
        }
    }
}

fn open() -> Action {
    Action::OpenLease(OpenLease {
        subject: Subject::AnyFunction,
        provider: None,
        controller: AccountId::of(&controller_key().public()),
        price_caps: PRICES,
        budget: BUDGET,
        payer_keys: vec![controller_key().public()],
        mailboxes: vec![controller_key().public()],
        exposure_ucr: EXPOSURE_UCR,
    })
}
