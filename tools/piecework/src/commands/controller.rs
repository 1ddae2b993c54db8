//! `piecework controller`: a controller without a ledger peer of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context as _;
use piecework_ledger::Genesis;
use piecework_model::OwnerName;

use crate::{
    commands::{peer::fetch_genesis, up::stopped},
    compose::{self, ControllerKeys},
    failure::Failure,
    places,
    settings::{self, ControllerSettings},
    show, units,
};

/// Run a controller that uses a ledger kept by other peers
#[derive(Debug, clap::Args)]
pub struct Controller {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Init(Init),
    /// Install the genesis file of the network that the controller belongs to
    Join {
        /// Genesis file, or the URL of a peer that serves it
        #[arg(value_name = "FILE|URL")]
        genesis: String,
        /// Network id, from a source that you trust; required with a URL
        #[arg(long, value_name = "ID")]
        network: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Copy the controller into a new directory; it may run meanwhile
    Backup {
        /// Directory of the copy, new or empty; it holds keys, so keep it private
        to: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Restore a backup into a new data directory; never run the original controller again
    Restore {
        /// Directory of the backup
        from: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Run the controller
    Run {
        #[command(flatten)]
        place: Place,
    },
    /// Show the settings
    Config {
        #[command(subcommand)]
        action: Config,
    },
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

/// Create the keys and settings of a new controller
#[derive(Debug, clap::Args)]
struct Init {
    /// HTTP API of a ledger peer; repeat for several: if one fails, the next is used
    #[arg(long = "peer", value_name = "URL", required = true)]
    peers: Vec<String>,
    /// Genesis file of the network, or the URL of a peer that serves it
    #[arg(long, value_name = "FILE|URL")]
    genesis: Option<String>,
    /// Network id, from a source that you trust; required with a URL
    #[arg(long, value_name = "ID", requires = "genesis")]
    network: Option<String>,
    /// Name of the controller's account on the ledger
    #[arg(long, default_value = "controller", value_parser = units::noun::<OwnerName>)]
    name: OwnerName,
    /// Name of the operator's account
    #[arg(long, value_name = "NAME", default_value = "operator", value_parser = units::noun::<OwnerName>)]
    operator: OwnerName,
    /// Listen address
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7433")]
    listen: SocketAddr,
    /// Public URL, if different from the listen address
    #[arg(long, default_value = "")]
    url: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Data directory [default: piecework-controller in the user's data directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Settings file [default: controller.toml in DIR]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    fn directory(&self) -> Result<PathBuf, Failure> {
        match &self.data {
            Some(directory) => Ok(directory.clone()),
            None => Ok(places::default_role_dir("controller")?),
        }
    }

    fn settings(&self) -> Result<ControllerSettings, Failure> {
        let directory = self.directory()?;
        settings::read(&settings::path::<ControllerSettings>(
            &directory,
            self.config.as_deref(),
        ))
    }
}

impl Controller {
    pub async fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Init(init) => init.run().await,
            Action::Join {
                genesis,
                network,
                place,
            } => join(&genesis, network.as_deref(), &place).await,
            Action::Backup { to, place } => {
                compose::back_up(&place.directory()?, &to).await?;
                show::text(&format!("{}\n", to.display()))
            }
            Action::Restore { from, place } => {
                let directory = place.directory()?;
                let made_at = compose::restore(&from, &directory).await?;
                eprintln!(
                    "{} is as it was at {}; what to check before `piecework controller run` is in docs/operating-a-ledger.md",
                    directory.display(),
                    show::time(made_at)
                );
                Ok(())
            }
            Action::Run { place } => run(&place).await,
            Action::Config {
                action: Config::Show { place },
            } => show::text(&settings::text(&place.settings()?)?),
            Action::Config {
                action: Config::Check { place },
            } => settings::check::<ControllerSettings>(&place.directory()?, place.config.as_deref()),
        }
    }
}

const HEAD: &str = "\
# Settings of a controller; `piecework controller config show` prints all settings in force.
";

impl Init {
    async fn run(self) -> Result<(), Failure> {
        let directory = self.place.directory()?;
        let genesis = match &self.genesis {
            Some(source) => Some(fetch_genesis(source, self.network.as_deref()).await?),
            None => None,
        };
        let mut settings = ControllerSettings::new(self.name, self.operator, self.listen, self.peers);
        settings.url = self.url;
        let keys = ControllerKeys::load_or_create(&directory)?;
        let path = settings::path::<ControllerSettings>(&directory, self.place.config.as_deref());
        settings::write(&path, &settings, HEAD)?;
        if let Some(genesis) = genesis {
            write_genesis(&directory, &genesis)?;
        }
        eprintln!("settings are in {}; the controller's accounts:", path.display());
        show::text(&format!(
            "{}={}\n{}={}\n",
            settings.operator,
            keys.operator.public(),
            settings.name,
            keys.controller.public()
        ))
    }
}

const GENESIS_FILE: &str = "genesis.json";

fn write_genesis(directory: &Path, genesis: &Genesis) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(genesis).context("a genesis has no maps with odd keys")?;
    let path = directory.join(GENESIS_FILE);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Another network's genesis is not replaced: the controller's data belong to one.
async fn join(source: &str, network: Option<&str>, place: &Place) -> Result<(), Failure> {
    let directory = place.directory()?;
    // `init` comes first: it makes the keys that the genesis names.
    place.settings()?;
    let genesis = fetch_genesis(source, network).await?;
    let path = directory.join(GENESIS_FILE);
    if path.exists() && piecework_peer::read_genesis(&path).map_err(anyhow::Error::new)? != genesis {
        return Err(Failure::usage(format!(
            "{} is the genesis of another network; use another --data directory",
            path.display()
        )));
    }
    write_genesis(&directory, &genesis)?;
    eprintln!(
        "{} belongs to network {}; start it with `piecework controller run`",
        directory.display(),
        genesis.network_id()
    );
    Ok(())
}

/// Prints `ready URL` on standard output once calls are taken; progress and logs go to standard error.
async fn run(place: &Place) -> Result<(), Failure> {
    let (directory, settings) = (place.directory()?, place.settings()?);
    let path = directory.join(GENESIS_FILE);
    let genesis = piecework_peer::read_genesis(&path).with_context(|| {
        format!(
            "cannot use {}; `piecework controller join` puts it there",
            path.display()
        )
    })?;
    let began = Instant::now();
    let say = |what: &str| eprintln!("[{:5.1} s] {what}", began.elapsed().as_secs_f64());
    let controller = compose::controller(&directory, &settings, genesis, &say).await?;
    let stop = stopped();
    println!("ready {}", controller.url);
    controller.serve(stop).await?;
    eprintln!("stopped; all state is in {}", directory.display());
    Ok(())
}
