//! Providers as seen by this controller: connected, measured, trusted, and tested with reference jobs.

pub(crate) mod hub;
pub(crate) mod reference;
pub(crate) mod seen;
pub(crate) mod standings;
