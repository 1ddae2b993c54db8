//! Blocks: transactions applied in order, each wholly or not at all, and what must hold after all of them.

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::{AccountId, Credits, Digest, JobId, LeaseId, NetworkId, PublicKey, Rejection};
use serde::{Deserialize, Serialize};

use crate::{
    contracts::Call,
    draft::Draft,
    rules::{RULES, rules},
    state::{Changes, Key, Value, View},
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
    /// Without the payer: due after `until_height`, unless it is refuted or settled otherwise before.
    JobClaimed {
        lease: LeaseId,
        provider: AccountId,
        sequence: u64,
        job: JobId,
        price_ucr: u64,
        until_height: u64,
    },
    /// A claim was shown to be wrong: the job will never be paid in this lane.
    JobRefuted {
        lease: LeaseId,
        provider: AccountId,
        sequence: u64,
        job: JobId,
    },
    MismatchReported {
        lease: LeaseId,
        provider: AccountId,
        sequence: u64,
        job: JobId,
        other_provider: AccountId,
    },
    LimitSet {
        sponsor: AccountId,
        account: AccountId,
        limit: Credits,
    },
    DebtCovered {
        sponsor: AccountId,
        account: AccountId,
        amount: Credits,
    },
    ChangeProposed {
        proposer: AccountId,
        change: Digest,
    },
    ChangeVoted {
        proposer: AccountId,
        change: Digest,
        voter: AccountId,
    },
    /// These peers make the blocks from this height on: whoever trusts the present ones need not read the state.
    PeersChanged {
        from_height: u64,
        /// Consensus keys, ascending.
        peers: Vec<PublicKey>,
    },
    ParamsChanged {},
    /// A peer's share of the commissions went to its owner.
    PeerPaid {
        peer: PublicKey,
        owner: AccountId,
        amount: Credits,
    },
    /// It was opened and came to nothing: nothing is kept aside for it any more, and it will never be paid.
    JobReleased {
        lease: LeaseId,
        provider: AccountId,
        sequence: u64,
        job: JobId,
    },
    /// Blocks are executed by these rules from this height on: whoever checks blocks without the state knows them by it.
    RulesChanged {
        from_height: u64,
        rules: u32,
    },
}

/// What an event says of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfJob {
    pub lease: LeaseId,
    pub provider: AccountId,
    pub sequence: u64,
    pub job: JobId,
    pub change: JobChange,
}

/// See the [`Event`] of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobChange {
    Opened,
    Metered,
    Received,
    Paid { price_ucr: u64, commission_ucr: u64 },
    Claimed { until_height: u64 },
    Refuted,
    Released,
    Mismatched,
}

impl Event {
    /// The job that it is about, where it is about one.
    pub fn job(&self) -> Option<JobId> {
        self.of_job().map(|of| of.job)
    }

    /// The same with the lease that it was ordered from. A job's id is its controller's word: another lease's payer may say
    /// the same one, and only both together name one job.
    pub fn lease_job(&self) -> Option<(LeaseId, JobId)> {
        self.of_job().map(|of| (of.lease, of.job))
    }

    /// What it says of a job, where it is about one: for those that follow jobs and nothing else.
    pub fn of_job(&self) -> Option<OfJob> {
        let (&lease, &provider, &sequence, &job, change) = match self {
            Self::JobOpened {
                lease,
                provider,
                sequence,
                job,
            } => (lease, provider, sequence, job, JobChange::Opened),
            Self::JobMetered {
                lease,
                provider,
                sequence,
                job,
            } => (lease, provider, sequence, job, JobChange::Metered),
            Self::JobReceived {
                lease,
                provider,
                sequence,
                job,
            } => (lease, provider, sequence, job, JobChange::Received),
            Self::JobPaid {
                lease,
                provider,
                sequence,
                job,
                price_ucr,
                commission_ucr,
            } => {
                let (price_ucr, commission_ucr) = (*price_ucr, *commission_ucr);
                (
                    lease,
                    provider,
                    sequence,
                    job,
                    JobChange::Paid {
                        price_ucr,
                        commission_ucr,
                    },
                )
            }
            Self::JobClaimed {
                lease,
                provider,
                sequence,
                job,
                until_height,
                ..
            } => {
                let until_height = *until_height;
                (lease, provider, sequence, job, JobChange::Claimed { until_height })
            }
            Self::JobRefuted {
                lease,
                provider,
                sequence,
                job,
            } => (lease, provider, sequence, job, JobChange::Refuted),
            Self::JobReleased {
                lease,
                provider,
                sequence,
                job,
            } => (lease, provider, sequence, job, JobChange::Released),
            Self::MismatchReported {
                lease,
                provider,
                sequence,
                job,
                ..
            } => (lease, provider, sequence, job, JobChange::Mismatched),
            Self::AccountRegistered { .. }
            | Self::KeyRotated { .. }
            | Self::CreditsTransferred { .. }
            | Self::OfferPut { .. }
            | Self::OfferDropped { .. }
            | Self::LeaseOpened { .. }
            | Self::LeaseToppedUp { .. }
            | Self::PayerDelegated { .. }
            | Self::LeaseDraining { .. }
            | Self::LeaseClosed { .. }
            | Self::LimitSet { .. }
            | Self::DebtCovered { .. }
            | Self::ChangeProposed { .. }
            | Self::ChangeVoted { .. }
            | Self::PeersChanged { .. }
            | Self::ParamsChanged {}
            | Self::PeerPaid { .. }
            | Self::RulesChanged { .. } => return None,
        };
        Some(OfJob {
            lease,
            provider,
            sequence,
            job,
            change,
        })
    }
}

/// All that a block does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub changes: Changes,
    pub outcomes: Vec<Outcome>,
}

/// Whether the transaction could be executed on this state. Verifies signatures; costs what they cost.
pub fn check(view: &dyn View, context: &BlockContext, transaction: &SignedTransaction) -> Result<(), Rejection> {
    let block = Changes::new();
    Call::run(Draft::new(view, &block), context, transaction).map(|_| ())
}

/// Applies the transactions in order. Total: a bad transaction changes nothing, not even its sender's nonce, and leaves
/// its rejection.
///
/// # Panics
/// If the rules of this height are above [`RULES`]: whoever has blocks executed asks [`rules`] before, and stops there.
///
/// If the block as a whole would not conserve credits, or would leave an account or a lease uncovered: a bug of ours, and
/// no block may stand on it.
pub fn execute(view: &dyn View, context: &BlockContext, transactions: &[SignedTransaction]) -> Applied {
    let in_force = rules(view).at(context.height);
    assert!(in_force <= RULES, "this build does not know the rules {in_force}");
    let mut applied = Applied::default();
    for signed in transactions {
        let draft = Draft::new(view, &applied.changes);
        let result = match Call::run(draft, context, signed) {
            Ok((draft, events)) => {
                let own = draft.into_changes();
                applied.changes.extend(own);
                Ok(events)
            }
            Err(refused) => Err(refused),
        };
        let id = signed.id();
        applied.outcomes.push(Outcome { id, result });
    }
    assert_sound(view, &applied.changes);
    applied
}

/// Credits only moved; what is held is covered; no lease drew more than its budget.
fn assert_sound(view: &dyn View, changes: &Changes) {
    let mut growth = 0i128;
    for (key, change) in changes {
        let after = change.as_ref().map_or(0, credits_in);
        let before = match key {
            Key::Account(_) | Key::Pools => view.get(key).as_ref().map_or(0, credits_in),
            Key::Params
            | Key::Name(_)
            | Key::Offer(_)
            | Key::Lease(_)
            | Key::Lane(..)
            | Key::OpenJob(..)
            | Key::Committee
            | Key::Proposal(_)
            | Key::Mismatch(..)
            | Key::Rules => 0,
        };
        growth += after - before;
        if let Some(value) = change {
            assert_covered(key, value);
        }
    }
    assert_eq!(growth, 0, "a block must neither make nor destroy credits");
}

fn credits_in(value: &Value) -> i128 {
    match value {
        Value::Account(account) => account.posted.0,
        Value::Pools(pools) => pools.peers.0 + pools.insurance.0,
        Value::Params(_)
        | Value::Name(_)
        | Value::Offer(_)
        | Value::Lease(_)
        | Value::Lane(_)
        | Value::OpenJob(_)
        | Value::Committee(_)
        | Value::Proposal(_)
        | Value::Mismatch(_)
        | Value::Rules(_) => 0,
    }
}

fn assert_covered(key: &Key, value: &Value) {
    match value {
        Value::Account(account) => {
            assert!(!account.held.is_negative(), "{key:?} holds less than nothing");
            assert!(!account.available().is_negative(), "{key:?} holds more than it has");
        }
        Value::Lease(lease) => {
            assert!(
                !lease.used.is_negative() && !lease.reserved.is_negative(),
                "{key:?} was paid backwards"
            );
            assert!(
                lease.used.0 + lease.reserved.0 <= lease.budget.0,
                "{key:?} drew more than its budget"
            );
        }
        Value::Pools(pools) => {
            assert!(
                !pools.peers.is_negative() && !pools.insurance.is_negative(),
                "a pool owes credits"
            );
        }
        Value::Params(_)
        | Value::Name(_)
        | Value::Offer(_)
        | Value::Lane(_)
        | Value::OpenJob(_)
        | Value::Committee(_)
        | Value::Proposal(_)
        | Value::Mismatch(_)
        | Value::Rules(_) => {}
    }
}
