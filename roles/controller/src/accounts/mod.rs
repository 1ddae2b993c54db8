//! Accounts: tokens and logins, rate limits, and the audit log of changes.

pub(crate) mod audit;
pub(crate) mod auth;
mod members;
pub(crate) mod rates;

pub(crate) use members::*;

use std::sync::Arc;

use piecework_chain::PeerChanges;

use crate::ground::Ground;

/// The state of this room.
pub(crate) struct Accounts {
    pub(crate) ground: Arc<Ground>,
    pub(crate) auth: auth::Auth,
    rates: rates::Rates,
    turns: Turns,
    peer_changes: PeerChanges,
    on_limits: OnLimits,
}

/// Told when an account's limits were set: what rooms above remember of them is out of date.
pub(crate) type OnLimits = Box<dyn Fn() + Send + Sync>;

impl Accounts {
    pub(crate) fn new(ground: Arc<Ground>, on_limits: OnLimits) -> Arc<Self> {
        Arc::new(Self {
            ground,
            auth: auth::Auth::default(),
            rates: rates::Rates::default(),
            turns: Turns::default(),
            peer_changes: PeerChanges::default(),
            on_limits,
        })
    }
}
