//! What a block's outcomes commit to: one leaf for each job that a transaction touched, and for each other event.
//!
//! ```text
//! outcomes_root -- Merkle --> transaction i: refused{why}, or executed{entries, root}
//!                                            root -- Merkle --> entry: a job's steps with its receipt, or an event
//! ```

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_ledger::{Action, Event, Metered, Outcome, SignedTransaction};
use piecework_model::{
    AccountId, Digest, JobId, LeaseId, MerkleProof, ProofStep, Receipt, Rejection, leaf, merkle_proof, merkle_root,
};
use serde::{Deserialize, Serialize};

/// Something that an executed transaction did, as it is proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    Job(JobEntry),
    Event(Event),
}

/// All that one transaction did to one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct JobEntry {
    pub lease: LeaseId,
    pub provider: AccountId,
    pub sequence: u64,
    pub job: JobId,
    pub steps: Vec<Step>,
    /// There where the transaction brought it, that is where [`Step::Metered`] is among the steps.
    pub metering: Option<Metering>,
}

/// What a receipt says beyond the ids of its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Metering {
    pub code: Digest,
    pub input: Digest,
    pub metered: Metered,
}

/// An [`Event`] without the ids of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {
    Opened,
    Metered,
    Received,
    Paid { price_ucr: u64, commission_ucr: u64 },
    Claimed { price_ucr: u64, until_height: u64 },
    Refuted,
    MismatchReported { other_provider: AccountId },
    Released,
}

type Place = (LeaseId, AccountId, u64, JobId);

impl JobEntry {
    /// The receipt that the provider sealed, if this transaction brought it.
    pub fn receipt(&self) -> Option<Receipt> {
        let Metering { code, input, metered } = self.metering.clone()?;
        Some(Receipt {
            lease: self.lease,
            provider: self.provider,
            sequence: self.sequence,
            job: self.job,
            code,
            input,
            output: metered.output,
            status: metered.status,
            counters: metered.counters,
            price_ucr: metered.price_ucr,
            duration_us: metered.duration_us,
        })
    }

    /// Price and commission, if this transaction paid the job.
    pub fn paid(&self) -> Option<(u64, u64)> {
        self.steps.iter().find_map(|step| match step {
            Step::Paid {
                price_ucr,
                commission_ucr,
            } => Some((*price_ucr, *commission_ucr)),
            Step::Opened
            | Step::Metered
            | Step::Received
            | Step::Claimed { .. }
            | Step::Refuted
            | Step::MismatchReported { .. }
            | Step::Released => None,
        })
    }
}

/// The job that an event is about, and what happened to it.
fn step(event: &Event) -> Option<(Place, Step)> {
    macro_rules! of {
        ($lease:ident, $provider:ident, $sequence:ident, $job:ident, $step:expr) => {
            Some(((*$lease, *$provider, *$sequence, *$job), $step))
        };
    }
    match event {
        Event::JobOpened {
            lease,
            provider,
            sequence,
            job,
        } => of!(lease, provider, sequence, job, Step::Opened),
        Event::JobMetered {
            lease,
            provider,
            sequence,
            job,
        } => of!(lease, provider, sequence, job, Step::Metered),
        Event::JobReceived {
            lease,
            provider,
            sequence,
            job,
        } => of!(lease, provider, sequence, job, Step::Received),
        Event::JobRefuted {
            lease,
            provider,
            sequence,
            job,
        } => of!(lease, provider, sequence, job, Step::Refuted),
        Event::JobReleased {
            lease,
            provider,
            sequence,
            job,
        } => of!(lease, provider, sequence, job, Step::Released),
        Event::JobPaid {
            lease,
            provider,
            sequence,
            job,
            price_ucr,
            commission_ucr,
        } => {
            let (price_ucr, commission_ucr) = (*price_ucr, *commission_ucr);
            of!(
                lease,
                provider,
                sequence,
                job,
                Step::Paid {
                    price_ucr,
                    commission_ucr
                }
            )
        }
        Event::JobClaimed {
            lease,
            provider,
            sequence,
            job,
            price_ucr,
            until_height,
        } => {
            let (price_ucr, until_height) = (*price_ucr, *until_height);
            of!(
                lease,
                provider,
                sequence,
                job,
                Step::Claimed {
                    price_ucr,
                    until_height
                }
            )
        }
        Event::MismatchReported {
            lease,
            provider,
            sequence,
            job,
            other_provider,
        } => {
            let other_provider = *other_provider;
            of!(
                lease,
                provider,
                sequence,
                job,
                Step::MismatchReported { other_provider }
            )
        }
        Event::AccountRegistered { .. }
        | Event::KeyRotated { .. }
        | Event::CreditsTransferred { .. }
        | Event::OfferPut { .. }
        | Event::OfferDropped { .. }
        | Event::LeaseOpened { .. }
        | Event::LeaseToppedUp { .. }
        | Event::PayerDelegated { .. }
        | Event::LeaseDraining { .. }
        | Event::LeaseClosed { .. }
        | Event::LimitSet { .. }
        | Event::DebtCovered { .. }
        | Event::ChangeProposed { .. }
        | Event::ChangeVoted { .. }
        | Event::PeersChanged { .. }
        | Event::ParamsChanged {}
        | Event::PeerPaid { .. }
        | Event::RulesChanged { .. } => None,
    }
}

/// The meterings that a transaction brings, by sequence.
fn meterings(action: &Action) -> BTreeMap<u64, Metering> {
    match action {
        Action::Settle(settle) => {
            let metering = |job: &piecework_ledger::SettledJob| {
                let code = *settle.codes.get(usize::from(job.code))?;
                let (input, metered) = (job.input, job.metered.clone()?);
                Some((job.sequence, Metering { code, input, metered }))
            };
            settle.jobs.iter().filter_map(metering).collect()
        }
        Action::Claim(claim) => {
            let tickets = claim.batches.iter().flat_map(|batch| &batch.tickets);
            let metering = |ticket: &piecework_ledger::BatchTicket| match ticket {
                piecework_ledger::BatchTicket::Claimed(job) => {
                    let (code, input, metered) = (job.ticket.code, job.ticket.input, job.metered.clone());
                    Some((job.ticket.sequence, Metering { code, input, metered }))
                }
                piecework_ledger::BatchTicket::Other(_) => None,
            };
            tickets.filter_map(metering).collect()
        }
        _ => BTreeMap::new(),
    }
}

/// What an executed transaction did: jobs and other events, in the order in which they first appear.
pub fn entries(transaction: &SignedTransaction, events: &[Event]) -> Vec<Entry> {
    let mut meterings = meterings(&transaction.transaction.action);
    let mut places: BTreeMap<Place, usize> = BTreeMap::new();
    let mut entries = Vec::new();
    for event in events {
        let Some((place, step)) = step(event) else {
            entries.push(Entry::Event(event.clone()));
            continue;
        };
        let at = *places.entry(place).or_insert_with(|| {
            entries.push(Entry::Job(JobEntry::new(place)));
            entries.len() - 1
        });
        let Some(Entry::Job(entry)) = entries.get_mut(at) else {
            unreachable!("a place leads to the job's own entry")
        };
        if step == Step::Metered {
            entry.metering = meterings.remove(&entry.sequence);
        }
        entry.steps.push(step);
    }
    entries
}

impl JobEntry {
    fn new((lease, provider, sequence, job): Place) -> Self {
        Self {
            lease,
            provider,
            sequence,
            job,
            steps: Vec::new(),
            metering: None,
        }
    }
}

/// The leaf of one transaction's outcome.
#[derive(BorshSerialize)]
enum Sealed<'a> {
    Executed {
        entries: u32,
        root: Digest,
    },
    Refused {
        code: &'a str,
        message: &'a str,
        hint: Option<&'a str>,
        field: Option<&'a str>,
    },
}

fn sealed_leaf(result: Result<&[Digest], &Rejection>) -> Digest {
    match result {
        Ok(leaves) => leaf(&Sealed::Executed {
            entries: u32::try_from(leaves.len()).expect("a transaction's events are bounded far below 2^32"),
            root: merkle_root(leaves),
        }),
        Err(refused) => leaf(&Sealed::Refused {
            code: refused.code.as_str(),
            message: &refused.message,
            hint: refused.hint.as_deref(),
            field: refused.field.as_deref(),
        }),
    }
}

fn entry_leaves(transaction: &SignedTransaction, events: &[Event]) -> Vec<Digest> {
    entries(transaction, events).iter().map(leaf).collect()
}

fn outcome_leaf(transaction: &SignedTransaction, outcome: &Outcome) -> Digest {
    match &outcome.result {
        Ok(events) => sealed_leaf(Ok(&entry_leaves(transaction, events))),
        Err(refused) => sealed_leaf(Err(refused)),
    }
}

fn outcome_leaves(transactions: &[SignedTransaction], outcomes: &[Outcome]) -> Vec<Digest> {
    let pairs = transactions.iter().zip(outcomes);
    pairs
        .map(|(transaction, outcome)| outcome_leaf(transaction, outcome))
        .collect()
}

/// Over the outcomes of a block, one for each transaction.
pub fn outcomes_root(transactions: &[SignedTransaction], outcomes: &[Outcome]) -> Digest {
    merkle_root(&outcome_leaves(transactions, outcomes))
}

/// Over the signed transactions of a block.
pub fn transactions_root(transactions: &[SignedTransaction]) -> Digest {
    let leaves: Vec<Digest> = transactions.iter().map(leaf).collect();
    merkle_root(&leaves)
}

/// A way from a leaf to its root, in few bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Path {
    /// Bit i: whether sibling i stands to the left.
    lefts: u32,
    siblings: Vec<Digest>,
}

impl Path {
    /// None of our trees has 2^32 leaves.
    const STEPS_MAX: usize = 32;

    fn new(proof: MerkleProof) -> Self {
        let mut path = Self::default();
        for (bit, step) in proof.steps.into_iter().enumerate() {
            path.lefts |= u32::from(step.sibling_is_left) << bit;
            path.siblings.push(step.sibling);
        }
        path
    }

    /// `None` where the path is longer than any honest one, or says of siblings that are not there where they stand.
    fn root_from(&self, leaf: Digest) -> Option<Digest> {
        let unused = self.lefts.checked_shr(self.siblings.len() as u32).unwrap_or(0);
        if self.siblings.len() > Self::STEPS_MAX || unused != 0 {
            return None;
        }
        let step = |(bit, sibling): (usize, &Digest)| ProofStep {
            sibling: *sibling,
            sibling_is_left: self.lefts >> bit & 1 == 1,
        };
        let steps = self.siblings.iter().enumerate().map(step).collect();
        Some(MerkleProof { steps }.root_from(leaf))
    }
}

/// One entry of one transaction, and the ways from it to the block's root of outcomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct EntryProof {
    pub entry: Entry,
    /// How many entries the transaction has.
    entries: u32,
    in_transaction: Path,
    in_block: Path,
}

impl EntryProof {
    /// The proofs of those entries of a block that are `wanted`.
    pub fn find(
        transactions: &[SignedTransaction],
        outcomes: &[Outcome],
        wanted: impl Fn(&Entry) -> bool,
    ) -> Vec<Self> {
        let mut found = Vec::new();
        let mut leaves = None;
        for (index, (transaction, outcome)) in transactions.iter().zip(outcomes).enumerate() {
            let Ok(events) = &outcome.result else { continue };
            let entries = entries(transaction, events);
            if !entries.iter().any(&wanted) {
                continue;
            }
            let own: Vec<Digest> = entries.iter().map(leaf).collect();
            let block = leaves.get_or_insert_with(|| outcome_leaves(transactions, outcomes));
            let Some(in_block) = merkle_proof(block, index).map(Path::new) else {
                continue;
            };
            for (at, entry) in entries.iter().enumerate().filter(|(_, entry)| wanted(entry)) {
                found.extend(merkle_proof(&own, at).map(|in_transaction| Self {
                    entry: entry.clone(),
                    entries: own.len() as u32,
                    in_transaction: Path::new(in_transaction),
                    in_block: in_block.clone(),
                }));
            }
        }
        found
    }

    /// The root of outcomes that this leads to; compare it with a block's. `None` where a path is too long.
    pub fn outcomes_root(&self) -> Option<Digest> {
        let root = self.in_transaction.root_from(leaf(&self.entry))?;
        let entries = self.entries;
        self.in_block.root_from(leaf(&Sealed::Executed { entries, root }))
    }
}
