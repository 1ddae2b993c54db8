//! The ledger's contracts: a deterministic state machine over accounts, offers, leases and jobs.
//!
//! The ledger is a map from [`Key`] to [`Value`]. [`check`] says whether a transaction can enter; [`execute`] applies the
//! transactions of one block and never fails: a bad one leaves a rejection among the block's results. Both are pure: what
//! they may read comes in through a [`View`], what they change goes out as [`Changes`]. [`read_set`] names the keys a
//! transaction reads, so that a caller with state on disk fetches first and then executes without waiting.

mod bounds;
mod contracts;
mod draft;
mod execute;
mod genesis;
mod lane;
mod mutant;
mod reads;
mod rejections;
mod rules;
mod state;
#[cfg(test)]
mod tests;
mod transaction;

pub use bounds::{
    CODES_PER_SETTLEMENT_MAX, JOBS_PER_SETTLEMENT_MAX, KEYS_PER_LEASE_MAX, OFFER_BACKENDS_MAX, OFFER_LABELS_MAX,
    OFFER_TEXT_BYTES_MAX, OPEN_JOBS_PER_LEASE_MAX, PROPOSAL_BLOCKS, TICKET_BATCHES_PER_CLAIM_MAX,
};
pub use execute::{Applied, BlockContext, Event, JobChange, OfJob, Outcome, check, execute};
pub use genesis::{Genesis, GenesisPeer, Grant, SUPPLY_UCR_MAX};
pub use piecework_model::Roles;
pub use reads::read_set;
pub use rejections::rejections;
pub use rules::{FIRST_RULES, NextRules, RULES, Rules, rules};
pub use state::{
    Account, Changes, Committee, Key, Lane, Lease, LeaseState, Mismatch, NextCommittee, Offer, OpenJob, Params, Peer,
    Pools, Proposal, Subject, Value, View,
};
pub use transaction::{
    Action, AddPeer, BatchTicket, Challenge, Change, Claim, ClaimedJob, CloseLease, CoverDebt, DelegatePayer,
    DropOffer, Evidence, ExpireLease, Metered, OpenJobs, OpenLease, OpenTicket, PayClaims, PayPeers, Propose, PutOffer,
    Register, ReleaseJobs, ReportMismatch, Resources, RotateKey, SetLimit, SetRules, Settle, SettledJob,
    SignedTransaction, TicketBatch, TopUp, Transaction, TransactionId, Transfer, Vote,
};
