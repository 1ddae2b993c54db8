//! A call from admission to its answer: who may start, where it runs, what came of it, and where its output goes.

pub(crate) mod answer;
pub(crate) mod compare;
pub(crate) mod dispatch;
pub(crate) mod finishing;
pub(crate) mod inflight;
pub(crate) mod invoke;
pub(crate) mod logs;
pub(crate) mod outcome;
pub(crate) mod passing;
pub(crate) mod queue;
pub(crate) mod reference;
pub(crate) mod results;
pub(crate) mod search;
pub(crate) mod streams;
#[cfg(test)]
mod tests;
pub(crate) mod upload;

use std::sync::Arc;

use crate::{
    Answer,
    accounts::Accounts,
    functions::Functions,
    ground::Ground,
    money::Money,
    providers::{Providers, fair},
};

/// The state of this room.
pub(crate) struct Calls {
    pub(crate) ground: Arc<Ground>,
    accounts: Arc<Accounts>,
    providers: Arc<Providers>,
    money: Arc<Money>,
    functions: Arc<Functions>,
    pub(crate) inflight: inflight::Inflight,
    pub(crate) queue: queue::Queue,
    deliveries: results::Deliveries,
    references: reference::References,
}

/// The rooms below.
pub(crate) struct Below {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) providers: Arc<Providers>,
    pub(crate) money: Arc<Money>,
    pub(crate) functions: Arc<Functions>,
}

impl Calls {
    pub(crate) fn new(ground: Arc<Ground>, below: Below) -> Arc<Self> {
        Arc::new(Self {
            ground,
            accounts: below.accounts,
            providers: below.providers,
            money: below.money,
            functions: below.functions,
            inflight: inflight::Inflight::default(),
            queue: queue::Queue::default(),
            deliveries: results::Deliveries::default(),
            references: reference::References::default(),
        })
    }

    /// Takes up what an earlier run accepted and did not finish.
    pub(crate) async fn start(self: &Arc<Self>) -> Answer<()> {
        let tasks = &self.ground.tasks;
        tasks.spawn(results::run(self.clone()));
        tasks.spawn(fair::keep_watch(self.providers.clone()));
        tasks.spawn(reference::run(self.clone()));
        queue::take_up(self).await
    }
}
