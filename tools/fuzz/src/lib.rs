//! Hostile bytes for the tests of parsers: arbitrary ones, and valid ones that were flipped, cut, spliced or made to lie about
//! a length.
//!
//! A test gives [`attack`] some valid inputs and a check, which asserts what must hold for any bytes. It runs for the time
//! that `PIECEWORK_FUZZ_S` says, and each run takes other bytes. What fails is made as small as possible and shown in hex: put
//! it into a test of its own.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestError, TestRunner},
};

pub use peak_alloc::PeakAlloc;

/// Of one attack, in seconds; a fraction is allowed.
const BUDGET: &str = "PIECEWORK_FUZZ_S";
/// Some fifty attacks, two at a time: half a minute of each run of all tests.
const BUDGET_DEFAULT: Duration = Duration::from_secs(1);
/// On a machine that is busy with something else.
const CASES_MIN: u32 = 200;
/// Long enough for several frames and records; most faults need a few bytes.
const ARBITRARY_BYTES_MAX: usize = 2_048;
const CHANGES_MAX: usize = 6;
/// Ends of ranges, powers at which buffers and integers change, and all bits.
const LENGTHS: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    0xf_ffff,
    0x100_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX,
];

/// How long one attack takes.
pub fn budget() -> Duration {
    let seconds = std::env::var(BUDGET).ok().and_then(|text| text.parse().ok());
    seconds.map_or(BUDGET_DEFAULT, Duration::from_secs_f64)
}

/// Gives hostile bytes to `check` until the time is over. `check` asserts what holds for all bytes, and says whether it took
/// these for valid: all of `valid` must be, else nothing behind the first look at a length would be tested.
///
/// # Panics
/// Where an assertion fails or the parser panics, with the smallest bytes that were found to do so.
#[track_caller]
pub fn attack(valid: &[Vec<u8>], check: impl Fn(&[u8]) -> bool) {
    for (nth, bytes) in valid.iter().enumerate() {
        assert!(check(bytes), "valid input {nth} is refused");
    }
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let (mut runner, hostile) = (TestRunner::new(config), hostile(valid.to_vec()));
    let until = Instant::now() + budget();
    let mut cases = 0;
    while cases < CASES_MIN || Instant::now() < until {
        let case = hostile.new_tree(&mut runner).expect("nothing is filtered");
        let tried = runner.run_one(case, |bytes| {
            black_box(check(&bytes));
            Ok(())
        });
        match tried {
            Ok(_) => cases += 1,
            Err(TestError::Abort(reason)) => panic!("case {cases}: {reason}"),
            Err(TestError::Fail(reason, bytes)) => panic!("{reason}\nby these bytes: {}", hex(&bytes)),
        }
    }
}

/// Fails if `work` holds more than `bytes_max` at any moment beside what it began with. The test's executable must have
/// `allocator` as its `#[global_allocator]`; in it, nothing else may run, so this measures only below nextest, which starts
/// each test in a process of its own.
#[track_caller]
pub fn within<T>(allocator: &PeakAlloc, bytes_max: usize, work: impl FnOnce() -> T) -> T {
    allocator.reset_peak_usage();
    let before = allocator.current_usage();
    let done = work();
    let held = allocator.peak_usage().saturating_sub(before);
    let alone = std::env::var_os("NEXTEST").is_some();
    assert!(held <= bytes_max || !alone, "{held} bytes were held, over {bytes_max}");
    done
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A change of valid input. Places are relative, so that each fits whatever the changes before it have left.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Put(Index, Vec<u8>),
    CutEnd(Index),
    CutOut(Index, Index),
    /// A part of this or another valid input, in place of what is here.
    Splice(Index, (Index, Index, Index)),
    Repeat(Index, Index, u8),
    /// An integer of 2^width bytes that says this; big endian or little.
    Lie(Index, u8, u64, bool),
    /// An integer there is that says a little more or less.
    Shift(Index, i8),
}

fn hostile(valid: Vec<Vec<u8>>) -> BoxedStrategy<Vec<u8>> {
    let arbitrary = vec(any::<u8>(), 0..ARBITRARY_BYTES_MAX);
    if valid.is_empty() {
        return arbitrary.boxed();
    }
    let changed = (any::<Index>(), vec(change(), 0..=CHANGES_MAX)).prop_map(move |(which, changes)| {
        let bytes = which.get(&valid).clone();
        changes.iter().fold(bytes, |bytes, change| apply(bytes, change, &valid))
    });
    prop_oneof![1 => arbitrary, 9 => changed].boxed()
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    let length = prop_oneof![proptest::sample::select(&LENGTHS[..]), any::<u64>()];
    prop_oneof![
        (place(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (place(), vec(any::<u8>(), 1..16)).prop_map(|(at, bytes)| Change::Put(at, bytes)),
        place().prop_map(Change::CutEnd),
        (place(), place()).prop_map(|(from, to)| Change::CutOut(from, to)),
        (place(), (place(), place(), place())).prop_map(|(at, of)| Change::Splice(at, of)),
        (place(), place(), 1..32u8).prop_map(|(from, to, times)| Change::Repeat(from, to, times)),
        (place(), 0..4u8, length, any::<bool>()).prop_map(|(at, width, says, big)| Change::Lie(at, width, says, big)),
        (place(), -3..4i8).prop_map(|(at, by)| Change::Shift(at, by)),
    ]
}

/// A range in `bytes`, empty where they are.
fn between(from: &Index, to: &Index, bytes: &[u8]) -> std::ops::Range<usize> {
    let (one, two) = (from.index(bytes.len() + 1), to.index(bytes.len() + 1));
    one.min(two)..one.max(two)
}

fn apply(mut bytes: Vec<u8>, change: &Change, valid: &[Vec<u8>]) -> Vec<u8> {
    let end = bytes.len();
    match change {
        Change::Flip(at, bit) if end > 0 => bytes[at.index(end)] ^= 1 << bit,
        Change::Shift(at, by) if end > 0 => {
            let byte = &mut bytes[at.index(end)];
            *byte = byte.wrapping_add_signed(*by);
        }
        Change::Flip(..) | Change::Shift(..) => {}
        Change::Put(at, more) => drop(bytes.splice(at.index(end + 1)..at.index(end + 1), more.iter().copied())),
        Change::CutEnd(at) => bytes.truncate(at.index(end + 1)),
        Change::CutOut(from, to) => drop(bytes.drain(between(from, to, &bytes))),
        Change::Splice(at, (which, from, to)) => {
            let other = which.get(valid);
            bytes.splice(at.index(end + 1).., other[between(from, to, other)].iter().copied());
        }
        Change::Repeat(from, to, times) => {
            let part = bytes[between(from, to, &bytes)].to_vec();
            let place = between(from, to, &bytes).end;
            // Bounded: what is repeated is small, and there are few changes.
            let times = usize::from(*times).min((64 << 10) / part.len().max(1));
            bytes.splice(place..place, part.repeat(times));
        }
        Change::Lie(at, width, says, big) => {
            let width = 1 << width;
            let said = if *big {
                says.to_be_bytes()[8 - width..].to_vec()
            } else {
                says.to_le_bytes()[..width].to_vec()
            };
            let from = at.index(end + 1);
            bytes.splice(from..end.min(from + width), said);
        }
    }
    bytes
}
