//! Outcomes as stored in a block: without ids, which follow from its transactions.

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_ledger::{Event, Outcome, TransactionId};
use piecework_model::{AnyCode, Rejection};

/// The encoding of an [`Outcome`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Record {
    result: Result<Vec<Event>, Refusal>,
}

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Refusal {
    code: AnyCode,
    message: String,
    hint: Option<String>,
    field: Option<String>,
}

impl From<&Outcome> for Record {
    fn from(outcome: &Outcome) -> Self {
        Self {
            result: outcome.result.clone().map_err(|rejection| Refusal {
                code: rejection.code,
                message: rejection.message,
                hint: rejection.hint,
                field: rejection.field,
            }),
        }
    }
}

impl Record {
    /// The outcome of the transaction of this id.
    pub fn of(self, id: TransactionId) -> Outcome {
        Outcome {
            id,
            result: self.result.map_err(|refusal| Rejection {
                code: refusal.code,
                message: refusal.message,
                hint: refusal.hint,
                field: refusal.field,
            }),
        }
    }
}
