//! Leases, tickets under seals, receipts on their way to the ledger, and what the ledger says came of them.

// A money event of the ledger that nothing here handles must not compile.
#![deny(clippy::wildcard_enum_match_arm)]

pub(crate) mod aside;
pub(crate) mod closing;
mod condense;
pub(crate) mod disputes;
pub(crate) mod follow;
pub(crate) mod lane;
pub(crate) mod leases;
pub(crate) mod outbox;
pub(crate) mod pace;
pub(crate) mod settle;
pub(crate) mod statements;
#[cfg(test)]
pub(crate) mod tests;
mod waiting;
pub(crate) mod withheld;

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::{Answer, accounts::Accounts, ground::Ground, providers::Providers};

/// The state of this room.
pub(crate) struct Money {
    pub(crate) ground: Arc<Ground>,
    accounts: Arc<Accounts>,
    providers: Arc<Providers>,
    pub(crate) leases: leases::Leases,
    pub(crate) outbox: outbox::Outbox,
    aside: aside::Aside,
    withheld: withheld::Withheld,
    places: pace::Places,
}

impl Money {
    pub(crate) fn new(ground: Arc<Ground>, accounts: Arc<Accounts>, providers: Arc<Providers>) -> Arc<Self> {
        Arc::new(Self {
            ground,
            accounts,
            providers,
            leases: leases::Leases::default(),
            outbox: outbox::Outbox::default(),
            aside: aside::Aside::default(),
            withheld: withheld::Withheld::default(),
            places: pace::Places::default(),
        })
    }

    /// Catches up with the ledger, takes up what an earlier run left unsettled, and goes on with both in `background`.
    pub(crate) async fn start(self: &Arc<Self>, background: &Handle) -> Answer<()> {
        follow::catch_up(self).await?;
        settle::take_up(self).await?;
        let tasks = &self.ground.tasks;
        tasks.spawn_on(follow::run(self.clone()), background);
        tasks.spawn_on(settle::run(self.clone()), background);
        tasks.spawn_on(leases::load_all(self.clone()), background);
        tasks.spawn_on(disputes::run(self.clone()), background);
        tasks.spawn_on(closing::run(self.clone()), background);
        tasks.spawn_on(aside::run(self.clone()), background);
        tasks.spawn_on(condense::run(self.clone()), background);
        tasks.spawn_on(withheld::run(self.clone()), background);
        Ok(())
    }
}
