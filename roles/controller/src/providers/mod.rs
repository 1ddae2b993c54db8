//! Providers as seen by this controller: connected, measured, trusted, and shared out slot by slot.

pub(crate) mod fair;
pub(crate) mod hub;
pub(crate) mod reasons;
pub(crate) mod seen;
pub(crate) mod standings;
