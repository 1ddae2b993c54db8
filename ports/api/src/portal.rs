//! `/portal`: the sessions of people's browsers. Their cookies are good there and nowhere else.

use jiff::Timestamp;
use piecework_model::{Scope, Signature};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{accounts::AccountView, schemas::ScopeName};

/// `POST /portal/session`. `name` with `password`, `name` with a signed `challenge`, or `token`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenPortalSession {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// From `POST /sessions/challenges`, as in `POST /sessions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// 128 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub signature: Option<Signature>,
    /// A token of the account. The session may do what the token may, and ends with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Who the browser's session belongs to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PortalSessionView {
    pub account: AccountView,
    #[schema(value_type = Vec<ScopeName>)]
    pub scopes: Vec<Scope>,
    /// Whether the account operates this network.
    pub operator: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}
