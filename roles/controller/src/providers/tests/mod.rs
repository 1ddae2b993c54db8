//! Providers on a whole controller in one process.

mod earning;
mod placement;
