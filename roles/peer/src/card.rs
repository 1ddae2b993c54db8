//! A peer's card for the others: its owner, keys and address.

use piecework_ledger::{AddPeer, Change, GenesisPeer};
use piecework_model::{AccountId, Code, Domain, NetworkId, OwnerName, PublicKey, Rejection, SecretKey, Signature};
use serde::{Deserialize, Serialize};

/// A peer's data for a genesis file or for voting it in. Contains no secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    pub owner: OwnerName,
    /// Of the owner's account.
    pub owner_key: PublicKey,
    /// The consensus key.
    pub peer_key: PublicKey,
    /// `host:port` that other peers will dial.
    pub address: String,
    /// For a running network; a genesis file needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

/// The peer's own signed request to join, for this owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub network: NetworkId,
    pub account: AccountId,
    /// By the consensus key over the account ([`AddPeer::proof`]).
    pub proof: Signature,
}

impl Card {
    /// Without a request.
    pub fn new(owner: OwnerName, owner_key: PublicKey, peer_key: PublicKey, address: String) -> Self {
        Self {
            owner,
            owner_key,
            peer_key,
            address,
            request: None,
        }
    }

    /// Asks to be taken into `network`, for the owner's account there.
    pub fn request(&mut self, key: &SecretKey, network: NetworkId, account: AccountId) {
        self.request = Some(Request {
            network,
            account,
            proof: key.sign(Domain::Owner, &network, &account),
        });
    }

    /// The peer's line of a genesis file.
    pub fn genesis_peer(&self) -> GenesisPeer {
        GenesisPeer {
            key: self.peer_key,
            owner: self.owner.clone(),
            address: self.address.clone(),
        }
    }

    /// What the peers of `network` vote on. Rejects with `card.no_request` and `card.other_network`.
    pub fn change(&self, network: NetworkId) -> Result<Change, Rejection> {
        let Some(request) = &self.request else {
            return Err(Rejection::new(
                Code::CardNoRequest,
                "the card contains no request to join a running network",
            )
            .hint("the peer's owner must create a new card with `piecework peer card` after `piecework peer join`"));
        };
        if request.network != network {
            return Err(Rejection::new(
                Code::CardOtherNetwork,
                format!(
                    "the card is for network {}, but this network is {network}",
                    request.network
                ),
            )
            .hint("the peer's owner must join this network and create a new card"));
        }
        Ok(Change::AddPeer(AddPeer {
            key: self.peer_key,
            owner: request.account,
            address: self.address.clone(),
            proof: request.proof,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> (Card, SecretKey) {
        let (owner, peer) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
        let name = "ada".parse().expect("a name");
        (
            Card::new(name, owner.public(), peer.public(), "ada.example.org:7440".to_owned()),
            peer,
        )
    }

    #[test]
    fn a_card_is_for_one_network() {
        let (mut card, peer) = card();
        let (here, elsewhere) = (NetworkId([1; 32]), NetworkId([2; 32]));
        assert_eq!(
            card.change(here).expect_err("it asks for nothing").code,
            Code::CardNoRequest
        );
        card.request(&peer, here, AccountId::of(&card.owner_key));
        assert_eq!(
            card.change(elsewhere).expect_err("another network").code,
            Code::CardOtherNetwork
        );
        let Change::AddPeer(add) = card.change(here).expect("asked for") else {
            panic!("it adds a peer");
        };
        let proven = add.key.verify(Domain::Owner, &here, &add.owner, &add.proof);
        proven.expect("by the peer's key");
    }

    #[test]
    fn a_card_is_read_as_it_was_written_and_nothing_else_is() {
        let (card, _) = card();
        let text = serde_json::to_string(&card).expect("written");
        assert_eq!(serde_json::from_str::<Card>(&text).expect("read"), card);
        let more = text.replacen('{', "{\"admin\":true,", 1);
        serde_json::from_str::<Card>(&more).expect_err("an unknown field");
    }
}
