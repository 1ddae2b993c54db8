//! From the ledger's values to what the API shows.

use std::collections::HashMap;

use jiff::Timestamp;
use piecework_api::{
    accounts::{AccountView, Role},
    ledger::{LeaseView, OfferView, TransactionView},
};
use piecework_chain::{Chain, FinalBlock};
use piecework_ledger::{Account, Key, Lease, LeaseState, Offer, Subject, Value};
use piecework_model::{AccountId, LeaseId};

use super::summary;

/// RFC 3339 in UTC.
pub(super) fn timestamp(unix_ms: u64) -> Timestamp {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

/// Names of accounts, each read once an answer.
pub(super) struct Names<'a> {
    chain: &'a dyn Chain,
    known: HashMap<AccountId, String>,
}

impl<'a> Names<'a> {
    pub(super) fn new(chain: &'a dyn Chain) -> Self {
        Self {
            chain,
            known: HashMap::new(),
        }
    }

    /// The id where nobody is known by it, or the ledger does not answer.
    pub(super) async fn of(&mut self, account: AccountId) -> String {
        if let Some(name) = self.known.get(&account) {
            return name.clone();
        }
        let name = match self.chain.get(&Key::Account(account)).await {
            Ok(Some(Value::Account(found))) => found.name.to_string(),
            Ok(_) | Err(_) => account.to_string(),
        };
        self.known.insert(account, name.clone());
        name
    }
}

/// The transaction at `index` of a block.
pub(super) async fn transaction(names: &mut Names<'_>, block: &FinalBlock, index: usize) -> Option<TransactionView> {
    let (signed, outcome) = (block.transactions.get(index)?, block.outcomes.get(index)?);
    let transaction = &signed.transaction;
    let kind = transaction.action.kind();
    let sender = names.of(transaction.sender).await;
    let summary = match &outcome.result {
        Ok(events) => format!("{sender}: {kind}, {}", summary::events(events)),
        Err(rejection) => format!("{sender}: {kind} was rejected, {rejection}"),
    };
    Some(TransactionView {
        id: outcome.id.0,
        kind: kind.to_owned(),
        height: block.height,
        index: u32::try_from(index).unwrap_or(u32::MAX),
        sender,
        nonce: Some(transaction.nonce),
        rejection: outcome.result.as_ref().err().map(|rejection| rejection.clone().into()),
        summary,
        body: serde_json::to_value(&transaction.action).unwrap_or_default(),
    })
}

pub(super) async fn account(names: &mut Names<'_>, id: AccountId, account: &Account, height: u64) -> AccountView {
    let held = account.roles;
    let roles = [
        (held.developer, Role::Developer),
        (held.provider, Role::Provider),
        (held.peer, Role::Peer),
        (held.controller, Role::Controller),
    ];
    let sponsor = match account.sponsor {
        Some(sponsor) => Some(names.of(sponsor).await),
        None => None,
    };
    let owner = match account.owner {
        Some(owner) => Some(names.of(owner).await),
        None => None,
    };
    AccountView {
        id,
        name: account.name.to_string(),
        key: account.key,
        roles: roles
            .into_iter()
            .filter_map(|(has, role)| has.then_some(role))
            .collect(),
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

pub(super) async fn offer(names: &mut Names<'_>, id: AccountId, offer: Offer) -> OfferView {
    OfferView {
        provider_id: id,
        provider: names.of(id).await,
        prices: offer.prices.into(),
        cores: offer.resources.cores,
        memory_bytes: offer.resources.memory_bytes,
        disk_bytes: offer.resources.disk_bytes,
        backends: offer.backends,
        region: offer.region,
        labels: offer.labels,
        expires_at_height: offer.expires_at_height,
        deposit_ucr: offer.deposit,
    }
}

pub(super) async fn lease(names: &mut Names<'_>, id: LeaseId, lease: Lease) -> LeaseView {
    let (state, expires_at_height) = match lease.state {
        LeaseState::Open => ("open", None),
        LeaseState::Draining { until_height } => ("draining", Some(until_height)),
        LeaseState::Closed => ("closed", None),
    };
    LeaseView {
        id,
        developer: names.of(lease.developer).await,
        function: match lease.subject {
            Subject::Function(function) => Some(function.to_string()),
            Subject::AnyFunction | Subject::Pod(_) => None,
        },
        provider: match lease.provider {
            Some(provider) => Some(names.of(provider).await),
            None => None,
        },
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
