//! Accounts on a whole controller in one process.

mod bookings;
mod invites;
mod lending;
mod limits;
mod records;
mod tokens;
mod transfers;
