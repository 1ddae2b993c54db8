//! Outcomes as a block carries them, and as they travel.

use std::borrow::Cow;

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_ledger::{Event, Outcome, TransactionId};
use piecework_model::Rejection;

/// The encoding of an [`Outcome`]: part of every block, and a leaf of its outcomes' Merkle root.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Record {
    id: TransactionId,
    result: Result<Vec<Event>, Refusal>,
}

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Refusal {
    code: String,
    message: String,
    hint: Option<String>,
    field: Option<String>,
}

impl From<&Outcome> for Record {
    fn from(outcome: &Outcome) -> Self {
        Self {
            id: outcome.id,
            result: outcome.result.clone().map_err(|rejection| Refusal {
                code: rejection.code.into_owned(),
                message: rejection.message,
                hint: rejection.hint,
                field: rejection.field,
            }),
        }
    }
}

impl From<Record> for Outcome {
    fn from(record: Record) -> Self {
        Self {
            id: record.id,
            result: record.result.map_err(|refusal| Rejection {
                code: Cow::Owned(refusal.code),
                message: refusal.message,
                hint: refusal.hint,
                field: refusal.field,
            }),
        }
    }
}
