//! The attacks find what is wrong, or a parser that passes them has shown nothing.

#![allow(clippy::unwrap_used)]

use std::panic::catch_unwind;

use piecework_fuzz::{PeakAlloc, attack, within};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

/// A record as most formats have it: a length, and as many bytes.
fn record(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat()
}

fn length(bytes: &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(*bytes.first_chunk()?) as usize)
}

fn found(check: impl Fn(&[u8]) -> bool + std::panic::UnwindSafe) -> String {
    let failed = catch_unwind(|| attack(&[record(b"something"), record(b"")], check)).unwrap_err();
    failed.downcast_ref::<String>().unwrap().clone()
}

#[test]
fn a_length_that_is_believed_is_found() {
    let said = found(|bytes| length(bytes).is_some_and(|length| bytes[4..4 + length].len() == length));
    assert!(said.contains("by these bytes: "), "{said}");
}

#[test]
fn room_for_a_length_that_was_only_said_is_found() {
    let said = found(|bytes| {
        within(&PEAK, 256 << 10, || {
            length(bytes).map(|length| Vec::<u8>::with_capacity(length.min(64 << 20)))
        })
        .is_some()
    });
    assert!(said.contains("bytes were held, over 262144"), "{said}");
}

#[test]
fn a_second_spelling_of_one_value_is_found() {
    let said = found(|bytes| {
        let Some(content) = length(bytes).and_then(|length| bytes.get(4..)?.get(..length)) else {
            return false;
        };
        assert_eq!(record(content), bytes, "what is after it is lost");
        true
    });
    assert!(said.contains("what is after it is lost"), "{said}");
}

#[test]
fn a_valid_input_that_is_refused_is_told() {
    assert!(found(|_| false).contains("valid input 0 is refused"));
}
