//! Leases, tickets under seals, receipts on their way to the ledger, and what the ledger says came of them.

// A money event of the ledger that nothing here handles must not compile.
#![deny(clippy::wildcard_enum_match_arm)]

pub(crate) mod aside;
pub(crate) mod closing;
pub(crate) mod disputes;
pub(crate) mod follow;
pub(crate) mod lane;
pub(crate) mod leases;
pub(crate) mod outbox;
pub(crate) mod pace;
pub(crate) mod settle;
pub(crate) mod statements;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod withheld;
