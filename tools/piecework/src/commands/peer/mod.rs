//! `piecework peer`: run a ledger peer, and vote on the others.

mod card;
mod genesis;
mod init;
mod join;
mod membership;
mod run;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use piecework_chain::{ChainFailure, SubmitError};
use piecework_ledger::Genesis;
use piecework_model::SecretKey;
use piecework_peer::{Card, PeerFailure};

use crate::{
    failure::Failure,
    keyfile, places,
    settings::{self, PeerSettings},
    show,
};

/// Run a ledger peer, together with others
#[derive(Debug, clap::Args)]
pub struct Peer {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Init(init::Init),
    Card(card::ShowCard),
    Genesis(genesis::MakeGenesis),
    Join(join::Join),
    Run(run::Run),
    /// Show the settings
    Config {
        #[command(subcommand)]
        action: Config,
    },
    Proposals(membership::Proposals),
    Propose(membership::Propose),
    Vote(membership::Vote),
}

#[derive(Debug, clap::Subcommand)]
enum Config {
    /// Print all settings in force, including defaults
    Show {
        #[command(flatten)]
        place: Place,
    },
    /// Check the settings file, and print its path if it is sound
    Check {
        #[command(flatten)]
        place: Place,
    },
}

impl Peer {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        match self.action {
            Action::Init(command) => command.run(),
            Action::Card(command) => command.run(),
            Action::Genesis(command) => command.run(),
            Action::Join(command) => command.run().await,
            Action::Run(command) => command.run().await,
            Action::Config {
                action: Config::Show { place },
            } => show::text(&settings::text(&place.settings()?)?),
            Action::Config {
                action: Config::Check { place },
            } => settings::check::<PeerSettings>(&place.directory()?, place.config.as_deref()),
            Action::Proposals(command) => command.run(json).await,
            Action::Propose(command) => command.run().await,
            Action::Vote(command) => command.run().await,
        }
    }
}

/// Whose directory and which settings.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// Data directory with keys, settings and the ledger [default: piecework-peer in the user's data directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Settings file [default: peer.toml in DIR]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    pub fn directory(&self) -> Result<PathBuf, Failure> {
        match &self.data {
            Some(directory) => Ok(directory.clone()),
            None => Ok(places::default_role_dir("peer")?),
        }
    }

    pub fn settings(&self) -> Result<PeerSettings, Failure> {
        settings::read(&settings::path::<PeerSettings>(
            &self.directory()?,
            self.config.as_deref(),
        ))
    }
}

/// The owner's key beside the peer's own: it votes and gets the peer's share.
fn owner_key_path(directory: &Path) -> PathBuf {
    directory.join("owner.key")
}

/// What others need to know of the peer in `directory`; asks to join where a genesis file does not name it.
fn card_of(directory: &Path, settings: &PeerSettings) -> Result<(Card, SecretKey), Failure> {
    let owner = keyfile::existing(&owner_key_path(directory))?;
    let key = piecework_peer::peer_key(directory).map_err(local)?;
    let card = Card::new(
        settings.owner.clone(),
        owner.public(),
        key.public(),
        settings.address.clone(),
    );
    Ok((card, key))
}

fn local(failure: PeerFailure) -> Failure {
    Failure::Local(failure.into())
}

fn unreachable(failure: ChainFailure) -> Failure {
    match failure {
        ChainFailure::Unreachable { detail } => Failure::NoConnection {
            url: String::new(),
            reason: detail,
        },
        other => Failure::Local(other.into()),
    }
}

/// The ledger's no is a refusal; all else is the world's.
fn not_taken(error: SubmitError) -> Failure {
    match error {
        SubmitError::Rejected(rejection) => Failure::Refused {
            refusal: Box::new(rejection.into()),
            retry_after: None,
        },
        SubmitError::Failed(failure) => unreachable(failure),
    }
}

/// A genesis file, or the one that a peer shows; then only if it is that of `network`, which somebody who is trusted
/// said.
pub async fn fetch_genesis(source: &str, network: Option<&str>) -> Result<Genesis, Failure> {
    let is_url = source.starts_with("http://") || source.starts_with("https://");
    let genesis = match is_url {
        true => {
            let client = piecework_api::Client::new(source, None)?;
            let shown = client.ledger_genesis().await?;
            serde_json::from_value(shown).context("the peer did not send a valid genesis file")?
        }
        false => piecework_peer::read_genesis(Path::new(source)).map_err(local)?,
    };
    let id = genesis.network_id().to_string();
    match network {
        Some(wanted) if wanted == id => Ok(genesis),
        Some(wanted) => Err(Failure::usage(format!(
            "{source} has the genesis of network {id}, not of {wanted}"
        ))),
        None if is_url => Err(Failure::usage(format!(
            "{source} belongs to network {id}\n  if its operators told you this id over another channel, repeat the command with --network {id}"
        ))),
        None => Ok(genesis),
    }
}
