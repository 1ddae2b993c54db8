//! `piecework peer join`: installs a network's genesis file.

use std::time::Duration;

use piecework_chain_http::remote;
use piecework_ledger::Roles;
use piecework_peer::membership;

use super::{Place, card_of, fetch_genesis, local, not_taken, unreachable};
use crate::{failure::Failure, show};

/// Install a network's genesis file; on a running network, also register the owner's account
#[derive(Debug, clap::Args)]
pub struct Join {
    /// Genesis file, or the URL of a peer that serves it
    #[arg(value_name = "FILE|URL")]
    genesis: String,
    /// Network id, from a source that you trust; required with a URL
    #[arg(long, value_name = "ID")]
    network: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// The peer was named by whoever joins: it answers soon or not at all.
const PATIENCE: Duration = Duration::from_secs(10);

impl Join {
    pub async fn run(self) -> Result<(), Failure> {
        let directory = self.place.directory()?;
        let settings = self.place.settings()?;
        let genesis = fetch_genesis(&self.genesis, self.network.as_deref()).await?;
        let member = piecework_peer::join(&directory, &genesis).map_err(local)?;
        let network = genesis.network_id();
        eprintln!("{} belongs to network {network}", directory.display());
        if member.is_founder() {
            eprintln!("it is one of the first peers; start it with `piecework peer run`");
            return Ok(());
        }
        let (mut card, key) = card_of(&directory, &settings)?;
        let mut account = piecework_model::AccountId::of(&card.owner_key);
        if self.genesis.starts_with("http") {
            let mut options = remote::Options::new(vec![self.genesis.clone()], genesis);
            options.patience = PATIENCE;
            let chain = remote::connect(options).await.map_err(unreachable)?;
            let owner = crate::keyfile::existing(&super::owner_key_path(&directory))?;
            let roles = Roles {
                peer: true,
                ..Roles::default()
            };
            account = membership::enrol(&*chain, &owner, &settings.owner, roles)
                .await
                .map_err(not_taken)?;
            eprintln!("the account `{}` is on the ledger", settings.owner);
        }
        card.request(&key, network, account);
        eprintln!(
            "the other peers must vote it in: send them this card for `piecework peer propose add CARD`;\n\
             when they have, start it with `piecework peer run`"
        );
        show::json(&card)
    }
}
