//! Where a job's result is, where that is not simply with the job.

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::{FunctionId, JobId};
use serde::{Deserialize, Serialize};

/// ```text
/// Kept ----------------------------------> Expired
/// Owed -> Delivered | Undelivered -------> Expired (Undelivered alone)
/// any but Delivered and Expired ---------> Dropped
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum ResultState {
    /// With the job, until it expires.
    Kept = 0,
    /// To be delivered to the function's sink; with the job until then.
    Owed = 1,
    /// At the sink; no longer with the job.
    Delivered = 2,
    /// Given up on: with the job, until it expires.
    Undelivered = 3,
    Expired = 4,
    /// No longer with the job: its account's outputs took more room than they may.
    Dropped = 5,
}

impl ResultState {
    pub(crate) fn from_code(code: i64) -> Option<Self> {
        [
            Self::Kept,
            Self::Owed,
            Self::Delivered,
            Self::Undelivered,
            Self::Expired,
            Self::Dropped,
        ]
        .into_iter()
        .find(|state| *state as i64 == code)
    }
}

/// What is known of one job's result.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ResultNote {
    pub job: JobId,
    pub function: FunctionId,
    pub state: ResultState,
    /// Deliveries tried.
    pub attempts: u32,
    /// Not before then; read while it is owed.
    pub next_at_ms: u64,
    /// When the output goes from the job; never where absent.
    pub expires_at_ms: Option<u64>,
    /// A sentence: where it went, or why it did not.
    pub detail: String,
}
