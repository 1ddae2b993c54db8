//! Accounts: tokens and logins, rate limits, and the audit log of changes.

pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod bookings;
pub(crate) mod challenges;
pub(crate) mod invites;
pub(crate) mod logins;
mod members;
pub(crate) mod rates;
#[cfg(test)]
mod tests;
pub(crate) mod throttle;
pub(crate) mod transfers;
pub(crate) mod upkeep;

pub(crate) use members::*;

use std::sync::Arc;

use piecework_chain::PeerChanges;
use tokio::runtime::Handle;

use crate::ground::Ground;

/// The state of this room.
pub(crate) struct Accounts {
    pub(crate) ground: Arc<Ground>,
    pub(crate) auth: auth::Auth,
    rates: rates::Rates,
    turns: Turns,
    sending: transfers::Sending,
    /// Held over each decision about a booking.
    booking: tokio::sync::Mutex<()>,
    peer_changes: PeerChanges,
    on_limits: OnLimits,
}

/// Told when an account's limits were set: what rooms above remember of them is out of date.
pub(crate) type OnLimits = Box<dyn Fn() + Send + Sync>;

impl Accounts {
    /// Passwords are hashed on threads of `background`.
    pub(crate) fn new(ground: Arc<Ground>, background: Handle, on_limits: OnLimits) -> Arc<Self> {
        Arc::new(Self {
            ground,
            auth: auth::Auth::new(background),
            rates: rates::Rates::default(),
            turns: Turns::default(),
            sending: transfers::Sending::default(),
            booking: tokio::sync::Mutex::default(),
            peer_changes: PeerChanges::default(),
            on_limits,
        })
    }
}
