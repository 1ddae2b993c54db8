//! Providers as this controller sees them: linked, measured, trusted, and tried with reference jobs.

pub(crate) mod hub;
pub(crate) mod reference;
pub(crate) mod seen;
pub(crate) mod standings;
