//! The ledger's contracts: a deterministic state machine over accounts, offers, leases and jobs.
//!
//! The ledger is a map from [`Key`] to [`Value`]. [`check`] says whether a transaction can enter; [`execute`] applies the
//! transactions of one block and never fails: a bad one leaves a rejection among the block's results. Both are pure: what
//! they may read comes in through a [`View`], what they change goes out as [`Changes`]. [`read_set`] names the keys a
//! transaction reads, so that a caller with state on disk fetches first and then executes without waiting.

mod execute;
mod genesis;
mod state;
mod transaction;

pub use execute::{Applied, BlockContext, Event, Outcome, check, execute, read_set};
pub use genesis::{Genesis, GenesisPeer, Grant};
pub use state::{
    Account, Changes, JobState, Key, Lane, Lease, LeaseState, Offer, OpenJob, Params, Peer, Pools, Roles, Subject,
    Value, View,
};
pub use transaction::{
    Action, CloseLease, DelegatePayer, DropOffer, ExpireLease, Metered, OpenJobs, OpenLease, OpenTicket, PutOffer,
    Register, Resources, RotateKey, Settle, SettledJob, SignedTransaction, TopUp, Transaction, TransactionId, Transfer,
};
