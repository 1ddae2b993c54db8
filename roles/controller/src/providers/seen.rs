//! The scheduler's view of the providers.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use piecework_api::ledger::ProviderState;
use piecework_model::{AccountId, EgressList, FunctionId, Language};
use piecework_queue::ProviderLink;
use piecework_sandbox::BackendName;
use piecework_scheduler::Candidate;

use crate::{Controller, providers::standings::Known};

/// The providers that are here, and those that were: one that went away says why it gets no jobs.
#[derive(Default)]
pub(crate) struct Providers(RwLock<Arc<Vec<Arc<Seen>>>>);

impl Providers {
    /// As they are at this moment; cheap.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Seen>>> {
        self.0.read().clone()
    }

    pub(crate) fn by_account(&self, account: AccountId) -> Option<Arc<Seen>> {
        let all = self.all();
        all.iter().find(|seen| seen.link.profile().account == account).cloned()
    }

    /// Adds a provider, or puts a new run of it in the place of the one before.
    pub(crate) fn join(&self, link: Arc<dyn ProviderLink>, membership: Membership) {
        let account = link.profile().account;
        let mut list = self.0.write();
        let others = list.iter().filter(|seen| seen.link.profile().account != account);
        let mut next: Vec<_> = others.cloned().collect();
        next.push(Arc::new(Seen::new(link, membership)));
        *list = Arc::new(next);
    }
}

/// Often enough for people who watch.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Tells the readers of `/events` of each provider that comes, goes, or takes nothing new, until the controller stops.
pub(crate) async fn tell(controller: Arc<Controller>) {
    let mut known: HashMap<AccountId, ProviderState> = HashMap::new();
    loop {
        tokio::select! {
            () = controller.shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        for seen in controller.providers.all().iter() {
            let (account, state) = (seen.link.profile().account, seen.state());
            if known.insert(account, state) != Some(state) && controller.has_listeners() {
                controller.announce_provider(seen).await;
            }
        }
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
    runs: Arc<BTreeSet<(String, Language)>>,
    region: Arc<str>,
    labels: Arc<BTreeSet<String>>,
}

/// One of a provider's slots, from the assignment of a job to its end.
pub(crate) struct Slot(Arc<Seen>);

impl Slot {
    pub(crate) fn provider(&self) -> &Arc<dyn ProviderLink> {
        &self.0.link
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.assigned.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The version that needs a provider.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) version: (FunctionId, u32),
    pub(crate) egress: &'a EgressList,
    /// Who pays.
    pub(crate) developer: AccountId,
}

impl Seen {
    fn new(link: Arc<dyn ProviderLink>, membership: Membership) -> Self {
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
            owner: membership.owner,
            standing: membership.standing,
            is_own: membership.is_own,
            assigned: AtomicU32::new(0),
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

    /// Takes a slot, unless all of them are assigned: of two who saw the last one free, one gets it.
    pub(crate) fn take_slot(self: &Arc<Self>) -> Option<Slot> {
        let slots = self.link.profile().slots;
        let one_more = |assigned: u32| (assigned < slots).then_some(assigned + 1);
        let taken = self
            .assigned
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        taken.is_ok().then(|| Slot(self.clone()))
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
            running: load.running.max(self.assigned.load(Ordering::Acquire)),
            memory_bytes: profile.memory_bytes,
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
        self.runs.contains(&(backend.to_string(), language))
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
