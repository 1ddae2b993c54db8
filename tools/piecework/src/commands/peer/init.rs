//! `piecework peer init`: keys and settings.

use std::net::SocketAddr;

use piecework_model::OwnerName;

use super::{Place, card_of, owner_key_path};
use crate::{
    compose,
    failure::Failure,
    keyfile,
    settings::{self, PeerSettings},
    show, units,
};

/// Make the keys and the settings of a new peer
#[derive(Debug, clap::Args)]
pub struct Init {
    /// The account that votes for the peer and gets its share
    #[arg(long, value_name = "NAME", value_parser = units::noun::<OwnerName>)]
    owner: OwnerName,
    /// Under which the other peers reach it, like peer.example.org:7440
    #[arg(long, value_name = "HOST:PORT")]
    address: String,
    /// Where it listens for the other peers
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7440")]
    listen: SocketAddr,
    /// Where its HTTP API listens, for controllers and for people
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7441")]
    api: SocketAddr,
    #[command(flatten)]
    place: Place,
}

const HEAD: &str = "\
# A ledger peer's settings; `piecework peer config show` prints all that is in force.
# `heartbeat_ms` must be the same at all peers of a network.
";

impl Init {
    /// Prints the card; an owner's key that lies in the directory already is kept.
    pub fn run(self) -> Result<(), Failure> {
        let directory = self.place.directory()?;
        compose::make_private(&directory)?;
        let settings = PeerSettings::new(self.owner, self.address, self.listen, self.api);
        let path = settings::path::<PeerSettings>(&directory, self.place.config.as_deref());
        settings::write(&path, &settings, HEAD)?;
        keyfile::existing_or_new(&owner_key_path(&directory))?;
        let (card, _) = card_of(&directory, &settings)?;
        eprintln!("the settings are in {}; this is the peer's card:", path.display());
        show::json(&card)
    }
}
