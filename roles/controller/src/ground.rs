//! The ground that every room stands on: what is outside, the operator's settings, and the end of it all. No state of the
//! controller's own lies here.

use std::sync::Arc;

use piecework_blobs::Blobs;
use piecework_chain::Chain;
use piecework_disk::Room;
use piecework_ledger::{Key, Value};
use piecework_model::{AccountId, NetworkId, PublicKey, SecretKey};
use piecework_store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Tuning, clock::Clock, events::Events, telemetry::Telemetry};

pub(crate) struct Ground {
    /// Signs tickets, acks and settlements.
    pub(crate) key: SecretKey,
    /// Its public half: the payer key and mailbox of leases.
    pub(crate) payer: PublicKey,
    /// The controller's account.
    pub(crate) account: AccountId,
    pub(crate) operator: AccountId,
    pub(crate) network: NetworkId,
    pub(crate) chain: Arc<dyn Chain>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) disk: Arc<dyn Room>,
    pub(crate) base_url: String,
    pub(crate) tuning: Tuning,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Telemetry,
    pub(crate) events: Events,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Ground {
    /// The account's name on the ledger, or its id if it has none.
    pub(crate) async fn account_name(&self, account: AccountId) -> String {
        match self.store.user_by_account(account).await {
            Ok(Some(user)) => user.name.to_string(),
            Ok(None) | Err(_) => match self.chain.get(&Key::Account(account)).await {
                Ok(Some(Value::Account(found))) => found.name.to_string(),
                Ok(_) | Err(_) => account.to_string(),
            },
        }
    }

    pub(crate) async fn name_of(&self, account: Option<AccountId>) -> Option<String> {
        match account {
            Some(account) => Some(self.account_name(account).await),
            None => None,
        }
    }
}
