//! From the ledger's values to what the API shows.

use std::collections::HashMap;

use jiff::Timestamp;
use piecework_api::{
    accounts::AccountView,
    ledger::{LeaseView, OfferView, TransactionView},
};
use piecework_chain::{Chain, FinalBlock};
use piecework_ledger::{Account, Key, Lease, Offer, Value};
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

    /// The id if the account has no name or the ledger does not answer.
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

    async fn of_some(&mut self, account: Option<AccountId>) -> Option<String> {
        match account {
            Some(account) => Some(self.of(account).await),
            None => None,
        }
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
    let sponsor = names.of_some(account.sponsor).await;
    let owner = names.of_some(account.owner).await;
    AccountView::of(id, account, height, sponsor, owner)
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
    let developer = names.of(lease.developer).await;
    let provider = names.of_some(lease.provider).await;
    LeaseView::of(id, lease, developer, provider)
}
