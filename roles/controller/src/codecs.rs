//! Small values in the store's key-value space: leases by developer, invites, statement lines. Each begins with its version;
//! version 0, without one, has the fields of version 1.

use borsh::BorshDeserialize;
use piecework_model::{AccountId, Code, Format, LeaseId, NetworkId};
use piecework_store::Put;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Answer,
    failure::{failed, refuse, store},
    ground::Ground,
};

/// Of all values that the controller keeps under a name. A type that changes beyond what serde's defaults cover raises the
/// number, and reads what has a lower one as it was.
const VALUE: Format = Format::new("value kept by the controller", 1);

/// Where a developer's lease is remembered: account -> lease id.
const LEASES: &str = "lease";

/// Which lease a developer's runs are paid from.
pub(crate) fn lease_of(developer: AccountId, lease: LeaseId) -> Answer<Put> {
    json(LEASES, &developer.to_string(), &lease)
}

/// Keeps a value on its own; those of a block of the ledger go together, see [`piecework_store::Projected`].
pub(crate) async fn keep(ground: &Ground, put: &Put) -> Answer<()> {
    let kept = ground.store.put_value(&put.space, &put.key, &put.value);
    kept.await.map_err(store)
}

pub(crate) async fn remembered_lease(ground: &Ground, developer: AccountId) -> Answer<Option<LeaseId>> {
    let bytes = ground
        .store
        .value(LEASES, &developer.to_string())
        .await
        .map_err(store)?;
    let Some(bytes) = bytes else { return Ok(None) };
    match <[u8; 20]>::try_from(&bytes[..]) {
        Ok(version_0) => Ok(Some(LeaseId(version_0))),
        Err(_) => from_json(&bytes).map(Some),
    }
}

/// Developers whose lease is remembered.
pub(crate) async fn with_leases(ground: &Ground) -> Answer<Vec<AccountId>> {
    const PAGE: u32 = 1_000;
    let (mut developers, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = ground.store.list_values(LEASES, "", after.as_deref(), PAGE);
        let page = page.await.map_err(store)?;
        developers.extend(page.items.iter().filter_map(|(key, _)| key.parse::<AccountId>().ok()));
        after = page.next;
        if after.is_none() {
            return Ok(developers);
        }
    }
}

/// Notes whose ledger this store goes with, at the first start; refuses to go on with another's: leases, payments and the
/// place in the blocks would be of a ledger that is not there.
pub(crate) async fn check_network(ground: &Ground) -> Answer<()> {
    const SPACE: &str = "network";
    let known = ground.store.value(SPACE, SPACE).await.map_err(store)?;
    let known = match known.map(|bytes| (<[u8; 32]>::try_from(&bytes[..]), bytes)) {
        Some((Ok(version_0), _)) => Some(NetworkId(version_0)),
        Some((Err(_), bytes)) => Some(from_json(&bytes)?),
        None => None,
    };
    let now = ground.network;
    match known {
        Some(known) if known == now => Ok(()),
        Some(_) => refuse(
            Code::LedgerOtherNetwork,
            "the store belongs to another ledger than the one that was started; restore what was moved or deleted, \
             or move the whole directory away to start over",
        ),
        None => put_json(ground, SPACE, SPACE, &now).await,
    }
}

/// Keeps a value as JSON.
pub(crate) async fn put_json<T: Serialize>(ground: &Ground, space: &str, key: &str, value: &T) -> Answer<()> {
    keep(ground, &json(space, key, value)?).await
}

/// A value as JSON, to be kept.
pub(crate) fn json<T: Serialize>(space: &str, key: &str, value: &T) -> Answer<Put> {
    Ok(Put {
        space: space.to_owned(),
        key: key.to_owned(),
        value: to_json(value)?,
    })
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Answer<Vec<u8>> {
    let mut bytes = VALUE.prefix().to_vec();
    serde_json::to_writer(&mut bytes, value).map_err(|error| failed("encode a value", &error))?;
    Ok(bytes)
}

/// Takes JSON without a version as well: what a job's record holds has that of the record.
pub(crate) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    let (_, json) = VALUE
        .split(bytes)
        .map_err(|unknown| failed("decode a value", &unknown))?;
    serde_json::from_slice(json).map_err(|error| failed("decode a value", &error))
}

/// A text. Version 0 is the text itself, not JSON.
pub(crate) fn from_text(bytes: &[u8]) -> Answer<String> {
    match VALUE.split(bytes) {
        Ok((0, text)) => Ok(String::from_utf8_lossy(text).into_owned()),
        Ok(_) | Err(_) => from_json(bytes),
    }
}

/// A value from the hex of its canonical bytes, as signed transactions travel in JSON; `None` for anything but one whole
/// value.
pub(crate) fn from_hex<T: BorshDeserialize>(text: &str) -> Option<T> {
    borsh::from_slice(&hex::decode(text).ok()?).ok()
}
