//! Why providers were passed over: some by name, the rest counted, so that a thousand of them fit a job's record.

use std::collections::BTreeMap;

use piecework_model::AccountId;
use serde::{Deserialize, Serialize};

/// Why a provider did not get the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    NotPinned,
    Silent,
    Draining,
    /// Its owner's work comes first at the moment.
    Paused,
    NoBackend,
    /// It lets no function reach what this one's allow list names.
    NoEgress,
    TooLittleMemory,
    TooDear,
    WrongRegion,
    MissingLabel,
    TooLittleTrust,
    /// The job brings secrets or reaches the network, and too little of this provider was checked.
    NotConfided,
    NoFreeSlot,
    /// Its jobs use what it has; one of this size fits when some of them have ended.
    NoFreeMemory,
    /// It was asked and did not take this job.
    Refused,
    /// It, or its owner, has run this job already.
    HasRun,
    /// It fits; the policy preferred another.
    Outranked,
}

impl std::fmt::Display for Reason {
    /// As it is written in JSON.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotPinned => "not_pinned",
            Self::Silent => "silent",
            Self::Draining => "draining",
            Self::Paused => "paused",
            Self::NoBackend => "no_backend",
            Self::NoEgress => "no_egress",
            Self::TooLittleMemory => "too_little_memory",
            Self::TooDear => "too_dear",
            Self::WrongRegion => "wrong_region",
            Self::MissingLabel => "missing_label",
            Self::TooLittleTrust => "too_little_trust",
            Self::NotConfided => "not_confided",
            Self::NoFreeSlot => "no_free_slot",
            Self::NoFreeMemory => "no_free_memory",
            Self::Refused => "refused",
            Self::HasRun => "has_run",
            Self::Outranked => "outranked",
        })
    }
}

/// A provider and why it was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    pub provider: AccountId,
    pub reason: Reason,
}

/// Named in one record: enough to see what is wrong, some 2 KiB.
pub const NAMED_MAX: usize = 20;

/// Why all the others did not get the job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reasons {
    /// At most [`NAMED_MAX`].
    pub providers: Vec<PassedOver>,
    /// How many more there are of each reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<Reason, u32>,
}

impl Reasons {
    pub fn add(&mut self, provider: AccountId, reason: Reason) {
        if self.providers.len() < NAMED_MAX {
            self.providers.push(PassedOver { provider, reason });
        } else {
            *self.others.entry(reason).or_default() += 1;
        }
    }

    /// Adds those of `others`, too.
    pub fn extend(&mut self, others: &Self) {
        for passed in &others.providers {
            self.add(passed.provider, passed.reason);
        }
        for (reason, count) in &others.others {
            *self.others.entry(*reason).or_default() += count;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.providers.is_empty()
    }

    /// How many were passed over.
    pub fn count(&self) -> usize {
        let others: u32 = self.others.values().sum();
        self.providers.len() + others as usize
    }

    /// Whether any was passed over for such a reason.
    pub fn any(&self, is_such: impl Fn(Reason) -> bool) -> bool {
        self.providers.iter().any(|passed| is_such(passed.reason)) || self.others.keys().any(|reason| is_such(*reason))
    }
}
