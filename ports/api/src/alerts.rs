//! `/alerts`: what is wrong now, for operators; and what is sent of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A condition that is there now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AlertView {
    /// `budget`, `stall`, `disk`, `certificate`, `quarantine` or `test`.
    pub rule: String,
    /// What it is about, such as a function; empty for the whole server.
    pub subject: String,
    /// A sentence.
    pub message: String,
    pub since: Timestamp,
}

/// The body that a webhook gets and a command reads from standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AlertMessage {
    /// The same in each attempt to deliver this message.
    pub id: String,
    pub status: AlertStatus,
    pub rule: String,
    pub subject: String,
    pub message: String,
    /// URL of the controller.
    pub controller: String,
    pub since: Timestamp,
    pub at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertStatus {
    Firing,
    Resolved,
}
