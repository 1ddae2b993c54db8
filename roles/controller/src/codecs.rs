//! Small values in the store's key-value space: leases by developer, invites, statement lines.

use borsh::BorshDeserialize;
use piecework_model::{AccountId, LeaseId};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Answer, Controller,
    failure::{failed, refuse, store},
};

/// Where a developer's lease is remembered: account -> lease id.
const LEASES: &str = "lease";

pub(crate) async fn remember_lease(controller: &Controller, developer: AccountId, lease: LeaseId) -> Answer<()> {
    controller
        .store
        .put_value(LEASES, &developer.to_string(), &lease.0)
        .await
        .map_err(store)
}

pub(crate) async fn remembered_lease(controller: &Controller, developer: AccountId) -> Answer<Option<LeaseId>> {
    let bytes = controller
        .store
        .value(LEASES, &developer.to_string())
        .await
        .map_err(store)?;
    Ok(bytes.and_then(|bytes| <[u8; 20]>::try_from(bytes).ok()).map(LeaseId))
}

/// Notes whose ledger this store goes with, at the first start; refuses to go on with another's: leases, payments and the
/// place in the blocks would be of a ledger that is not there.
pub(crate) async fn check_network(controller: &Controller) -> Answer<()> {
    const SPACE: &str = "network";
    let (known, now) = (
        controller.store.value(SPACE, SPACE).await.map_err(store)?,
        controller.network.0,
    );
    match known {
        Some(known) if known == now => Ok(()),
        Some(_) => refuse(
            "ledger.other_network",
            "the store belongs to another ledger than the one that was started; restore what was moved or deleted, \
             or move the whole directory away to start over",
        ),
        None => controller.store.put_value(SPACE, SPACE, &now).await.map_err(store),
    }
}

/// Keeps a value as JSON.
pub(crate) async fn put_json<T: Serialize>(controller: &Controller, space: &str, key: &str, value: &T) -> Answer<()> {
    let bytes = serde_json::to_vec(value).map_err(|error| failed("encode a value", &error))?;
    controller.store.put_value(space, key, &bytes).await.map_err(store)
}

pub(crate) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    serde_json::from_slice(bytes).map_err(|error| failed("decode a value", &error))
}

/// A value from the hex of its canonical bytes, as signed transactions travel in JSON; `None` for anything but one whole
/// value.
pub(crate) fn from_hex<T: BorshDeserialize>(text: &str) -> Option<T> {
    borsh::from_slice(&hex::decode(text).ok()?).ok()
}
