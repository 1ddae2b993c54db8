//! The scheduler's view of the providers.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use piecework_api::ledger::ProviderState;
use piecework_model::{AccountId, EgressList, FunctionId, Language};
use piecework_queue::ProviderLink;
use piecework_sandbox::BackendName;
use piecework_scheduler::{Candidate, Request, SILENT_MS_MAX, Trust};
use tokio::sync::Notify;

use crate::providers::standings::Known;

/// How long a provider that left is listed: an hour.
const LEFT_LISTED_MS: u64 = 3_600_000;

/// The providers that are here, and those that were: one that went away says why it gets no jobs.
#[derive(Default)]
pub(crate) struct Present {
    list: RwLock<Arc<Vec<Arc<Seen>>>>,
    joined: Notify,
}

impl Present {
    /// As they are at this moment; cheap.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Seen>>> {
        self.list.read().clone()
    }

    pub(crate) fn by_account(&self, account: AccountId) -> Option<Arc<Seen>> {
        let all = self.all();
        all.iter().find(|seen| seen.link.profile().account == account).cloned()
    }

    /// Adds a provider, or puts a new run of it in the place of the one before.
    pub(crate) fn join(&self, link: Arc<dyn ProviderLink>, membership: Membership) {
        let account = link.profile().account;
        let mut list = self.list.write();
        let others = list.iter().filter(|seen| seen.link.profile().account != account);
        let mut next: Vec<_> = others.cloned().collect();
        next.push(Arc::new(Seen::new(link, membership)));
        *list = Arc::new(next);
        self.joined.notify_one();
    }

    /// Resolves when a provider has joined since it last did. For one task alone.
    pub(crate) async fn joined(&self) {
        self.joined.notified().await;
    }
}

/// What the community knows of a provider beside its own word.
pub(crate) struct Membership {
    pub(crate) owner: AccountId,
    pub(crate) standing: Known,
    /// Whether it is a part of this process: what it says is what the controller says.
    pub(crate) is_own: bool,
}

/// A provider with the parts of its profile that do not change, ready for each decision.
pub(crate) struct Seen {
    pub(crate) link: Arc<dyn ProviderLink>,
    pub(crate) owner: AccountId,
    pub(crate) standing: Known,
    pub(crate) is_own: bool,
    /// Jobs that were assigned to it here and have not ended.
    assigned: AtomicU32,
    /// What was set aside for them.
    assigned_bytes: AtomicU64,
    runs: Arc<BTreeSet<(BackendName, Language)>>,
    region: Arc<str>,
    labels: Arc<BTreeSet<String>>,
}

/// The version that needs a provider.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) version: (FunctionId, u32),
    pub(crate) egress: &'a EgressList,
    /// Who pays.
    pub(crate) developer: AccountId,
}

/// A version that is called, or a draft that is loaded.
pub(crate) trait Wants: Send + Sync {
    fn wanted(&self) -> Wanted<'_>;

    /// What the scheduler is asked.
    fn request(&self) -> &Request;
}

impl Seen {
    fn new(link: Arc<dyn ProviderLink>, membership: Membership) -> Self {
        let profile = link.profile();
        let working = profile.probes.iter().filter(|probe| probe.works);
        let runs = working
            .flat_map(|probe| probe.languages.iter().map(|language| (probe.backend, *language)))
            .collect();
        Self {
            runs: Arc::new(runs),
            region: profile.region.as_str().into(),
            labels: Arc::new(profile.labels.iter().cloned().collect()),
            owner: membership.owner,
            standing: membership.standing,
            is_own: membership.is_own,
            assigned: AtomicU32::new(0),
            assigned_bytes: AtomicU64::new(0),
            link,
        }
    }

    pub(crate) fn state(&self) -> ProviderState {
        let load = self.link.load();
        match (self.link.is_linked(), load.draining, load.paused) {
            (false, _, _) => ProviderState::Gone,
            (true, true, _) => ProviderState::Draining,
            (true, false, true) => ProviderState::Paused,
            (true, false, false) => ProviderState::Ready,
        }
    }

    /// One that left is shown for a while, so that whoever misses it sees when it went.
    pub(crate) fn is_listed(&self) -> bool {
        self.link.is_linked() || self.link.silent_ms() < LEFT_LISTED_MS
    }

    pub(crate) fn job_begins(&self, memory_bytes: u64) {
        self.assigned.fetch_add(1, Ordering::AcqRel);
        self.assigned_bytes.fetch_add(memory_bytes, Ordering::AcqRel);
    }

    pub(crate) fn job_ends(&self, memory_bytes: u64) {
        self.assigned.fetch_sub(1, Ordering::AcqRel);
        self.assigned_bytes.fetch_sub(memory_bytes, Ordering::AcqRel);
    }

    pub(crate) fn trust(&self) -> Trust {
        self.standing.lock().trust()
    }

    /// Whether it takes new jobs at all.
    pub(crate) fn takes_jobs(&self) -> bool {
        let load = self.link.load();
        self.link.is_linked() && self.link.silent_ms() <= SILENT_MS_MAX && !load.draining && !load.paused
    }

    /// What it runs, for the scheduler. Its own count is of some seconds ago where it is far away, so a slot that is free
    /// by the count here is offered all the same; jobs of others that it runs make it look busy.
    fn running(&self, slots: u32, told: u32) -> u32 {
        let assigned = self.assigned.load(Ordering::Acquire);
        match assigned >= slots {
            true => assigned,
            false => told.max(assigned).min(slots - 1),
        }
    }

    pub(crate) fn candidate(&self, wanted: Wanted<'_>) -> Candidate {
        let (profile, load) = (self.link.profile(), self.link.load());
        let (trust, cpu_us_per_unit) = {
            let standing = self.standing.lock();
            (standing.trust(), standing.cpu_us_per_unit)
        };
        Candidate {
            account: profile.account,
            owner: self.owner,
            silent_ms: if self.link.is_linked() {
                self.link.silent_ms()
            } else {
                u64::MAX
            },
            draining: load.draining,
            paused: load.paused,
            slots: profile.slots,
            running: self.running(profile.slots, load.running),
            memory_bytes: profile.memory_bytes,
            memory_taken: self.assigned_bytes.load(Ordering::Acquire),
            runs: self.runs.clone(),
            prices: profile.prices_for(wanted.developer),
            region: self.region.clone(),
            labels: self.labels.clone(),
            trust,
            cpu_us_per_unit,
            egress: self.lets_reach(wanted.egress),
            warm: self.link.is_warm(wanted.version.0, wanted.version.1),
        }
    }

    /// Whether its probe saw this backend run this language.
    pub(crate) fn runs(&self, backend: BackendName, language: Language) -> bool {
        self.runs.contains(&(backend, language))
    }

    pub(crate) fn cpu_us_per_unit(&self) -> Option<u32> {
        self.standing.lock().cpu_us_per_unit
    }

    /// Whether it runs functions that reach the network, these addresses among what they reach.
    pub(crate) fn lets_reach(&self, list: &EgressList) -> bool {
        let policy = self.link.profile().egress.as_ref();
        list.is_empty() || policy.is_some_and(|policy| policy.forbidden(list).is_none())
    }
}
