//! Where a job's result is, where that is not simply with the job.

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::{FunctionId, JobId, ResultState};

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
