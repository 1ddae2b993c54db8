//! Functions and their versions: deploying, loading, keeping them ready, splitting traffic, and watching for failures.

pub(crate) mod as_sent;
pub(crate) mod budget;
pub(crate) mod build_log;
pub(crate) mod bundles;
pub(crate) mod checks;
pub(crate) mod condition;
pub(crate) mod cors;
pub(crate) mod deploy;
mod entry;
pub(crate) mod fallback;
pub(crate) mod images;
pub(crate) mod keeping;
mod live;
pub(crate) mod loading;
pub(crate) mod pages;
pub(crate) mod placement;
pub(crate) mod routing;
pub(crate) mod sinks;
pub(crate) mod suspects;
#[cfg(test)]
mod tests;
pub(crate) mod traffic;
pub(crate) mod unsaved;
pub(crate) mod update;
pub(crate) mod walls;
pub(crate) mod watch;

pub(crate) use live::*;

use std::sync::Arc;

use piecework_packages::Packages;
use piecework_scheduler as scheduler;
use piecework_sink::Deliver;
use piecework_typescript::TypeScript;

use crate::{Answer, accounts::Accounts, ground::Ground, providers::Providers};

/// The state of this room.
pub(crate) struct Functions {
    pub(crate) ground: Arc<Ground>,
    accounts: Arc<Accounts>,
    providers: Arc<Providers>,
    cache: Arc<Cache>,
    checks: checks::Checks,
    watch: watch::Watch,
    walls: walls::Walls,
    budgets: budget::Budgets,
    tries: unsaved::Tries,
    pub(crate) suspects: suspects::Suspects,
    pub(crate) routes: routing::Table,
    /// Held over each change of a route.
    route_turn: tokio::sync::Mutex<()>,
    pub(crate) bundles: bundles::Bundles,
    pub(crate) images: images::Images,
    pages: pages::Pages,
    codes: as_sent::Codes,
    packages: Arc<Packages>,
    typescript: Arc<TypeScript>,
    pub(crate) sinks: Arc<dyn Deliver>,
    /// How a provider is chosen for functions that do not say.
    policy: scheduler::Policy,
}

/// What the room uses that is nobody else's.
pub(crate) struct Means {
    pub(crate) cache: Arc<Cache>,
    pub(crate) packages: Arc<Packages>,
    pub(crate) typescript: Arc<TypeScript>,
    pub(crate) sinks: Arc<dyn Deliver>,
    pub(crate) policy: scheduler::Policy,
}

impl Functions {
    pub(crate) fn new(
        ground: Arc<Ground>,
        accounts: Arc<Accounts>,
        providers: Arc<Providers>,
        means: Means,
    ) -> Arc<Self> {
        Arc::new(Self {
            ground,
            accounts,
            providers,
            cache: means.cache,
            checks: checks::Checks::default(),
            watch: watch::Watch::default(),
            walls: walls::Walls::default(),
            budgets: budget::Budgets::default(),
            tries: unsaved::Tries::default(),
            suspects: suspects::Suspects::default(),
            routes: routing::Table::default(),
            route_turn: tokio::sync::Mutex::default(),
            bundles: bundles::Bundles::default(),
            images: images::Images::default(),
            pages: pages::Pages::default(),
            codes: as_sent::Codes::default(),
            packages: means.packages,
            typescript: means.typescript,
            sinks: means.sinks,
            policy: means.policy,
        })
    }

    pub(crate) async fn start(self: &Arc<Self>) -> Answer<()> {
        routing::start(self).await?;
        self.ground.tasks.spawn(prune(self.clone()));
        self.ground.tasks.spawn(bundles::run(self.clone()));
        Ok(())
    }
}
