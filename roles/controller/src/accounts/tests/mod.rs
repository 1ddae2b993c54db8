//! Accounts on a whole controller in one process.

mod invites;
mod lending;
mod limits;
mod records;
mod tokens;
mod transfers;
