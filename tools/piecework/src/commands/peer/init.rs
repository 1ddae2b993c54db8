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

/// Create the keys and settings of a new peer
#[derive(Debug, clap::Args)]
pub struct Init {
    /// Name of the account that votes for the peer and receives its share
    #[arg(long, value_name = "NAME", value_parser = units::noun::<OwnerName>)]
    owner: OwnerName,
    /// Address at which the other peers reach this one, like peer.example.org:7440
    #[arg(long, value_name = "HOST:PORT")]
    address: String,
    /// Listen address for the other peers
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7440")]
    listen: SocketAddr,
    /// Listen address of the HTTP API, for controllers and people
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7441")]
    api: SocketAddr,
    #[command(flatten)]
    place: Place,
}

const HEAD: &str = "\
# Settings of a ledger peer; `piecework peer config show` prints all settings in force.
# `heartbeat_ms` must be the same on all peers of a network.
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
        eprintln!("settings are in {}; the peer's card:", path.display());
        show::json(&card)
    }
}
