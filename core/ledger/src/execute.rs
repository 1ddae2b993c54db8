//! The rules.

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::{AccountId, Credits, JobId, LeaseId, NetworkId, Rejection};
use serde::{Deserialize, Serialize};

use crate::{
    state::{Changes, Key, View},
    transaction::{SignedTransaction, TransactionId},
};

/// What a block tells its transactions. No wall clock decides anything: time is the height.
#[derive(Clone, Copy, Debug)]
pub struct BlockContext {
    pub network: NetworkId,
    pub height: u64,
}

/// What happened to one transaction of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub id: TransactionId,
    pub result: Result<Vec<Event>, Rejection>,
}

/// What others may want to know, in the past tense.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    AccountRegistered {
        account: AccountId,
    },
    KeyRotated {
        account: AccountId,
    },
    CreditsTransferred {
        from: AccountId,
        to: AccountId,
        amount: Credits,
    },
    OfferPut {
        provider: AccountId,
    },
    OfferDropped {
        provider: AccountId,
    },
    LeaseOpened {
        lease: LeaseId,
        developer: AccountId,
        budget: Credits,
    },
    LeaseToppedUp {
        lease: LeaseId,
        amount: Credits,
    },
    PayerDelegated {
        lease: LeaseId,
    },
    JobOpened {
        lease: LeaseId,
        provider: AccountId,
        sequence: u64,
        job: JobId,
    },
    JobMetered {
        lease: LeaseId,
        provider: AccountId,
        sequence: u64,
        job: JobId,
    },
    JobReceived {
        lease: LeaseId,
        provider: AccountId,
        sequence: u64,
        job: JobId,
    },
    /// Credits moved: `price_ucr` from the developer, `price_ucr - commission_ucr` to the provider.
    JobPaid {
        lease: LeaseId,
        provider: AccountId,
        sequence: u64,
        job: JobId,
        price_ucr: u64,
        commission_ucr: u64,
    },
    LeaseDraining {
        lease: LeaseId,
        until_height: u64,
    },
    LeaseClosed {
        lease: LeaseId,
        freed: Credits,
    },
}

/// All that a block does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub changes: Changes,
    pub outcomes: Vec<Outcome>,
}

/// The keys a transaction reads, as far as `view` lets it be known: call again with a view that holds them until no new
/// key comes (a lease leads to its developer's account). At most three rounds.
pub fn read_set(_transaction: &SignedTransaction, _view: &dyn View) -> Vec<Key> {
    unreachable!()
}

/// Whether the transaction could be executed on this state. Verifies signatures; costs what they cost.
pub fn check(_view: &dyn View, _context: &BlockContext, _transaction: &SignedTransaction) -> Result<(), Rejection> {
    unreachable!()
}

/// Applies the transactions in order. Total: a bad transaction changes nothing and leaves its rejection.
///
/// # Panics
/// If the block as a whole would not conserve credits: a bug of ours, and no block may stand on it.
pub fn execute(_view: &dyn View, _context: &BlockContext, _transactions: &[SignedTransaction]) -> Applied {
    unreachable!()
}
