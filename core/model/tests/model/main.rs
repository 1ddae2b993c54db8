//! The shared nouns from outside: bytes, signatures, limits. One executable, which is linked once.

#![allow(clippy::unwrap_used)]

mod golden;
mod signatures;
mod values;
