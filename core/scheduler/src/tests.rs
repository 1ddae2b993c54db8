//! Each filter, each policy, and what holds for every view.

use proptest::prelude::*;

use super::*;

fn candidate(byte: u8) -> Candidate {
    Candidate {
        account: AccountId([byte; 20]),
        owner: AccountId([byte; 20]),
        silent_ms: 0,
        draining: false,
        paused: false,
        slots: 4,
        running: 0,
        memory_bytes: 1 << 30,
        memory_taken: 0,
        runs: Arc::new([(BackendName::Wasm, Language::Python)].into()),
        prices: Prices {
            start_ucr: 2,
            cpu_ucr_per_s: 100,
            ..Prices::default()
        },
        region: "here".into(),
        labels: Arc::default(),
        trust: Trust::New,
        cpu_us_per_unit: None,
        warm: false,
        egress: false,
    }
}

fn request() -> Request {
    Request {
        backend: BackendName::Wasm,
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
        trust: Trust::New,
        confided_to: None,
        pinned: None,
    }
}

fn reason_for(change: impl Fn(&mut Candidate), ask: impl Fn(&mut Request)) -> Reason {
    let (mut candidate, mut request) = (candidate(1), request());
    change(&mut candidate);
    ask(&mut request);
    let reasons = plan(&[candidate], &request, Policy::default(), 0).expect_err("nobody fits");
    reasons.providers[0].reason
}

fn pinned(provider: u8, owner: u8) -> Option<Pinned> {
    Some(Pinned {
        providers: [AccountId([provider; 20])].into(),
        owners: [AccountId([owner; 20])].into(),
    })
}

#[test]
fn every_misfit_is_named() {
    assert_eq!(reason_for(|c| c.silent_ms = SILENT_MS_MAX + 1, |_| ()), Reason::Silent);
    assert_eq!(reason_for(|c| c.draining = true, |_| ()), Reason::Draining);
    assert_eq!(reason_for(|c| c.paused = true, |_| ()), Reason::Paused);
    assert_eq!(
        reason_for(|_| (), |r| r.backend = BackendName::Gvisor),
        Reason::NoBackend
    );
    assert_eq!(
        reason_for(|_| (), |r| r.language = Language::JavaScript),
        Reason::NoBackend
    );
    assert_eq!(reason_for(|_| (), |r| r.egress = true), Reason::NoEgress);
    assert_eq!(
        reason_for(|_| (), |r| r.memory_bytes = 2 << 30),
        Reason::TooLittleMemory
    );
    assert_eq!(reason_for(|_| (), |r| r.price_caps.cpu_ucr_per_s = 99), Reason::TooDear);
    assert_eq!(
        reason_for(|_| (), |r| r.region = Some("there".into())),
        Reason::WrongRegion
    );
    let gpu = |request: &mut Request| request.labels = ["gpu".to_owned()].into();
    assert_eq!(reason_for(|_| (), gpu), Reason::MissingLabel);
    assert_eq!(reason_for(|_| (), |r| r.trust = Trust::Known), Reason::TooLittleTrust);
    assert_eq!(reason_for(|c| c.running = 4, |_| ()), Reason::NoFreeSlot);
    assert_eq!(reason_for(|c| c.memory_taken = 900 << 20, |_| ()), Reason::NoFreeMemory);
    assert_eq!(reason_for(|_| (), |r| r.pinned = pinned(9, 8)), Reason::NotPinned);
}

#[test]
fn a_pin_lets_in_who_is_named_and_what_belongs_to_the_developer() {
    let chosen = |provider, owner| {
        let view = [
            candidate(1),
            Candidate {
                owner: AccountId([7; 20]),
                ..candidate(2)
            },
        ];
        let request = Request {
            pinned: pinned(provider, owner),
            ..request()
        };
        plan(&view, &request, Policy::Random, 5).ok().map(|choice| choice.index)
    };
    assert_eq!(chosen(1, 9), Some(0));
    assert_eq!(chosen(9, 7), Some(1), "its owner's");
    assert_eq!(chosen(9, 1), Some(0), "an account without an owner is its own");
    assert_eq!(chosen(9, 9), None);
}

#[test]
fn no_provider_at_all_is_an_empty_list() {
    assert_eq!(plan(&[], &request(), Policy::Random, 1), Err(Reasons::default()));
}

#[test]
fn warm_first_prefers_warm_then_idle_then_trusted() {
    let mut view = [candidate(1), candidate(2), candidate(3)];
    view[0].running = 3;
    view[1].running = 1;
    let choose = |view: &[Candidate]| plan(view, &request(), Policy::WarmFirst, 7).expect("fits");
    assert_eq!(choose(&view).index, 2);
    view[1].running = 0;
    view[1].trust = Trust::Known;
    assert_eq!(choose(&view).index, 1);
    view[0].warm = true;
    let choice = choose(&view);
    assert_eq!(choice.index, 0);
    assert!(!choice.passed_over.any(|reason| reason != Reason::Outranked));
}

#[test]
fn cheapest_is_by_the_work_and_not_by_the_second() {
    let mut view = [candidate(1), candidate(2)];
    view[1].prices.cpu_ucr_per_s = 50;
    let choose = |view: &[Candidate]| plan(view, &request(), Policy::Cheapest, 3).expect("fits").index;
    assert_eq!(choose(&view), 1);
    view[0].cpu_us_per_unit = Some(REFERENCE_CPU_US_PER_UNIT);
    view[1].cpu_us_per_unit = Some(REFERENCE_CPU_US_PER_UNIT * 3);
    assert_eq!(choose(&view), 0, "half the price a second, but three times as slow");
}

#[test]
fn the_same_seed_chooses_alike_and_seeds_spread() {
    let view: Vec<_> = (0..8).map(candidate).collect();
    let choose = |seed| plan(&view, &request(), Policy::Random, seed).expect("fits").index;
    assert_eq!(choose(42), choose(42));
    let mut counts = [0u32; 8];
    for seed in 0..8_000 {
        counts[choose(seed)] += 1;
    }
    assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
}

#[test]
fn a_thousand_providers_leave_a_short_record() {
    let view: Vec<Candidate> = (0..1_000u32)
        .map(|number| {
            let mut account = [0; 20];
            account[..4].copy_from_slice(&number.to_le_bytes());
            Candidate {
                account: AccountId(account),
                draining: number % 2 == 0,
                ..candidate(0)
            }
        })
        .collect();
    let passed_over = plan(&view, &request(), Policy::Random, 1).expect("fits").passed_over;
    assert_eq!(passed_over.count(), 999);
    assert_eq!(passed_over.providers.len(), NAMED_MAX);
    assert!(passed_over.any(|reason| reason == Reason::Draining));
    assert!(passed_over.any(|reason| reason == Reason::Outranked));
}

prop_compose! {
    fn any_candidate(byte: u8)(
        silent_ms in prop_oneof![Just(0u64), Just(SILENT_MS_MAX + 1)],
        (draining, paused) in (prop::bool::weighted(0.2), prop::bool::weighted(0.1)),
        running in 0u32..6,
        slots in 0u32..5,
        memory_bytes in prop_oneof![Just(64u64 << 20), Just(1u64 << 30)],
        cpu_ucr_per_s in 0u64..200,
        region in prop_oneof![Just("here"), Just("there")],
        gpu in any::<bool>(),
        (trust, speed) in (0u8..3, prop::option::of(1u32..5_000)),
        (warm, egress, python) in any::<(bool, bool, bool)>(),
        owner in 0u8..4,
    ) -> Candidate {
        let language = if python { Language::Python } else { Language::JavaScript };
        Candidate {
            owner: AccountId([owner; 20]),
            silent_ms,
            draining,
            paused,
            slots,
            running,
            memory_bytes,
            runs: Arc::new([(BackendName::Wasm, language)].into()),
            prices: Prices { cpu_ucr_per_s, ..Prices::default() },
            region: region.into(),
            labels: Arc::new(gpu.then(|| "gpu".to_owned()).into_iter().collect()),
            trust: [Trust::New, Trust::Known, Trust::Trusted][usize::from(trust)],
            cpu_us_per_unit: speed,
            warm,
            egress,
            ..candidate(byte)
        }
    }
}

fn any_view() -> impl Strategy<Value = Vec<Candidate>> {
    (0u8..40).prop_flat_map(|count| (0..count).map(any_candidate).collect::<Vec<_>>())
}

prop_compose! {
    fn any_request()(
        cpu_cap in 0u64..200,
        region in prop::option::of(Just("here".to_owned())),
        gpu in any::<bool>(),
        trust in 0u8..3,
        egress in any::<bool>(),
        pin in prop::option::of((0u8..40, 0u8..4)),
    ) -> Request {
        Request {
            price_caps: Prices { start_ucr: 10, cpu_ucr_per_s: cpu_cap, ..request().price_caps },
            region,
            labels: gpu.then(|| "gpu".to_owned()).into_iter().collect(),
            trust: [Trust::New, Trust::Known, Trust::Trusted][usize::from(trust)],
            egress,
            pinned: pin.and_then(|(provider, owner)| pinned(provider, owner)),
            ..request()
        }
    }
}

fn any_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(Policy::Random),
        Just(Policy::LeastLoaded),
        Just(Policy::WarmFirst),
        Just(Policy::Cheapest)
    ]
}

proptest! {
    /// Written out once more, apart from the code: what a chosen provider must be.
    #[test]
    fn the_chosen_one_always_fits(
        view in any_view(), request in any_request(), policy in any_policy(), seed in any::<u64>(),
    ) {
        let fits = |c: &Candidate| {
            c.silent_ms <= SILENT_MS_MAX
                && !c.draining
                && !c.paused
                && c.running < c.slots
                && c.memory_bytes - c.memory_taken >= request.memory_bytes + (16 << 20)
                && c.runs.contains(&(request.backend, request.language))
                && c.prices.cpu_ucr_per_s <= request.price_caps.cpu_ucr_per_s
                && c.prices.start_ucr <= request.price_caps.start_ucr
                && request.region.as_deref().is_none_or(|region| region == &*c.region)
                && request.labels.iter().all(|label| c.labels.contains(label))
                && c.trust >= request.trust
                && (c.egress || !request.egress)
                && request.pinned.as_ref().is_none_or(|pinned| {
                    pinned.providers.contains(&c.account)
                        || pinned.owners.contains(&c.owner)
                        || pinned.owners.contains(&c.account)
                })
        };
        match plan(&view, &request, policy, seed) {
            Ok(choice) => {
                prop_assert!(fits(&view[choice.index]));
                prop_assert_eq!(choice.passed_over.count(), view.len() - 1);
            }
            Err(reasons) => {
                prop_assert!(!view.iter().any(fits));
                prop_assert_eq!(reasons.count(), view.len());
            }
        }
    }

    #[test]
    fn the_order_of_the_view_changes_nothing(
        view in any_view(), request in any_request(), policy in any_policy(), seed in any::<u64>(), turn in 0usize..40,
    ) {
        let chosen = |view: &[Candidate]| {
            plan(view, &request, policy, seed).ok().map(|choice| view[choice.index].account)
        };
        let mut other: Vec<Candidate> = view.iter().rev().cloned().collect();
        if !other.is_empty() {
            let turn = turn % other.len();
            other.rotate_left(turn);
        }
        prop_assert_eq!(chosen(&view), chosen(&other));
    }
}
