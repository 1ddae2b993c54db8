//! `piecework controller`: a controller without a ledger peer of its own.

use std::{net::SocketAddr, path::PathBuf, time::Instant};

use anyhow::Context as _;
use piecework_model::OwnerName;

use crate::{
    commands::{peer::fetch_genesis, up::stopped},
    compose::{self, ControllerKeys},
    failure::Failure,
    places,
    settings::{self, ControllerSettings},
    show, units,
};

/// Run functions on a ledger that peers elsewhere keep
#[derive(Debug, clap::Args)]
pub struct Controller {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Init(Init),
    /// Run the controller
    Run {
        #[command(flatten)]
        place: Place,
    },
    /// Look at the settings
    Config {
        #[command(subcommand)]
        action: Config,
    },
}

#[derive(Debug, clap::Subcommand)]
enum Config {
    /// Print all that is in force, the defaults too
    Show {
        #[command(flatten)]
        place: Place,
    },
}

/// Make the keys and the settings of a new controller
#[derive(Debug, clap::Args)]
struct Init {
    /// The HTTP API of a ledger peer; repeat it for several: when one is gone, the next is asked
    #[arg(long = "peer", value_name = "URL", required = true)]
    peers: Vec<String>,
    /// The network's genesis file, or the URL of a peer that shows it
    #[arg(long, value_name = "FILE|URL")]
    genesis: Option<String>,
    /// The network's id, as somebody said whom you trust; needed with a URL
    #[arg(long, value_name = "ID", requires = "genesis")]
    network: Option<String>,
    /// Its account on the ledger
    #[arg(long, default_value = "controller", value_parser = units::noun::<OwnerName>)]
    name: OwnerName,
    /// The account of who runs it
    #[arg(long, value_name = "NAME", default_value = "operator", value_parser = units::noun::<OwnerName>)]
    operator: OwnerName,
    /// Where to listen
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7433")]
    listen: SocketAddr,
    /// Under which people reach it, if that is another
    #[arg(long, default_value = "")]
    url: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Where all state is kept [default: piecework-controller below the user's data directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The settings, if they lie elsewhere [default: controller.toml in DIR]
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
            Action::Run { place } => run(&place).await,
            Action::Config {
                action: Config::Show { place },
            } => show::text(&settings::text(&place.settings()?)?),
        }
    }
}

const HEAD: &str = "\
# A controller's settings; `piecework controller config show` prints all that is in force.
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
            let text = serde_json::to_string_pretty(&genesis).context("a genesis has no maps with odd keys")?;
            let path = directory.join(GENESIS_FILE);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        eprintln!("the settings are in {}; these are its accounts:", path.display());
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

/// Prints `ready URL` on standard output once calls are taken; progress and logs go to standard error.
async fn run(place: &Place) -> Result<(), Failure> {
    let (directory, settings) = (place.directory()?, place.settings()?);
    let path = directory.join(GENESIS_FILE);
    let genesis = piecework_peer::read_genesis(&path)
        .with_context(|| format!("the network's genesis file is expected at {}", path.display()))?;
    let began = Instant::now();
    let say = |what: &str| eprintln!("[{:5.1} s] {what}", began.elapsed().as_secs_f64());
    let controller = compose::controller(&directory, &settings, genesis, &say).await?;
    let stop = stopped();
    println!("ready {}", controller.url);
    controller.serve(stop).await?;
    eprintln!("stopped; everything is kept in {}", directory.display());
    Ok(())
}
