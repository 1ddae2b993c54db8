//! `piecework peer card`: what others need to know about a peer.

use piecework_model::AccountId;

use super::{Place, card_of, local};
use crate::{failure::Failure, show, units};

/// Print this peer's card: what others need to know about it, nothing secret
#[derive(Debug, clap::Args)]
pub struct ShowCard {
    /// Id of the owner's account, if its key was replaced
    #[arg(long, value_name = "ID", value_parser = units::noun::<AccountId>)]
    account: Option<AccountId>,
    #[command(flatten)]
    place: Place,
}

impl ShowCard {
    /// With a request to join, once there is a network that does not name this peer from the start.
    pub fn run(self) -> Result<(), Failure> {
        let directory = self.place.directory()?;
        let (mut card, key) = card_of(&directory, &self.place.settings()?)?;
        if directory.join("genesis.json").exists() {
            let member = piecework_peer::member(&directory).map_err(local)?;
            if !member.is_founder() {
                let account = self.account.unwrap_or_else(|| AccountId::of(&card.owner_key));
                card.request(&key, member.genesis.network_id(), account);
            }
        }
        show::json(&card)
    }
}
