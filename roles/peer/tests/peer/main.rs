//! A peer and its query API, real engine included. One executable, which is linked once.

#![allow(clippy::unwrap_used)]

mod abuse;
mod alone;
mod explorer;
mod history;
mod remote;
mod served;
