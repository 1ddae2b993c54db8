//! The providers as the scheduler sees them.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::RwLock;
use piecework_model::{AccountId, EgressList, Language};
use piecework_queue::ProviderLink;
use piecework_scheduler::Candidate;

use crate::functions::Live;

/// The providers that are here, and those that were: one that went away says why it gets no jobs.
#[derive(Default)]
pub(crate) struct Providers(RwLock<Arc<Vec<Arc<Seen>>>>);

impl Providers {
    pub(crate) fn new(links: Vec<Arc<dyn ProviderLink>>) -> Self {
        let seen = links.into_iter().map(|link| Arc::new(Seen::new(link))).collect();
        Self(RwLock::new(Arc::new(seen)))
    }

    /// As they are at this moment; cheap.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Seen>>> {
        self.0.read().clone()
    }

    pub(crate) fn by_account(&self, account: AccountId) -> Option<Arc<Seen>> {
        let all = self.all();
        all.iter().find(|seen| seen.link.profile().account == account).cloned()
    }

    /// Adds a provider, or puts a new run of it in the place of the one before.
    pub(crate) fn join(&self, link: Arc<dyn ProviderLink>) {
        let account = link.profile().account;
        let mut list = self.0.write();
        let others = list.iter().filter(|seen| seen.link.profile().account != account);
        let mut next: Vec<_> = others.cloned().collect();
        next.push(Arc::new(Seen::new(link)));
        *list = Arc::new(next);
    }
}

/// A provider with the parts of its profile that do not change, ready for each decision.
pub(crate) struct Seen {
    pub(crate) link: Arc<dyn ProviderLink>,
    runs: Arc<BTreeSet<(String, Language)>>,
    region: Arc<str>,
    labels: Arc<BTreeSet<String>>,
}

impl Seen {
    pub(crate) fn new(link: Arc<dyn ProviderLink>) -> Self {
        let profile = link.profile();
        let working = profile.probes.iter().filter(|probe| probe.works);
        let runs = working
            .flat_map(|probe| {
                probe
                    .languages
                    .iter()
                    .map(|language| (probe.backend.to_string(), *language))
            })
            .collect();
        Self {
            runs: Arc::new(runs),
            region: profile.region.as_str().into(),
            labels: Arc::new(profile.labels.iter().cloned().collect()),
            link,
        }
    }

    pub(crate) fn candidate(&self, live: &Live) -> Candidate {
        let (profile, load) = (self.link.profile(), self.link.load());
        Candidate {
            account: profile.account,
            silent_ms: if self.link.is_linked() {
                self.link.silent_ms()
            } else {
                u64::MAX
            },
            draining: load.draining,
            slots: profile.slots,
            running: load.running,
            memory_bytes: profile.memory_bytes,
            runs: self.runs.clone(),
            prices: profile.prices,
            region: self.region.clone(),
            labels: self.labels.clone(),
            egress: self.lets_reach(&live.version.egress),
            warm: self.link.is_warm(live.function.id, live.version.version),
        }
    }

    /// Whether it runs functions that reach the network, these addresses among what they reach.
    pub(crate) fn lets_reach(&self, list: &EgressList) -> bool {
        let policy = self.link.profile().egress.as_ref();
        list.is_empty() || policy.is_some_and(|policy| policy.forbidden(list).is_none())
    }

    /// Whether its probe saw this backend run this language.
    pub(crate) fn can_run(&self, backend: &str, language: Language) -> bool {
        self.runs
            .iter()
            .any(|(name, runs)| name == backend && *runs == language)
    }
}
