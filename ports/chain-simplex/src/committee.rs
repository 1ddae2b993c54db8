//! Who votes: the genesis peers, their keys and addresses.

use std::net::{SocketAddr, ToSocketAddrs as _};

use bytes::Bytes;
use commonware_codec::DecodeExt as _;
use commonware_consensus::simplex::scheme::ed25519::Scheme;
use commonware_cryptography::ed25519::{PrivateKey, PublicKey};
use commonware_p2p::Address;
use commonware_utils::ordered::{Map, Set};
use piecework_ledger::GenesisPeer;
use piecework_model::{NetworkId, SecretKey};

use crate::ChainFailure;

/// Who takes part, by the genesis.
pub(crate) struct Committee {
    pub(crate) namespace: Vec<u8>,
    pub(crate) key: PrivateKey,
    pub(crate) members: Map<PublicKey, Address>,
}

impl Committee {
    pub(crate) fn new(
        network: NetworkId,
        key: &SecretKey,
        listen: SocketAddr,
        peers: &[GenesisPeer],
    ) -> Result<Self, ChainFailure> {
        let secret = PrivateKey::decode(Bytes::copy_from_slice(&key.to_seed())).map_err(|_| ChainFailure::NotAPeer)?;
        let mut members = Vec::with_capacity(peers.len());
        for peer in peers {
            let own = peer.key == key.public();
            members.push((public_key(peer)?, if own { listen.into() } else { address(peer)? }));
        }
        if !peers.iter().any(|peer| peer.key == key.public()) {
            return Err(ChainFailure::NotAPeer);
        }
        let members = members.try_into().map_err(|_| ChainFailure::Peer {
            peer: key.public().to_string(),
            detail: "a key appears twice".to_owned(),
        })?;
        Ok(Self {
            namespace: [b"piecework/1/consensus/".as_slice(), &network.0].concat(),
            key: secret,
            members,
        })
    }

    pub(crate) fn scheme(&self) -> Scheme {
        let members: Set<PublicKey> = self.members.keys().clone();
        Scheme::signer(&self.namespace, members, self.key.clone())
            .expect("Committee::new checked that the key is a member's")
    }

    /// The least key: the genesis block needs a leader's name, though nobody led there.
    pub(crate) fn first(&self) -> PublicKey {
        let first = self.members.keys().iter().next();
        first.expect("Committee::new checked that there is a member").clone()
    }

    pub(crate) fn len(&self) -> u32 {
        self.members.len() as u32
    }
}

fn public_key(peer: &GenesisPeer) -> Result<PublicKey, ChainFailure> {
    PublicKey::decode(Bytes::copy_from_slice(&peer.key.0)).map_err(|_| ChainFailure::Peer {
        peer: peer.key.to_string(),
        detail: "the key is no point of the curve".to_owned(),
    })
}

fn address(peer: &GenesisPeer) -> Result<Address, ChainFailure> {
    let failure = |detail: String| ChainFailure::Peer {
        peer: peer.key.to_string(),
        detail,
    };
    let mut found = peer
        .address
        .to_socket_addrs()
        .map_err(|error| failure(error.to_string()))?;
    let first = found
        .next()
        .ok_or_else(|| failure(format!("`{}` has no address", peer.address)))?;
    Ok(first.into())
}
