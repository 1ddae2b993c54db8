//! Who takes part: keys and addresses as the genesis and the ledger name them, and what consensus makes of them.

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::Bytes;
use commonware_codec::DecodeExt as _;
use commonware_consensus::simplex::scheme::ed25519::Scheme;
use commonware_cryptography::{
    Signer as _,
    ed25519::{PrivateKey, PublicKey},
};
use commonware_p2p::{Address, Ingress};
use commonware_utils::{
    Hostname,
    ordered::{Map, Set},
};
use piecework_ledger::{GenesisPeer, Peer};
use piecework_model::{NetworkId, SecretKey};

use crate::{ChainFailure, Contact};

/// A peer as the others reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) key: piecework_model::PublicKey,
    /// `host:port`
    pub(crate) address: String,
}

impl From<&GenesisPeer> for Member {
    fn from(peer: &GenesisPeer) -> Self {
        Self {
            key: peer.key,
            address: peer.address.clone(),
        }
    }
}

impl From<&Peer> for Member {
    fn from(peer: &Peer) -> Self {
        Self {
            key: peer.key,
            address: peer.address.clone(),
        }
    }
}

impl From<Contact> for Member {
    fn from(contact: Contact) -> Self {
        Self {
            key: contact.key,
            address: contact.address,
        }
    }
}

/// What a peer does in an epoch whose peers it is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Votes,
    Follows,
}

/// This peer's own key, and the domain of all its votes.
#[derive(Clone)]
pub struct Identity {
    pub namespace: Vec<u8>,
    pub key: PrivateKey,
}

impl Identity {
    pub fn new(network: NetworkId, key: &SecretKey) -> Result<Self, ChainFailure> {
        let key = PrivateKey::decode(Bytes::copy_from_slice(&key.to_seed())).map_err(|_| ChainFailure::NotAPeer)?;
        Ok(Self {
            namespace: [b"piecework/1/consensus/".as_slice(), &network.0].concat(),
            key,
        })
    }

    pub fn public(&self) -> PublicKey {
        self.key.public_key()
    }

    /// Signs where the key is a member's that votes; else only verifies.
    pub(crate) fn scheme(&self, members: &[Member], part: Part) -> Result<Scheme, ChainFailure> {
        let keys = members.iter().map(public_key).collect::<Result<Vec<_>, _>>()?;
        let set: Set<PublicKey> = keys.try_into().map_err(|_| ChainFailure::Peer {
            peer: members.first().map(|member| member.key.to_string()).unwrap_or_default(),
            detail: "a key appears twice".to_owned(),
        })?;
        let signer = match part {
            Part::Votes => Scheme::signer(&self.namespace, set.clone(), self.key.clone()),
            Part::Follows => None,
        };
        Ok(signer.unwrap_or_else(|| Scheme::verifier(&self.namespace, set)))
    }
}

pub(crate) fn public_key(member: &Member) -> Result<PublicKey, ChainFailure> {
    PublicKey::decode(Bytes::copy_from_slice(&member.key.0)).map_err(|_| ChainFailure::Peer {
        peer: member.key.to_string(),
        detail: "the key is no point of the curve".to_owned(),
    })
}

pub(crate) fn contains(members: &[Member], key: &PublicKey) -> bool {
    members.iter().any(|member| member.key.0 == key.as_ref())
}

/// The least key: the genesis block needs a leader's name, though nobody led there.
pub(crate) fn least(members: &[Member]) -> Result<PublicKey, ChainFailure> {
    let keys = members.iter().map(public_key).collect::<Result<Vec<_>, _>>()?;
    keys.into_iter().min().ok_or_else(|| ChainFailure::Peer {
        peer: String::new(),
        detail: "the network has no peer".to_owned(),
    })
}

/// Where to dial the members. Names are looked up when dialled. A later mention of a key wins; an address that nobody could
/// dial leaves its peer out, which then has to dial the others.
pub(crate) fn addresses<'a>(
    members: impl Iterator<Item = &'a Member>,
    own: &PublicKey,
    listen: SocketAddr,
) -> Map<PublicKey, Address> {
    let mut found = BTreeMap::new();
    for member in members {
        let Ok(key) = public_key(member) else { continue };
        let address = if key == *own {
            Some(listen.into())
        } else {
            address(&member.address)
        };
        match address {
            Some(address) => {
                found.insert(key, address);
            }
            None => tracing::warn!(peer = %member.key, address = %member.address, "a peer's address cannot be used"),
        }
    }
    Map::from_iter_dedup(found)
}

fn address(text: &str) -> Option<Address> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(socket.into());
    }
    let (host, port) = text.rsplit_once(':')?;
    Some(Address::Asymmetric {
        ingress: Ingress::Dns {
            host: Hostname::try_from(host).ok()?,
            port: port.parse().ok()?,
        },
        // Not looked at: the handshake proves who they are, wherever they come from.
        egress: SocketAddr::from(([0, 0, 0, 0], 0)),
    })
}
