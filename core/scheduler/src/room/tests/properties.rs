//! What holds whatever waits: no slot idles that somebody waiting could use, nobody gets less than its share, nothing
//! leaks.

use std::{cmp::Reverse, collections::BinaryHeap};

use proptest::prelude::*;

use super::*;

/// One thing that happens to a room.
#[derive(Clone, Debug)]
enum Step {
    Arrive {
        developer: usize,
        function: usize,
        able: u8,
        patient: bool,
        admit: bool,
    },
    Leave(usize),
    End(usize),
    Open {
        provider: usize,
        presence: u8,
        slots: u32,
    },
    Reconsider {
        provider: usize,
        able: u8,
    },
    Lower {
        provider: usize,
        most: u32,
    },
    Swap {
        running: usize,
        to: usize,
    },
    Sweep,
}

const PROVIDERS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0usize..4, 0usize..5, 0u8..16, any::<bool>(), any::<bool>()).prop_map(
            |(developer, function, able, patient, admit)| Step::Arrive { developer, function, able, patient, admit }),
        2 => any::<usize>().prop_map(Step::Leave),
        4 => any::<usize>().prop_map(Step::End),
        1 => (0..PROVIDERS, 0u8..4, 0u32..5)
            .prop_map(|(provider, presence, slots)| Step::Open { provider, presence, slots }),
        1 => (0..PROVIDERS, 0u8..16).prop_map(|(provider, able)| Step::Reconsider { provider, able }),
        1 => (0..PROVIDERS, 0u32..3).prop_map(|(provider, most)| Step::Lower { provider, most }),
        1 => (any::<usize>(), 0..PROVIDERS).prop_map(|(running, to)| Step::Swap { running, to }),
        1 => Just(Step::Sweep),
    ]
}

fn set(bits: u8) -> ProviderSet {
    (0..PROVIDERS).filter(|provider| bits >> provider & 1 == 1).collect()
}

/// A room beside what its callers know of it.
struct World {
    room: Tested,
    now: u64,
    waiting: Vec<(usize, Ticket)>,
    running: Vec<(usize, Claim)>,
    words: usize,
}

impl World {
    fn new() -> Self {
        let mut room = room(&[2; PROVIDERS]);
        (0..PROVIDERS).for_each(|provider| room.set_memory(provider, 100));
        Self {
            room,
            now: 0,
            waiting: Vec::new(),
            running: Vec::new(),
            words: 0,
        }
    }

    fn happens(&mut self, step: Step) {
        self.now += 70_000;
        let pick = |from: usize, of: usize| if of == 0 { None } else { Some(from % of) };
        match step {
            Step::Arrive {
                developer,
                function: number,
                able,
                patient,
                admit,
            } => {
                let function = (number > 0).then(|| (function(10 * developer + number), 1 + number as u32));
                let claim = Claim {
                    function,
                    memory_bytes: [0, 10, 40, 90][number % 4],
                    ..claim(developer, 1 + developer as u32)
                };
                self.arrives(claim, set(able), patient, admit);
            }
            Step::Leave(which) => {
                if let Some(index) = pick(which, self.waiting.len()) {
                    let (word, ticket) = self.waiting.swap_remove(index);
                    assert_eq!(self.room.leave(&ticket), Some(word));
                }
            }
            Step::End(which) => {
                if let Some(index) = pick(which, self.running.len()) {
                    let (provider, claim) = self.running.swap_remove(index);
                    self.room.release(provider, &claim, self.now);
                }
            }
            Step::Open {
                provider,
                presence,
                slots,
            } => {
                let all = [Presence::Open, Presence::Open, Presence::Returning, Presence::Closed];
                self.room.open(provider, all[usize::from(presence)], slots);
            }
            Step::Reconsider { provider, able } => {
                self.room.reconsider(provider, |label| {
                    label.contains(provider) && set(able).contains(provider)
                });
            }
            Step::Lower { provider, most } => self.room.lower(provider, most),
            Step::Swap { running, to } => {
                if let Some(index) = pick(running, self.running.len()) {
                    let (from, claim) = self.running[index];
                    if from != to && self.room.swap(from, to, &claim, self.now) {
                        self.running[index].0 = to;
                    }
                }
            }
            Step::Sweep => {
                for word in self.room.sweep(self.now, 300_000) {
                    self.waiting.retain(|(waiting, _)| *waiting != word);
                }
            }
        }
        self.hand_out();
    }

    fn arrives(&mut self, claim: Claim, able: ProviderSet, patient: bool, admit: bool) {
        if admit {
            for provider in able.iter() {
                if self.room.admit(provider, &claim, self.now) == Admission::Taken {
                    return self.running.push((provider, claim));
                }
            }
        }
        let word = self.words;
        self.words += 1;
        let arrival = Arrival {
            claim,
            label: able,
            word,
            patient,
            again: None,
        };
        if let Ok(ticket) = self.room.wait(arrival, ProviderSet::clone, self.now) {
            self.waiting.push((word, ticket));
        }
    }

    fn hand_out(&mut self) {
        while let Some(grant) = self.room.next(self.now) {
            let before = self.waiting.len();
            self.waiting.retain(|(word, _)| *word != grant.word);
            assert_eq!(self.waiting.len() + 1, before, "given once, and to one that waits");
            self.running.push((grant.provider, grant.claim));
        }
    }

    /// Written out once more, apart from the code.
    fn check(&self) {
        let room = &self.room;
        for (provider, berth) in room.berths.iter().enumerate() {
            let running = self.running.iter().filter(|(at, _)| *at == provider).count();
            assert_eq!(berth.taken as usize, running);
            let is_open = berth.presence == Presence::Open;
            let given = berth.slots.min(berth.ceiling) as usize;
            let here = self.running.iter().filter(|(at, _)| *at == provider);
            let held: u64 = here.map(|(_, claim)| claim.memory_bytes).sum();
            assert_eq!(berth.memory.taken, held);
            assert!(held <= 100, "more memory is given than there is");
            for line in room.queues.values().flat_map(|queue| &queue.lines) {
                let at_limit = line.claim.function.is_some_and(|(function, limit)| {
                    let inside = self
                        .running
                        .iter()
                        .filter(|(_, claim)| claim.function.is_some_and(|(of, _)| of == function));
                    inside.count() >= limit as usize
                });
                let holds = |(at, claim): &&(usize, Claim)| *at == provider && claim.developer == line.claim.developer;
                let own = self.running.iter().filter(holds).count();
                let is_free = is_open && given > running + kept_back(given, own);
                let kept_bytes = if given >= 4 && own > 0 { 100 / 8 } else { 0 };
                let has_memory = held + line.claim.memory_bytes + kept_bytes <= 100 && room.starving == 0;
                assert!(
                    !is_free || !has_memory || at_limit || !line.able.contains(provider),
                    "a slot of {provider} idles"
                );
            }
        }
        assert_eq!(room.waiting(), self.waiting.len());
    }
}

/// As the reserve is described, for numbers of slots up to 8: one slot for those that hold none.
fn kept_back(given: usize, held: usize) -> usize {
    assert!(given <= 8, "the reserve of this test's providers is one slot");
    usize::from(given >= 4 && held > 0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_slot_idles_that_somebody_waiting_could_use_and_nothing_leaks(
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut world = World::new();
        for step in steps {
            world.happens(step);
            world.check();
        }
        for (word, ticket) in std::mem::take(&mut world.waiting) {
            prop_assert_eq!(world.room.leave(&ticket), Some(word));
        }
        for (provider, claim) in std::mem::take(&mut world.running) {
            world.room.release(provider, &claim, world.now);
        }
        prop_assert!(world.room.next(world.now).is_none());
        world.check();
        let Room { queues, functions, impatient, berths, .. } = &world.room;
        prop_assert!(queues.is_empty() && *impatient == 0 && world.room.starving == 0);
        prop_assert!(functions.values().all(|function| function.inside + function.impatient == 0));
        prop_assert!(berths.iter().all(|berth| berth.shares.is_clear()));
    }
}

/// Providers with their slots; developers with weight, the longest that a job of theirs takes, and what each of their
/// functions can run on.
type Market = (Vec<u32>, Vec<(u32, u64, Vec<u8>)>);

/// Small providers without a reserve and many developers, or large ones and few: where a developer's share is less than
/// one slot, what it gets of the reserve is more than its share.
fn market() -> impl Strategy<Value = Market> {
    let developer = || (1u32..5, 100_000u64..2_000_000, prop::collection::vec(1u8..8, 1..3));
    let small = (
        prop::collection::vec(1u32..4, 3),
        prop::collection::vec(developer(), 2..6),
    );
    let large = (
        prop::collection::vec(24u32..48, 3),
        prop::collection::vec(developer(), 2..4),
    );
    prop_oneof![small, large]
}

/// Microseconds for which each developer has held slots of each provider, all of them with calls waiting all the time.
fn held((slots, developers): &Market, seed: u64, warm_up: u64, until: u64) -> Vec<[u64; 3]> {
    let mut room = room(slots);
    let mut random = seed;
    let mut draw = move |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let wait = |room: &mut Tested, number: usize, able: u8| {
        let arrival = Arrival {
            claim: claim(number, developers[number].0),
            label: set(able),
            word: usize::from(able),
            patient: true,
            again: None,
        };
        room.wait(arrival, ProviderSet::clone, 0)
            .expect("patient calls are let in");
    };
    for (number, (_, _, functions)) in developers.iter().enumerate() {
        for able in functions {
            (0..60).for_each(|_| wait(&mut room, number, *able));
        }
    }
    let mut held = vec![[0; 3]; developers.len()];
    let mut ends = BinaryHeap::new();
    let mut now = 0;
    loop {
        while let Some(grant) = room.next(now) {
            let number = usize::from(grant.claim.developer.0[0]);
            let end = now + 1 + draw(developers[number].1);
            let counted = end.min(until).saturating_sub(now.max(warm_up));
            held[number][grant.provider] += counted;
            ends.push(Reverse((end, number, grant.provider)));
            wait(&mut room, number, u8::try_from(grant.word).expect("a set"));
        }
        let Some(Reverse((end, number, provider))) = ends.pop() else {
            return held;
        };
        if end > until {
            return held;
        }
        now = end;
        room.release(provider, &claim(number, developers[number].0), now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn nobody_gets_less_than_its_share_of_what_it_can_use(market in market(), seed in any::<u64>()) {
        const UNTIL: u64 = 220_000_000;
        const WARM_UP: u64 = 20_000_000;
        let held = held(&market, seed, WARM_UP, UNTIL);
        let (slots, developers) = &market;
        let can_use = |number: usize, provider: usize| developers[number].2.iter().any(|able| set(*able).contains(provider));
        for provider in 0..3 {
            let using = (0..developers.len()).filter(|number| can_use(*number, provider));
            let weights: u32 = using.clone().map(|number| developers[number].0).sum();
            for number in using {
                let shared = slots[provider] - reserve::size(slots[provider]);
                let all = f64::from(shared) * (UNTIL - WARM_UP) as f64;
                let share = all * f64::from(developers[number].0) / f64::from(weights);
                let got = held[number][provider] as f64;
                // What jobs that cannot be cut short make uneven at both ends: two seconds of each slot.
                let uneven = 4e6 * f64::from(slots[provider]);
                prop_assert!(got >= share - uneven, "{number} at {provider}: {got} of {share}: {held:?}");
            }
        }
    }
}

/// What strangers do to one provider of so many slots: take one at once, wait for one, or end a job.
fn crowd() -> impl Strategy<Value = (u32, Vec<(usize, u8, usize)>)> {
    let step = (0usize..24, 0u8..4, any::<usize>());
    (4u32..160, prop::collection::vec(step, 0..400))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However many jobs a few developers hold, and however long these take, another starts at once.
    #[test]
    fn a_developer_without_a_job_starts_at_once_unless_more_developers_than_the_inner_reserve_hold_slots(
        (slots, steps) in crowd(),
    ) {
        let mut room = room(&[slots]);
        let mut running: Vec<Claim> = Vec::new();
        for (number, what, which) in steps {
            let mine = claim(number, 1 + number as u32 % 3);
            match what {
                // In masses: this is what fills a provider.
                0 | 1 => while room.admit(0, &mine, 0) == Admission::Taken {
                    running.push(mine);
                },
                2 => drop(waits(&mut room, mine, &[0], number)),
                _ if running.is_empty() => {}
                _ => {
                    let ended = running.swap_remove(which % running.len());
                    room.release(0, &ended, 0);
                }
            }
            while let Some(grant) = room.next(0) {
                running.push(grant.claim);
            }
            let mut holders: Vec<_> = running.iter().map(|claim| claim.developer).collect();
            holders.sort_unstable();
            holders.dedup();
            if holders.len() <= reserve::inner(slots) as usize {
                let stranger = claim(200, 1);
                prop_assert_eq!(room.admit(0, &stranger, 0), Admission::Taken, "{} of {}", running.len(), slots);
                room.release(0, &stranger, 0);
                while let Some(grant) = room.next(0) {
                    running.push(grant.claim);
                }
            }
        }
    }
}
