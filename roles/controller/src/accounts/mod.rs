//! Accounts: tokens and logins, rate limits, and the audit log of changes.

pub(crate) mod audit;
pub(crate) mod auth;
mod members;
pub(crate) mod rates;

pub(crate) use members::*;
