//! Providers as seen by this controller: connected, measured, trusted, and shared out slot by slot.

pub(crate) mod fair;
pub(crate) mod hub;
pub(crate) mod reasons;
pub(crate) mod seen;
pub(crate) mod standings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use piecework_model::{AccountId, Code};
use piecework_queue::ProviderLink;

use self::seen::{Membership, Seen};
use crate::{Answer, failure, ground::Ground};

/// The state of this room.
pub(crate) struct Providers {
    pub(crate) ground: Arc<Ground>,
    present: seen::Present,
    standings: standings::Standings,
    hub: hub::Hub,
    /// Their slots.
    pub(crate) fair: fair::Fair,
}

impl Providers {
    pub(crate) fn new(ground: Arc<Ground>) -> Arc<Self> {
        Arc::new(Self {
            ground,
            present: seen::Present::default(),
            standings: standings::Standings::default(),
            hub: hub::Hub::default(),
            fair: fair::Fair::default(),
        })
    }

    /// As they are at this moment; cheap.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Seen>>> {
        self.present.all()
    }

    pub(crate) fn by_account(&self, account: AccountId) -> Option<Arc<Seen>> {
        self.present.by_account(account)
    }

    /// Adds a provider, or puts a new run of it in the place of the one before.
    pub(crate) fn join(&self, link: Arc<dyn ProviderLink>, membership: Membership) {
        self.present.join(link, membership);
    }

    /// Resolves when a provider has joined since it last did. For one task alone.
    pub(crate) async fn joined(&self) {
        self.present.joined().await;
    }

    /// The connection to a provider. Refuses with `provider.none` if it is not connected.
    pub(crate) fn link(&self, provider: AccountId) -> Answer<Arc<dyn ProviderLink>> {
        let seen = self.by_account(provider);
        match seen.filter(|seen| seen.link.is_linked()) {
            Some(seen) => Ok(seen.link.clone()),
            None => failure::refuse(Code::ProviderNone, "the provider is not connected"),
        }
    }
}
