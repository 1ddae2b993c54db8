//! Accounts: tokens and logins, rate limits, and the audit log of changes.

pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod challenges;
pub(crate) mod logins;
mod members;
pub(crate) mod rates;
pub(crate) mod throttle;

pub(crate) use members::*;
