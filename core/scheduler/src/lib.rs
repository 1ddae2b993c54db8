//! Decisions about providers: which one gets a job, why the others were passed over, which waiting job gets a slot, how far each
//! provider is trusted, and in which of two walls a version's calls run.
//!
//! Pure and replayable: the same view, request, policy and seed give the same choice, whatever the order of the view.

mod placement;
mod reasons;
mod room;
mod standing;
#[cfg(test)]
mod tests;
mod usage;
mod wall_choice;

use std::{collections::BTreeSet, sync::Arc};

use piecework_model::{AccountId, BackendName, Counters, Language, Limits, Prices};

pub use placement::{Pin, Placement, Policy, PriceCaps, Trust};
pub use reasons::{NAMED_MAX, PassedOver, Reason, Reasons};
pub use room::{Admission, Arrival, Bounds, Claim, Crowded, Grant, Presence, ProviderSet, Room, Ticket};
pub use standing::{Finding, SCORE_MAX, Standing, Verdict, rerun_percent, verdict};
pub use usage::{Counter, MachineClass, Outlier, SAMPLES_MIN, Sample, Usage};
pub use wall_choice::{COMPUTES_US, Comparison, Cost, Middle, Move, Wall, WallChoice};

/// What the controller knows of one provider at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub account: AccountId,
    /// Whose it is: the account's owner, or the account itself.
    pub owner: AccountId,
    /// Milliseconds since it was last heard of.
    pub silent_ms: u64,
    pub draining: bool,
    /// Its owner's work comes first.
    pub paused: bool,
    pub slots: u32,
    /// Jobs that run there or are on their way.
    pub running: u32,
    /// For all jobs together.
    pub memory_bytes: u64,
    /// Set aside for the jobs that run there or are on their way.
    pub memory_taken: u64,
    /// `(backend, language)` pairs that its probe saw working.
    pub runs: Arc<BTreeSet<(BackendName, Language)>>,
    pub prices: Prices,
    pub region: Arc<str>,
    pub labels: Arc<BTreeSet<String>>,
    pub trust: Trust,
    /// CPU microseconds for a unit of the reference job; none where it was never measured.
    pub cpu_us_per_unit: Option<u32>,
    /// Whether an idle instance of the wanted version waits there.
    pub warm: bool,
    /// Whether it lets functions reach what this one's allow list names.
    pub egress: bool,
}

/// What a job needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub backend: BackendName,
    pub language: Language,
    pub memory_bytes: u64,
    /// Whether the function has an allow list.
    pub egress: bool,
    pub price_caps: Prices,
    pub region: Option<String>,
    pub labels: BTreeSet<String>,
    pub trust: Trust,
    /// Of a job that brings secrets or reaches the network: only providers that are known, and whatever belongs to one of
    /// these.
    pub confided_to: Option<BTreeSet<AccountId>>,
    /// Only these, where the developer pinned the function to machines.
    pub pinned: Option<Pinned>,
}

impl Request {
    /// What a provider sets aside for the job: its limit, and what an instance costs beyond.
    pub fn footprint_bytes(&self) -> u64 {
        self.memory_bytes.saturating_add(Limits::OVERHEAD_BYTES)
    }
}

/// The only providers that may run a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    pub providers: BTreeSet<AccountId>,
    /// Whatever belongs to one of these.
    pub owners: BTreeSet<AccountId>,
}

impl Pinned {
    fn allows(&self, candidate: &Candidate) -> bool {
        let is_owner = |account| self.owners.contains(account);
        self.providers.contains(&candidate.account) || is_owner(&candidate.owner) || is_owner(&candidate.account)
    }
}

/// The provider that gets the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub index: usize,
    pub passed_over: Reasons,
}

/// A provider not heard of for this long gets no jobs: three missed heartbeats of five seconds.
pub const SILENT_MS_MAX: u64 = 15_000;

/// Chooses among `view`. `Err` holds why each was passed over; empty where there is none at all.
pub fn plan(view: &[Candidate], request: &Request, policy: Policy, seed: u64) -> Result<Choice, Reasons> {
    let mut passed_over = Reasons::default();
    let mut fitting = Vec::new();
    for (index, candidate) in view.iter().enumerate() {
        match misfit(candidate, request) {
            Some(reason) => passed_over.add(candidate.account, reason),
            None => fitting.push(index),
        }
    }
    let Some(best) = fitting
        .iter()
        .copied()
        .min_by_key(|&index| rank(&view[index], request, policy, seed))
    else {
        return Err(passed_over);
    };
    for index in fitting.into_iter().filter(|&index| index != best) {
        passed_over.add(view[index].account, Reason::Outranked);
    }
    Ok(Choice {
        index: best,
        passed_over,
    })
}

/// Why the provider cannot take such a job at this moment, if it cannot.
pub fn misfit(candidate: &Candidate, request: &Request) -> Option<Reason> {
    if !is_pinned(candidate, request) {
        return Some(Reason::NotPinned);
    }
    let is_full = candidate.running >= candidate.slots;
    let free_bytes = candidate.memory_bytes.saturating_sub(candidate.memory_taken);
    let lacks_memory = free_bytes < request.footprint_bytes();
    absence(candidate)
        .or_else(|| inability(candidate, request))
        .or(is_full.then_some(Reason::NoFreeSlot))
        .or(lacks_memory.then_some(Reason::NoFreeMemory))
}

fn is_pinned(candidate: &Candidate, request: &Request) -> bool {
    request.pinned.as_ref().is_none_or(|pinned| pinned.allows(candidate))
}

/// Why the provider takes no job at all at this moment, if it takes none.
pub fn absence(candidate: &Candidate) -> Option<Reason> {
    let checks = [
        (candidate.silent_ms > SILENT_MS_MAX, Reason::Silent),
        (candidate.draining, Reason::Draining),
        (candidate.paused, Reason::Paused),
    ];
    checks
        .into_iter()
        .find_map(|(applies, reason)| applies.then_some(reason))
}

/// Why the provider could not take such a job if it were idle, if it could not.
pub fn inability(candidate: &Candidate, request: &Request) -> Option<Reason> {
    let elsewhere = |region: &String| **region != *candidate.region;
    let checks = [
        (!is_pinned(candidate, request), Reason::NotPinned),
        (!runs(candidate, request), Reason::NoBackend),
        (request.egress && !candidate.egress, Reason::NoEgress),
        (
            candidate.memory_bytes < request.footprint_bytes(),
            Reason::TooLittleMemory,
        ),
        (!candidate.prices.within(&request.price_caps), Reason::TooDear),
        (request.region.as_ref().is_some_and(elsewhere), Reason::WrongRegion),
        (!request.labels.is_subset(&candidate.labels), Reason::MissingLabel),
        (candidate.trust < request.trust, Reason::TooLittleTrust),
        (!is_confided(candidate, request), Reason::NotConfided),
    ];
    checks
        .into_iter()
        .find_map(|(applies, reason)| applies.then_some(reason))
}

fn is_confided(candidate: &Candidate, request: &Request) -> bool {
    let is_theirs =
        |owners: &BTreeSet<AccountId>| owners.contains(&candidate.owner) || owners.contains(&candidate.account);
    candidate.trust >= Trust::Known || request.confided_to.as_ref().is_none_or(is_theirs)
}

fn runs(candidate: &Candidate, request: &Request) -> bool {
    candidate.runs.contains(&(request.backend, request.language))
}

/// Smaller is better: what the policy looks at, then load, then trust, then a draw from the seed.
fn rank(candidate: &Candidate, request: &Request, policy: Policy, seed: u64) -> (u64, u64, u64, u64) {
    let load = u64::from(candidate.running) * 1_000_000 / u64::from(candidate.slots.max(1));
    let distrust = match candidate.trust {
        Trust::Trusted => 0,
        Trust::Known => 1,
        Trust::New => 2,
        Trust::Suspended => 3,
    };
    let draw = draw(candidate.account, seed);
    match policy {
        Policy::Random => (draw, 0, 0, 0),
        Policy::LeastLoaded => (load, distrust, draw, 0),
        Policy::WarmFirst => (u64::from(!candidate.warm), load, distrust, draw),
        Policy::Cheapest => (work_price(candidate, request.memory_bytes), load, distrust, draw),
    }
}

/// CPU microseconds in which the machine that prices are compared by does a unit of the reference job.
pub const REFERENCE_CPU_US_PER_UNIT: u32 = 1_000;

/// What the work of one second of the reference machine's core, with the request's memory, costs there: the common
/// measure of price vectors. A slow machine needs more seconds for it; one that was never measured is taken at its
/// word.
fn work_price(candidate: &Candidate, memory_bytes: u64) -> u64 {
    let cpu_us_per_unit = candidate.cpu_us_per_unit.unwrap_or(REFERENCE_CPU_US_PER_UNIT);
    let cpu_us = u64::from(cpu_us_per_unit) * (1_000_000 / u64::from(REFERENCE_CPU_US_PER_UNIT));
    let used = Counters {
        cpu_us,
        memory_byte_ms: memory_bytes.saturating_mul(cpu_us / 1_000),
        egress_bytes: 0,
    };
    candidate.prices.price(&used).unwrap_or(u64::MAX)
}

/// The provider's lot in this draw, whatever its place in the view.
fn draw(account: AccountId, seed: u64) -> u64 {
    let parts = account.0.chunks(8).map(|chunk| {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(bytes)
    });
    parts.fold(mix(seed), |drawn, part| mix(drawn ^ part))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a seed's bits spread over 64.
fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
