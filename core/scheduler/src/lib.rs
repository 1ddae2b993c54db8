//! Decides which provider gets a job, with reasons for each one passed over.
//!
//! Pure and replayable: the same view, request, policy and seed give the same choice.

use std::{collections::BTreeSet, sync::Arc};

use piecework_model::{AccountId, Language, Prices};
use serde::{Deserialize, Serialize};

/// What the controller knows of one provider at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub account: AccountId,
    /// Milliseconds since it was last heard of.
    pub silent_ms: u64,
    pub draining: bool,
    pub slots: u32,
    pub running: u32,
    pub memory_bytes: u64,
    /// `(backend, language)` pairs that its probe saw working.
    pub runs: Arc<BTreeSet<(String, Language)>>,
    pub prices: Prices,
    pub region: Arc<str>,
    pub labels: Arc<BTreeSet<String>>,
    /// Whether an idle instance of the wanted version waits there.
    pub warm: bool,
    /// Whether it lets functions reach what this one's allow list names.
    pub egress: bool,
}

/// What a job needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub backend: String,
    pub language: Language,
    pub memory_bytes: u64,
    /// Whether the function has an allow list.
    pub egress: bool,
    pub price_caps: Prices,
    pub region: Option<String>,
    pub labels: BTreeSet<String>,
    /// Only these, where the developer pinned the function to machines.
    pub pinned: Option<BTreeSet<AccountId>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    Random,
    LeastLoaded,
    #[default]
    WarmFirst,
    Cheapest,
}

/// Why a provider did not get the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    NotPinned,
    Silent,
    Draining,
    NoBackend,
    /// It lets no function reach what this one's allow list names.
    NoEgress,
    TooLittleMemory,
    TooDear,
    WrongRegion,
    MissingLabel,
    NoFreeSlot,
    /// It was asked and did not take this job.
    Refused,
    /// It fits; the policy preferred another.
    Outranked,
}

/// A provider and why it was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    pub provider: AccountId,
    pub reason: Reason,
}

/// The provider that gets the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub index: usize,
    pub passed_over: Vec<PassedOver>,
}

/// A provider not heard of for this long gets no jobs: three missed heartbeats of five seconds.
pub const SILENT_MS_MAX: u64 = 15_000;

/// Chooses among `view`. `Err` holds why each was passed over; empty where there is none at all.
pub fn plan(view: &[Candidate], request: &Request, policy: Policy, seed: u64) -> Result<Choice, Vec<PassedOver>> {
    let mut passed_over = Vec::new();
    let mut fitting = Vec::new();
    for (index, candidate) in view.iter().enumerate() {
        match unfit(candidate, request) {
            Some(reason) => passed_over.push(PassedOver {
                provider: candidate.account,
                reason,
            }),
            None => fitting.push(index),
        }
    }
    let Some(best) = fitting
        .iter()
        .copied()
        .min_by_key(|&index| rank(&view[index], index, request, policy, seed))
    else {
        return Err(passed_over);
    };
    let outranked = fitting.into_iter().filter(|&index| index != best);
    passed_over.extend(outranked.map(|index| PassedOver {
        provider: view[index].account,
        reason: Reason::Outranked,
    }));
    Ok(Choice {
        index: best,
        passed_over,
    })
}

fn unfit(candidate: &Candidate, request: &Request) -> Option<Reason> {
    let runs = || {
        candidate
            .runs
            .iter()
            .any(|(backend, language)| *backend == request.backend && *language == request.language)
    };
    if request
        .pinned
        .as_ref()
        .is_some_and(|pinned| !pinned.contains(&candidate.account))
    {
        Some(Reason::NotPinned)
    } else if candidate.silent_ms > SILENT_MS_MAX {
        Some(Reason::Silent)
    } else if candidate.draining {
        Some(Reason::Draining)
    } else if !runs() {
        Some(Reason::NoBackend)
    } else if request.egress && !candidate.egress {
        Some(Reason::NoEgress)
    } else if candidate.memory_bytes < request.memory_bytes {
        Some(Reason::TooLittleMemory)
    } else if !candidate.prices.within(&request.price_caps) {
        Some(Reason::TooDear)
    } else if request
        .region
        .as_ref()
        .is_some_and(|region| **region != *candidate.region)
    {
        Some(Reason::WrongRegion)
    } else if !request.labels.is_subset(&candidate.labels) {
        Some(Reason::MissingLabel)
    } else if candidate.running >= candidate.slots {
        Some(Reason::NoFreeSlot)
    } else {
        None
    }
}

/// Smaller is better; a draw from the seed breaks ties.
fn rank(candidate: &Candidate, index: usize, request: &Request, policy: Policy, seed: u64) -> (u64, u64, u64) {
    let load = u64::from(candidate.running) * 1_000_000 / u64::from(candidate.slots.max(1));
    let draw = mix(seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    match policy {
        Policy::Random => (draw, 0, 0),
        Policy::LeastLoaded => (load, draw, 0),
        Policy::WarmFirst => (u64::from(!candidate.warm), load, draw),
        Policy::Cheapest => (second_price(&candidate.prices, request.memory_bytes), load, draw),
    }
}

/// What one second of one core with the request's memory costs: the common measure of price vectors.
fn second_price(prices: &Prices, memory_bytes: u64) -> u64 {
    let used = piecework_model::Counters {
        cpu_us: 1_000_000,
        memory_byte_ms: memory_bytes.saturating_mul(1_000),
        egress_bytes: 0,
    };
    prices.price(&used).unwrap_or(u64::MAX)
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a seed's bits spread over 64.
fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(byte: u8) -> Candidate {
        Candidate {
            account: AccountId([byte; 20]),
            silent_ms: 0,
            draining: false,
            slots: 4,
            running: 0,
            memory_bytes: 1 << 30,
            runs: Arc::new([("wasm".to_owned(), Language::Python)].into()),
            prices: Prices {
                start_ucr: 2,
                cpu_ucr_per_s: 100,
                ..Prices::default()
            },
            region: "here".into(),
            labels: Arc::default(),
            warm: false,
            egress: false,
        }
    }

    fn request() -> Request {
        Request {
            backend: "wasm".into(),
            language: Language::Python,
            memory_bytes: 128 << 20,
            egress: false,
            price_caps: Prices {
                start_ucr: 10,
                cpu_ucr_per_s: 500,
                memory_ucr_per_gib_s: 500,
                egress_ucr_per_mib: 10,
            },
            region: None,
            labels: BTreeSet::new(),
            pinned: None,
        }
    }

    fn reason_for(change: impl Fn(&mut Candidate), ask: impl Fn(&mut Request)) -> Reason {
        let (mut candidate, mut request) = (candidate(1), request());
        change(&mut candidate);
        ask(&mut request);
        plan(&[candidate], &request, Policy::default(), 0).expect_err("nobody fits")[0].reason
    }

    #[test]
    fn every_misfit_is_named() {
        assert_eq!(reason_for(|c| c.silent_ms = SILENT_MS_MAX + 1, |_| ()), Reason::Silent);
        assert_eq!(reason_for(|c| c.draining = true, |_| ()), Reason::Draining);
        assert_eq!(reason_for(|_| (), |r| r.backend = "gvisor".into()), Reason::NoBackend);
        assert_eq!(reason_for(|_| (), |r| r.egress = true), Reason::NoEgress);
        assert_eq!(
            reason_for(|_| (), |r| r.language = Language::JavaScript),
            Reason::NoBackend
        );
        assert_eq!(
            reason_for(|_| (), |r| r.memory_bytes = 2 << 30),
            Reason::TooLittleMemory
        );
        assert_eq!(reason_for(|_| (), |r| r.price_caps.cpu_ucr_per_s = 99), Reason::TooDear);
        assert_eq!(
            reason_for(|_| (), |r| r.region = Some("there".into())),
            Reason::WrongRegion
        );
        assert_eq!(
            reason_for(|_| (), |r| r.labels = ["gpu".to_owned()].into()),
            Reason::MissingLabel
        );
        assert_eq!(reason_for(|c| c.running = 4, |_| ()), Reason::NoFreeSlot);
        assert_eq!(
            reason_for(|_| (), |r| r.pinned = Some([AccountId([9; 20])].into())),
            Reason::NotPinned
        );
    }

    #[test]
    fn no_provider_at_all_is_an_empty_list() {
        assert_eq!(plan(&[], &request(), Policy::Random, 1), Err(Vec::new()));
    }

    #[test]
    fn warm_first_prefers_warm_then_idle() {
        let mut view = [candidate(1), candidate(2), candidate(3)];
        view[0].running = 3;
        view[1].running = 1;
        assert_eq!(plan(&view, &request(), Policy::WarmFirst, 7).expect("fits").index, 2);
        view[0].warm = true;
        let choice = plan(&view, &request(), Policy::WarmFirst, 7).expect("fits");
        assert_eq!(choice.index, 0);
        assert!(choice.passed_over.iter().all(|other| other.reason == Reason::Outranked));
    }

    #[test]
    fn cheapest_takes_the_lowest_price() {
        let mut view = [candidate(1), candidate(2)];
        view[1].prices.cpu_ucr_per_s = 50;
        assert_eq!(plan(&view, &request(), Policy::Cheapest, 3).expect("fits").index, 1);
    }

    #[test]
    fn the_same_seed_chooses_alike_and_seeds_spread() {
        let view: Vec<_> = (0..8).map(candidate).collect();
        let choose = |seed| plan(&view, &request(), Policy::Random, seed).expect("fits").index;
        assert_eq!(choose(42), choose(42));
        let chosen: BTreeSet<_> = (0..200).map(choose).collect();
        assert_eq!(chosen.len(), 8);
    }
}
