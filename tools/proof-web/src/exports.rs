//! The module's functions. A byte at a time: a proof has some thousands, and so no address is ever passed between the two sides.
// The attribute that keeps a function's name counts as unsafe, because two functions of one name would be linked as one. These are the
// only ones of the module.
#![allow(unsafe_code)]

use std::cell::RefCell;

/// Larger than any genesis file with its proof.
const QUESTION_BYTES_MAX: usize = 64 << 20;

thread_local! {
    static QUESTION: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Begins a new question.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn clear() {
    QUESTION.with_borrow_mut(Vec::clear);
    ANSWER.with_borrow_mut(Vec::clear);
}

/// The next byte of the question.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn give(byte: u32) {
    QUESTION.with_borrow_mut(|question| {
        if question.len() < QUESTION_BYTES_MAX {
            question.push(byte.to_le_bytes()[0]);
        }
    });
}

/// Answers it. How many bytes the answer has.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn check() -> u32 {
    let answer = QUESTION.with_borrow(|question| crate::check(&String::from_utf8_lossy(question)));
    let length = u32::try_from(answer.len()).expect("an answer is far below 4 GiB");
    ANSWER.with_borrow_mut(|kept| *kept = answer.into_bytes());
    length
}

/// A byte of the answer.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn take(at: u32) -> u32 {
    ANSWER.with_borrow(|answer| answer.get(at as usize).map_or(0, |byte| u32::from(*byte)))
}
