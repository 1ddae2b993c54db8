//! `piecework provide`: this computer runs jobs of a controller elsewhere, and earns.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use piecework_model::{EgressPolicy, Network};

use crate::{
    commands::up::stopped,
    compose::{self, Provision, Terms},
    failure::Failure,
    places, units,
};

/// Let this computer run jobs and earn; needs no open port
#[derive(Debug, clap::Args)]
pub struct Provide {
    /// Where the controller answers, like https://piecework.example.org; may be repeated to fall back on
    #[arg(long, value_name = "URL", required = true)]
    controller: Vec<String>,
    /// Needed the first time: from `piecework invite --role provider`
    #[arg(long, value_name = "CODE")]
    invite: Option<String>,
    /// The address of a ledger peer that is asked about payments when the controller is gone; may be repeated
    #[arg(long, value_name = "URL")]
    ledger: Vec<String>,
    /// Claim a finished job on the ledger when it is unpaid for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = compose::CLAIM_AFTER_S,
        value_parser = clap::value_parser!(u32).range(1..=86_400))]
    claim_after: u32,
    /// Where the key and all state are kept [default: piecework-provider below the user's data directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What it is called; taken when it first joins [default: the host's name]
    #[arg(long)]
    name: Option<String>,
    /// Where it stands, in the community's words
    #[arg(long, default_value = "anywhere")]
    region: String,
    /// Something that functions may ask for; may be repeated
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Cores that it gives [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    cores: Option<u32>,
    /// Memory that it gives [default: all]
    #[arg(long, value_name = "SIZE", value_parser = units::memory_mb)]
    memory: Option<u32>,
    /// Jobs at once [default: 64 for each core; most of them wait for something]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    slots: Option<u32>,
    /// Let functions that list what they reach go to the public network from here
    #[arg(long)]
    egress: bool,
    /// A private network, like 10.0.0.0/8, that functions may reach too if they list it; may be repeated
    #[arg(long, value_name = "NETWORK", value_parser = units::noun::<Network>, requires = "egress")]
    egress_to: Vec<Network>,
    /// Price of a second of one core, in ucr
    #[arg(long, value_name = "UCR")]
    price_cpu: Option<u64>,
    /// Price of a GiB of memory for a second, in ucr
    #[arg(long, value_name = "UCR")]
    price_memory: Option<u64>,
    /// Price of a start, in ucr
    #[arg(long, value_name = "UCR")]
    price_start: Option<u64>,
}

impl Provide {
    /// Prints `ready NAME` on standard output once jobs may come; progress goes to standard error.
    pub async fn run(self) -> Result<(), Failure> {
        let directory = match &self.data {
            Some(directory) => directory.clone(),
            None => places::default_role_dir("provider").map_err(Failure::Local)?,
        };
        let provision = Provision {
            directory,
            terms: self.terms(),
            controllers: self.controller,
            ledger: self.ledger,
            claim_after: Duration::from_secs(self.claim_after.into()),
            invite: self.invite,
        };
        let began = Instant::now();
        let say = move |what: &str| eprintln!("[{:5.1} s] {what}", began.elapsed().as_secs_f64());
        compose::provide(provision, Arc::new(say), stopped())
            .await
            .map_err(Failure::Local)
    }

    fn terms(&self) -> Terms {
        let name = self.name.clone().unwrap_or_else(places::host_name);
        let mut terms = Terms::whole_machine(&name, &self.region);
        terms.labels = self.labels.clone();
        terms.memory_bytes = self
            .memory
            .map_or(terms.memory_bytes, |mib| terms.memory_bytes.min(u64::from(mib) << 20));
        if let Some(cores) = self.cores.filter(|cores| *cores < terms.cores) {
            terms.slots = terms.slots / terms.cores * cores;
            terms.cores = cores;
        }
        terms.slots = self.slots.unwrap_or(terms.slots);
        terms.egress = self.egress.then(|| EgressPolicy {
            private: self.egress_to.clone(),
        });
        terms.prices.cpu_ucr_per_s = self.price_cpu.unwrap_or(terms.prices.cpu_ucr_per_s);
        terms.prices.memory_ucr_per_gib_s = self.price_memory.unwrap_or(terms.prices.memory_ucr_per_gib_s);
        terms.prices.start_ucr = self.price_start.unwrap_or(terms.prices.start_ucr);
        terms
    }
}
