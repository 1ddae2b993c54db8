//! `/held`: receipts that are not paid, and why; what an operator decides about them.

use jiff::Timestamp;
use piecework_model::{Credits, JobId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A receipt that is not paid: an operator sees all of them, a job's parties see it in `GET /jobs/{id}`.
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
    /// When it is paid if nobody decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pays_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeldState {
    /// Until an operator decides, or its time comes.
    Held,
    /// Nothing is owed for it.
    Refused,
}

/// `POST /held/{job}`, by an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decide {
    pub decision: Decision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It is paid.
    Release,
    /// It is not, and it counts against its provider.
    Refuse,
}
