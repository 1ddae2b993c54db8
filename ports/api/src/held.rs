//! `/held`: receipts that are not paid, the reasons, and operators' decisions about them.

use jiff::Timestamp;
use piecework_model::{Credits, JobId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A receipt that is not paid. Operators see all of them; a job's parties see it in `GET /jobs/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldView {
    #[schema(value_type = String)]
    pub job: JobId,
    pub function: String,
    pub developer: String,
    pub provider: String,
    #[schema(value_type = crate::schemas::Ucr)]
    pub price_ucr: Credits,
    /// A sentence.
    pub reason: String,
    pub state: HeldState,
    pub since: Timestamp,
    /// When it is paid if no operator decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pays_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeldState {
    /// Waits until an operator decides or its time comes.
    Held,
    /// Nothing is owed for it.
    Refused,
}

/// `POST /held/{job}`, operators only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decide {
    pub decision: Decision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Pay it.
    Release,
    /// Refuse it; it counts against its provider.
    Refuse,
}
