//! Calls on a whole controller in one process.

mod queueing;
mod results;
mod trust;
mod unrun;
