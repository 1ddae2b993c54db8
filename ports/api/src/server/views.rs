//! Converts the ledger's values to API views; a controller and a peer show the same.

use piecework_ledger::{Account, Lease, LeaseState, Subject};
use piecework_model::{AccountId, LeaseId};

use crate::{accounts::AccountView, ledger::LeaseView};

impl AccountView {
    /// `sponsor` and `owner` by name, `height` of the block that the account was read at.
    pub fn of(id: AccountId, account: &Account, height: u64, sponsor: Option<String>, owner: Option<String>) -> Self {
        Self {
            id,
            name: account.name.to_string(),
            key: account.key,
            roles: account.roles.list(),
            posted_ucr: account.posted,
            held_ucr: account.held,
            limit_ucr: account.limit,
            available_ucr: account.available(),
            sponsor,
            owner,
            mismatches: account.mismatches,
            nonce: account.nonce,
            height,
            proof: None,
        }
    }
}

impl LeaseView {
    /// `developer` and `provider` by name.
    pub fn of(id: LeaseId, lease: Lease, developer: String, provider: Option<String>) -> Self {
        let (state, expires_at_height) = match lease.state {
            LeaseState::Open => ("open", None),
            LeaseState::Draining { until_height } => ("draining", Some(until_height)),
            LeaseState::Closed => ("closed", None),
        };
        Self {
            id,
            developer,
            function: match lease.subject {
                Subject::Function(function) => Some(function.to_string()),
                Subject::AnyFunction | Subject::Pod(_) => None,
            },
            provider,
            budget_ucr: lease.budget,
            used_ucr: lease.used,
            reserved_ucr: lease.reserved,
            state: state.to_owned(),
            opened_at_height: None,
            expires_at_height,
            window_blocks: Some(lease.window_blocks),
            payer_keys: lease.payer_keys,
        }
    }
}
