//! `/deposits` and `/withdrawals`: credits booked in and out against something outside of the ledger.

use jiff::Timestamp;
use piecework_model::{Credits, Digest};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::schemas::Ucr;

/// `POST /deposits`, operators only.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateDeposit {
    /// Name or id of the account that gets the credits.
    pub account: String,
    /// More than zero.
    #[schema(value_type = Ucr)]
    pub amount_ucr: Credits,
    /// What came in outside of the ledger, such as the id of a bank transfer; books once. 1 to 100 characters, no control
    /// characters. Appears in both sides' statements.
    #[schema(min_length = 1, max_length = 100)]
    pub reference: String,
}

/// A deposit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DepositView {
    pub reference: String,
    pub account: String,
    #[schema(value_type = Ucr)]
    pub amount_ucr: Credits,
    pub state: DepositState,
    /// The operator.
    pub by: String,
    pub at: Timestamp,
    /// Whether the reference was booked before this request, which then moved nothing.
    #[serde(default)]
    pub is_repeated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub transaction: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DepositState {
    /// Not final on the ledger yet.
    Queued,
    Booked,
}

impl DepositState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Booked => "booked",
        }
    }
}

/// `POST /withdrawals`: the credits go to the operator's account until an operator decides.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWithdrawal {
    /// More than zero, of what the account owns: borrowed credits cannot be withdrawn.
    #[schema(value_type = Ucr)]
    pub amount_ucr: Credits,
    /// Where to pay, for the operator. 1 to 100 characters, no control characters. Appears in both sides' statements.
    #[schema(min_length = 1, max_length = 100)]
    pub pay_to: String,
}

/// `POST /withdrawals/{id}/settle`, operators only.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettleWithdrawal {
    /// What went out outside of the ledger; settles one withdrawal.
    #[schema(min_length = 1, max_length = 100)]
    pub reference: String,
}

/// `POST /withdrawals/{id}/decline`, operators only: the credits return to the account.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclineWithdrawal {
    /// For the account's owner; also in the statement.
    #[schema(min_length = 1, max_length = 100)]
    pub reason: String,
}

/// `GET /withdrawals`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct WithdrawalsQuery {
    /// Those of all accounts; operators only.
    pub all: bool,
    /// Only those that wait for a decision.
    pub open: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A withdrawal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WithdrawalView {
    pub id: String,
    pub account: String,
    #[schema(value_type = Ucr)]
    pub amount_ucr: Credits,
    pub pay_to: String,
    pub state: WithdrawalState,
    pub at: Timestamp,
    /// The operator who decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    /// The reference of the payment, or the reason for declining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WithdrawalState {
    /// The credits are on their way to the operator's account.
    Queued,
    /// Waits for the operator's decision.
    Open,
    /// Paid outside of the ledger.
    Settled,
    /// Declined; the credits are on their way back.
    Returning,
    /// The credits are back.
    Declined,
}

impl WithdrawalState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Open => "open",
            Self::Settled => "settled",
            Self::Returning => "returning",
            Self::Declined => "declined",
        }
    }
}
