//! Who gets a slot, and who waits for how long: case by case.

mod memory;
mod properties;

use super::*;

const BOUNDS: Bounds = Bounds {
    function_per_slot: 10,
    developer: 50,
    all: 80,
};

fn developer(number: usize) -> AccountId {
    AccountId([u8::try_from(number).expect("few"); 20])
}

fn function(number: usize) -> FunctionId {
    FunctionId([u8::try_from(number).expect("few"); 12])
}

fn claim(developer_number: usize, weight: u32) -> Claim {
    Claim {
        developer: developer(developer_number),
        weight,
        function: None,
        memory_bytes: 0,
    }
}

/// A label is what the line can run on.
type Tested = Room<ProviderSet, usize>;

fn room(slots: &[u32]) -> Tested {
    let mut room = Room::new(BOUNDS);
    for slots in slots {
        let provider = room.add_provider();
        room.open(provider, Presence::Open, *slots);
    }
    room
}

fn arrival(claim: Claim, able: &[usize], word: usize, patient: bool) -> Arrival<ProviderSet, usize> {
    Arrival {
        claim,
        label: able.iter().copied().collect(),
        word,
        patient,
        again: None,
    }
}

fn waits(room: &mut Tested, claim: Claim, able: &[usize], word: usize) -> Ticket {
    let arrival = arrival(claim, able, word, true);
    room.wait(arrival, ProviderSet::clone, 0)
        .expect("patient calls are let in")
}

/// In which order the words come out while one slot is taken over and over, at a clock that stands still.
fn order(room: &mut Tested) -> Vec<usize> {
    let mut order = Vec::new();
    while let Some(grant) = room.next(0) {
        order.push(grant.word);
        room.release(grant.provider, &grant.claim, 0);
    }
    order
}

#[test]
fn ten_thousand_of_one_developer_do_not_hold_up_the_one_of_another() {
    let mut room = room(&[1]);
    assert_eq!(room.admit(0, &claim(0, 1), 0), Admission::Taken);
    for _ in 0..10_000 {
        waits(&mut room, claim(1, 1), &[0], 1);
    }
    waits(&mut room, claim(2, 1), &[0], 2);
    room.release(0, &claim(0, 1), 0);
    let order = order(&mut room);
    let place = order.iter().position(|word| *word == 2);
    assert!(place.is_some_and(|place| place <= 1), "let in at {place:?}");
    assert_eq!((order.len(), room.waiting()), (10_001, 0));
}

#[test]
fn turns_follow_the_weights_where_jobs_take_no_time() {
    let mut room = room(&[1]);
    assert_eq!(room.admit(0, &claim(0, 1), 0), Admission::Taken);
    for (number, weight) in [(1, 1), (2, 3)] {
        for _ in 0..100 {
            waits(&mut room, claim(number, weight), &[0], number);
        }
    }
    room.release(0, &claim(0, 1), 0);
    let order = order(&mut room);
    let of_two = order[..80].iter().filter(|word| **word == 2).count();
    assert!((59..=61).contains(&of_two), "{order:?}");
}

#[test]
fn slots_that_come_free_in_one_moment_are_shared_out() {
    let mut room = room(&[0]);
    for (number, weight) in [(1, 1), (2, 1), (3, 2)] {
        for _ in 0..40 {
            waits(&mut room, claim(number, weight), &[0], number);
        }
    }
    room.open(0, Presence::Open, 40);
    let mut got = [0; 4];
    while let Some(grant) = room.next(0) {
        got[grant.word] += 1;
    }
    assert_eq!(got.iter().sum::<u32>(), 35, "5 stay in reserve");
    assert!([8, 9].contains(&got[1]) && [8, 9].contains(&got[2]), "{got:?}");
    assert!([17, 18].contains(&got[3]), "{got:?}");
}

#[test]
fn long_jobs_one_at_a_time_and_short_ones_in_masses_get_half_a_slot_each() {
    const SECOND: u64 = 1_000_000;
    let mut room = room(&[1]);
    let (long, short) = (claim(1, 1), claim(2, 1));
    for _ in 0..5 {
        waits(&mut room, short, &[0], 2);
    }
    let (mut now, mut of_long) = (0, 0);
    let mut running = (long, 10 * SECOND);
    assert_eq!(room.admit(0, &long, now), Admission::Taken);
    while now < 2_000 * SECOND {
        now += running.1;
        of_long += if running.0 == long { running.1 } else { 0 };
        room.release(0, &running.0, now);
        let next = room.next(now).expect("the short ones wait");
        // The next one comes a moment after the one before has ended: a long one was away when its slot was given on.
        waits(&mut room, running.0, &[0], if running.0 == long { 1 } else { 2 });
        running = (next.claim, if next.word == 1 { 10 * SECOND } else { SECOND / 10 });
    }
    let share = of_long as f64 / now as f64;
    assert!((0.45..=0.51).contains(&share), "{share}");
}

#[test]
fn a_jam_at_one_provider_leaves_the_others_alone() {
    let mut room = room(&[2, 2]);
    for _ in 0..384 {
        waits(&mut room, claim(1, 1), &[0], 1);
    }
    while room.next(0).is_some() {}
    assert_eq!((room.taken(0), room.taken(1), room.waiting()), (2, 0, 382));
    let other = Claim {
        function: Some((function(7), 8)),
        ..claim(1, 1)
    };
    assert_eq!(room.admit(0, &other, 0), Admission::Full);
    assert_eq!(room.admit(1, &other, 0), Admission::Taken);
    assert!(room.next(0).is_none());
}

#[test]
fn a_function_at_its_limit_waits_and_goes_on_where_a_slot_is_free() {
    let mut room = room(&[4, 4]);
    let limited = Claim {
        function: Some((function(1), 2)),
        ..claim(1, 1)
    };
    for _ in 0..2 {
        assert_eq!(room.admit(0, &limited, 0), Admission::Taken);
    }
    assert_eq!(room.admit(1, &limited, 0), Admission::AtLimit);
    waits(&mut room, limited, &[1], 5);
    assert!(room.next(0).is_none());
    room.release(0, &limited, 0);
    let grant = room.next(0).expect("the limit leaves room for one");
    assert_eq!((grant.provider, grant.word), (1, 5));
    // A limit that is raised lets in at once.
    waits(&mut room, limited, &[1], 6);
    assert!(room.next(0).is_none());
    let raised = Claim {
        function: Some((function(1), 9)),
        ..limited
    };
    assert_eq!(room.admit(0, &raised, 0), Admission::Taken);
    assert_eq!(room.next(0).map(|grant| grant.word), Some(6));
}

#[test]
fn a_call_that_waits_again_keeps_its_place() {
    let mut room = room(&[1]);
    let mine = claim(1, 1);
    let first = waits(&mut room, mine, &[0], 1);
    waits(&mut room, mine, &[0], 2);
    assert_eq!(room.next(0).map(|grant| grant.word), Some(1));
    let again = Arrival {
        again: Some(first.arrival),
        ..arrival(mine, &[0], 1, true)
    };
    room.wait(again, ProviderSet::clone, 0).expect("it is let in");
    room.release(0, &mine, 0);
    assert_eq!(order(&mut room), [1, 2]);
}

#[test]
fn callers_hear_that_nobody_is_there_and_patient_calls_stay() {
    let mut room = room(&[1, 1]);
    room.open(0, Presence::Closed, 1);
    waits(&mut room, claim(1, 1), &[0], 1);
    let caller = |word| arrival(claim(1, 1), &[0], word, false);
    room.wait(caller(2), ProviderSet::clone, 100).expect("let in");
    assert!(room.sweep(500, 600).is_empty());
    // It is about to come back: nobody is sent away.
    room.open(0, Presence::Returning, 1);
    assert!(room.sweep(700, 600).is_empty());
    room.open(0, Presence::Closed, 1);
    assert!(room.sweep(800, 600).is_empty());
    assert_eq!(room.sweep(1_400, 600), [2]);
    assert_eq!(room.waiting(), 1);
    room.open(0, Presence::Open, 1);
    assert_eq!(room.next(1_500).map(|grant| grant.word), Some(1));
}

#[test]
fn a_provider_that_others_use_is_asked_less_and_then_more_again() {
    let mut room = room(&[16]);
    let mine = claim(1, 1);
    room.set_owner(0, mine.developer);
    for _ in 0..40 {
        waits(&mut room, mine, &[0], 1);
    }
    while room.next(0).is_some() {}
    room.lower(0, 15);
    room.release(0, &mine, 0);
    assert!(room.next(0).is_none(), "it said that it has no more");
    room.release(0, &mine, 0);
    assert!(room.next(0).is_some(), "what it has it is given");
    assert_eq!(room.taken(0), 15);
    assert!(room.sweep(1, 1).is_empty());
    while room.next(0).is_some() {}
    assert_eq!(room.taken(0), 16);
}

#[test]
fn the_room_is_bounded_by_function_by_developer_and_in_all() {
    let mut room = room(&[0]);
    let wait = |room: &mut Tested, number, function_number| {
        let claim = Claim {
            function: Some((function(function_number), 2)),
            ..claim(number, 1)
        };
        let arrival = arrival(claim, &[0], 0, false);
        room.wait(arrival, ProviderSet::clone, 0)
    };
    for _ in 0..20 {
        wait(&mut room, 1, 1).expect("room");
    }
    assert_eq!(wait(&mut room, 1, 1), Err(Crowded::Function));
    for number in 0..30 {
        wait(&mut room, 1, 2 + number).expect("room");
    }
    assert_eq!(wait(&mut room, 1, 40), Err(Crowded::Developer));
    let mut tickets: Vec<_> = (0..30)
        .map(|number| wait(&mut room, 2, 50 + number).expect("room"))
        .collect();
    assert_eq!(wait(&mut room, 3, 90), Err(Crowded::All));
    let gone = tickets.pop().expect("some");
    assert!(room.leave(&gone).is_some());
    assert!(room.leave(&gone).is_none());
    wait(&mut room, 3, 90).expect("room again");
}

#[test]
fn a_better_slot_is_swapped_for_and_the_other_goes_to_who_waits() {
    let mut room = room(&[1, 1]);
    let (mine, other) = (claim(1, 1), claim(2, 1));
    assert_eq!(room.admit(0, &mine, 0), Admission::Taken);
    waits(&mut room, other, &[0], 2);
    assert!(room.swap(0, 1, &mine, 0));
    assert_eq!(room.next(0).map(|grant| grant.provider), Some(0));
    assert!(!room.swap(1, 0, &mine, 0));
    assert_eq!((room.taken(0), room.taken(1)), (1, 1));
}

#[test]
fn one_developers_long_jobs_leave_the_reserve_and_each_newcomer_starts_at_once() {
    let mut room = room(&[128]);
    let fill = |room: &mut Tested, number| {
        let mut got = 0;
        while room.admit(0, &claim(number, 1), 0) == Admission::Taken {
            got += 1;
        }
        got
    };
    assert_eq!(fill(&mut room, 0), 112, "all but an eighth");
    let got: Vec<u32> = (1..9).map(|number| fill(&mut room, number)).collect();
    assert_eq!(got, [4, 2, 1, 1, 1, 1, 1, 1]);
    assert_eq!(room.taken(0), 124);
}

#[test]
fn the_slots_that_long_jobs_leave_go_to_those_that_had_the_least() {
    let mut room = room(&[16]);
    let (sleeper, other) = (claim(1, 1), claim(2, 1));
    for _ in 0..14 {
        assert_eq!(room.admit(0, &sleeper, 0), Admission::Taken);
    }
    assert_eq!(room.admit(0, &sleeper, 0), Admission::Full);
    for _ in 0..20 {
        waits(&mut room, sleeper, &[0], 1);
        waits(&mut room, other, &[0], 2);
    }
    let mut got = Vec::new();
    for _ in 0..8 {
        while let Some(grant) = room.next(0) {
            got.push(grant.word);
        }
        room.release(0, &sleeper, 0);
    }
    assert!(got.iter().all(|word| *word == 2), "{got:?}");
    assert!(got.len() >= 7, "{got:?}");
}

#[test]
fn nothing_of_a_computer_is_kept_back_from_its_owner() {
    let mut room = room(&[16]);
    room.set_owner(0, developer(1));
    for _ in 0..16 {
        assert_eq!(room.admit(0, &claim(1, 1), 0), Admission::Taken);
    }
    assert_eq!(room.admit(0, &claim(1, 1), 0), Admission::Full);
}
