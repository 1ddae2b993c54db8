//! Memory is given out as a sum, and a large call is passed over only so often.

use super::*;
use crate::room::memory::PASSED_OVER_MAX;

const MIB: u64 = 1 << 20;

fn needs(developer: usize, mib: u64) -> Claim {
    Claim {
        memory_bytes: mib * MIB,
        ..claim(developer, 1)
    }
}

fn room_of(mib: &[u64]) -> Tested {
    let mut room = room(&vec![100; mib.len()]);
    for (provider, mib) in mib.iter().enumerate() {
        room.set_memory(provider, mib * MIB);
    }
    room
}

#[test]
fn five_of_900_mib_never_run_at_once_in_3_gib() {
    let mut room = room_of(&[3 << 10]);
    let large = needs(1, 916);
    let admitted: Vec<_> = (0..5).map(|_| room.admit(0, &large, 0)).collect();
    let taken = admitted.iter().filter(|one| **one == Admission::Taken).count();
    // A third would take what is kept for developers who hold nothing.
    assert_eq!((taken, admitted[2]), (2, Admission::Full));
    assert!(room.memory_taken(0) <= 3 << 30);
    for word in 3..5 {
        waits(&mut room, large, &[0], word);
    }
    assert!(room.next(0).is_none(), "a slot is of no use without memory");
    room.release(0, &large, 0);
    assert_eq!(
        room.next(0).map(|grant| grant.word),
        Some(3),
        "it waited like one without a slot"
    );
    assert!(room.next(0).is_none());
}

#[test]
fn what_is_too_large_for_one_waits_for_another() {
    let mut room = room_of(&[100, 1_000]);
    waits(&mut room, needs(1, 500), &[0, 1], 1);
    assert_eq!(room.next(0).map(|grant| grant.provider), Some(1));
    assert!(!room.swap(1, 0, &needs(1, 500), 0), "not where it does not fit");
}

#[test]
fn a_large_call_is_passed_over_only_so_often() {
    let mut room = room_of(&[1_000]);
    let (small, large) = (needs(1, 100), needs(2, 950));
    for _ in 0..5 {
        assert_eq!(room.admit(0, &small, 0), Admission::Taken);
    }
    waits(&mut room, large, &[0], 7);
    let mut passed = 0;
    while room.admit(0, &small, 0) == Admission::Taken {
        passed += 1;
        assert!(passed <= PASSED_OVER_MAX, "it starves");
        room.release(0, &small, 0);
        assert!(room.next(0).is_none());
    }
    assert_eq!(passed, PASSED_OVER_MAX);
    // Those that wait meanwhile do not go past it either.
    waits(&mut room, small, &[0], 8);
    for left in (0..5).rev() {
        assert!(room.next(0).is_none(), "{left} of the small ones still run");
        room.release(0, &small, 0);
    }
    assert_eq!(room.next(0).map(|grant| grant.word), Some(7));
    assert!(room.next(0).is_none());
    room.release(0, &large, 0);
    assert_eq!(room.next(0).map(|grant| grant.word), Some(8));
}

#[test]
fn a_large_call_that_leaves_keeps_nothing_from_the_others() {
    let mut room = room_of(&[1_000]);
    let (small, large) = (needs(1, 100), needs(2, 950));
    assert_eq!(room.admit(0, &small, 0), Admission::Taken);
    let ticket = waits(&mut room, large, &[0], 7);
    while room.admit(0, &small, 0) == Admission::Taken {
        room.release(0, &small, 0);
    }
    waits(&mut room, small, &[0], 8);
    assert!(room.next(0).is_none());
    assert_eq!(room.leave(&ticket), Some(7));
    assert_eq!(room.next(0).map(|grant| grant.word), Some(8));
}

#[test]
fn memory_is_kept_at_one_provider_alone() {
    let mut room = room_of(&[1_000, 1_000]);
    let (small, large) = (needs(1, 100), needs(2, 950));
    for provider in 0..2 {
        assert_eq!(room.admit(provider, &small, 0), Admission::Taken);
    }
    waits(&mut room, large, &[0, 1], 7);
    while room.admit(0, &small, 0) == Admission::Taken {
        room.release(0, &small, 0);
    }
    assert_eq!(room.admit(1, &small, 0), Admission::Taken, "the other goes on");
}

#[test]
fn where_a_provider_gives_fewer_slots_its_reserve_goes_to_those_who_wait() {
    let mut room = room_of(&[100]);
    room.open(0, Presence::Open, 4);
    assert_eq!(room.admit(0, &needs(1, 10), 0), Admission::Taken);
    waits(&mut room, needs(1, 85), &[0], 1);
    assert!(room.next(0).is_none(), "a part is kept for others");
    room.lower(0, 3);
    assert_eq!(room.next(0).map(|grant| grant.word), Some(1));
}
