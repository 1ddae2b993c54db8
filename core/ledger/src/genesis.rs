//! Where a network begins: its first peers, parameters and grants. The only place where credits come from.

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::{AccountId, Credits, Digest, NetworkId, OwnerName, PublicKey, Rejection, Roles};
use serde::{Deserialize, Serialize};

use crate::{
    bounds::JOBS_PER_SETTLEMENT_MAX,
    rejections::{
        genesis_bad_grant, genesis_bad_params, genesis_duplicate, genesis_no_peer, genesis_too_large,
        genesis_unknown_owner,
    },
    state::{Account, Changes, Committee, Key, Params, Peer, Pools, Value},
};

/// All credits that there are: so far below 2^127 that no sum of balances, nor one times a commission, leaves its range.
pub const SUPPLY_UCR_MAX: i128 = 1 << 96;
/// A fifth: a community that takes more is not one.
const COMMISSION_PPM_MAX: u32 = 200_000;
/// Eleven days of blocks of a second: budgets must come back some day.
const WINDOW_BLOCKS_MAX: u32 = 1_000_000;
/// What a block of a few megabytes holds of the smallest transactions.
const TRANSACTIONS_PER_BLOCK_MAX: u32 = 100_000;
/// A lane is read and written whole with every settlement: 16 bytes an interval.
const LANE_INTERVALS_MAX: u32 = 10_000;
/// Consensus is all to all; two whole sets of peers with long addresses stay below half a megabyte.
pub(crate) const PEERS_MAX: usize = 500;
/// Long enough to reach and catch up with new peers, short enough that a change comes within a day of blocks of a second.
const EPOCH_BLOCKS: (u32, u32) = (4, 50_000);
/// The file is read by people and loaded whole.
const GRANTS_MAX: usize = 100_000;
/// A network's name, or a host name (253) with a port.
pub(crate) const TEXT_BYTES_MAX: usize = 260;

/// The file that all peers of a network share; its digest is the network's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// For people; part of the id.
    pub network_name: String,
    pub created_at_ms: u64,
    pub params: Params,
    pub peers: Vec<GenesisPeer>,
    pub grants: Vec<Grant>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisPeer {
    /// The consensus key.
    pub key: PublicKey,
    /// The account that the peer's share goes to; one of `grants`.
    pub owner: OwnerName,
    /// `host:port` of the peer-to-peer listener.
    pub address: String,
}

/// An account that exists from the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    pub name: OwnerName,
    pub key: PublicKey,
    pub roles: Roles,
    pub amount: Credits,
}

impl Genesis {
    pub fn network_id(&self) -> NetworkId {
        NetworkId(Digest::of_value("piecework 2026 network id", self).0)
    }

    /// The state before block 1. Rejects duplicate names or keys, negative grants, params out of bounds, unknown owners,
    /// each with a `genesis.*` code.
    pub fn state(&self) -> Result<Changes, Rejection> {
        check_size(self)?;
        check_params(&self.params)?;
        let mut state = Changes::new();
        state.insert(Key::Params, Some(Value::Params(self.params.clone())));
        state.insert(Key::Pools, Some(Value::Pools(Pools::default())));
        put_grants(&mut state, &self.grants)?;
        let committee = committee(&state, &self.peers)?;
        state.insert(Key::Committee, Some(Value::Committee(committee)));
        Ok(state)
    }
}

fn check_size(genesis: &Genesis) -> Result<(), Rejection> {
    let at_most = |field: &'static str, length: usize, max: usize| match length > max {
        true => Err(genesis_too_large().field(field).hint(format!("at most {max}"))),
        false => Ok(()),
    };
    at_most("network_name", genesis.network_name.len(), TEXT_BYTES_MAX)?;
    at_most("peers", genesis.peers.len(), PEERS_MAX)?;
    at_most("grants", genesis.grants.len(), GRANTS_MAX)?;
    let longest = genesis.peers.iter().map(|peer| peer.address.len()).max();
    at_most("address", longest.unwrap_or(0), TEXT_BYTES_MAX)
}

/// Rejects with `genesis.bad_params`; also for parameters that are voted in.
pub(crate) fn check_params(params: &Params) -> Result<(), Rejection> {
    let within = |field: &'static str, value: u32, (least, most): (u32, u32)| match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(genesis_bad_params()
            .field(field)
            .hint(format!("between {least} and {most}"))),
    };
    within("commission_ppm", params.commission_ppm, (0, COMMISSION_PPM_MAX))?;
    within("window_blocks", params.window_blocks, (1, WINDOW_BLOCKS_MAX))?;
    within(
        "jobs_per_settlement_max",
        params.jobs_per_settlement_max,
        (1, JOBS_PER_SETTLEMENT_MAX),
    )?;
    within(
        "transactions_per_block_max",
        params.transactions_per_block_max,
        (1, TRANSACTIONS_PER_BLOCK_MAX),
    )?;
    within("lane_intervals_max", params.lane_intervals_max, (1, LANE_INTERVALS_MAX))?;
    within("epoch_blocks", params.epoch_blocks, EPOCH_BLOCKS)?;
    if (0..=SUPPLY_UCR_MAX).contains(&params.offer_deposit.0) {
        Ok(())
    } else {
        Err(genesis_bad_params()
            .field("offer_deposit")
            .hint("zero or more, up to 2^96 ucr"))
    }
}

fn put_grants(state: &mut Changes, grants: &[Grant]) -> Result<(), Rejection> {
    let mut supply = 0i128;
    for grant in grants {
        if !(0..=SUPPLY_UCR_MAX).contains(&grant.amount.0) {
            return Err(genesis_bad_grant().hint(format!("the grant of `{}`", grant.name)));
        }
        supply += grant.amount.0;
        if supply > SUPPLY_UCR_MAX {
            return Err(genesis_bad_grant().hint("the sum is too large"));
        }
        let id = AccountId::of(&grant.key);
        put_once(state, Key::Name(grant.name.clone()), Value::Name(id))?;
        put_once(state, Key::Account(id), Value::Account(granted(grant)))?;
    }
    Ok(())
}

fn granted(grant: &Grant) -> Account {
    Account {
        key: grant.key,
        name: grant.name.clone(),
        posted: grant.amount,
        held: Credits::ZERO,
        limit: Credits::ZERO,
        sponsor: None,
        owner: None,
        roles: grant.roles,
        nonce: 0,
        mismatches: 0,
    }
}

/// Rejects with `genesis.no_peer`, `genesis.unknown_owner` or `genesis.duplicate`.
fn committee(state: &Changes, listed: &[GenesisPeer]) -> Result<Committee, Rejection> {
    if listed.is_empty() {
        return Err(genesis_no_peer());
    }
    let mut peers = Vec::with_capacity(listed.len());
    for peer in listed {
        let owner = match state.get(&Key::Name(peer.owner.clone())) {
            Some(Some(Value::Name(account))) => *account,
            Some(_) | None => return Err(genesis_unknown_owner().hint(format!("`{}`", peer.owner))),
        };
        peers.push(Peer {
            key: peer.key,
            owner,
            address: peer.address.clone(),
            since_height: 0,
        });
    }
    peers.sort_by_key(|peer| peer.key);
    match peers.windows(2).find(|pair| pair[0].key == pair[1].key) {
        Some(pair) => Err(genesis_duplicate().hint(format!("the peer {}", pair[0].key))),
        None => Ok(Committee { peers, next: None }),
    }
}

fn put_once(state: &mut Changes, key: Key, value: Value) -> Result<(), Rejection> {
    let hint = format!("{key:?}");
    match state.insert(key, Some(value)) {
        None => Ok(()),
        Some(_) => Err(genesis_duplicate().hint(hint)),
    }
}
