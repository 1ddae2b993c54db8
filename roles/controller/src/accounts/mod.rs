//! Who is asking: accounts, their tokens and logins, how often they may ask, and the record of what they changed.

pub(crate) mod audit;
pub(crate) mod auth;
mod members;
pub(crate) mod rates;

pub(crate) use members::*;
