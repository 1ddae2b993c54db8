//! Leases, tickets under seals, receipts on their way to the ledger, and what the ledger says came of them.

pub(crate) mod aside;
pub(crate) mod closing;
pub(crate) mod disputes;
pub(crate) mod follow;
pub(crate) mod lane;
pub(crate) mod leases;
pub(crate) mod settle;
pub(crate) mod withheld;
