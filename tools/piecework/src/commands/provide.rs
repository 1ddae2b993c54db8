//! `piecework provide`: this computer runs jobs of a controller elsewhere, and earns.

use std::{
    io::IsTerminal as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use piecework_model::{Credits, EgressPolicy, Network};
use piecework_provider::owner::{Hours, Rules};

use crate::{
    commands::up::stopped,
    compose::{
        self, Caution, OwnersWord, Provision, Terms,
        control::{self, AgentStatus, Word},
    },
    failure::Failure,
    keyfile, places, session,
    settings::{self, ProviderSettings, Settings as _},
    show, units,
};

/// Let this computer run jobs and earn credits; needs no open port
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = false)]
pub struct Provide {
    #[command(subcommand)]
    action: Option<Action>,
    /// URL of the controller, like https://piecework.example.org; repeat for fallbacks
    #[arg(long, value_name = "URL")]
    controller: Vec<String>,
    /// Invite code, required the first time; from `piecework invite --role provider`
    #[arg(long, value_name = "CODE")]
    invite: Option<String>,
    /// URL of a ledger peer to use for payments when the controller is gone; may be repeated
    #[arg(long, value_name = "URL")]
    ledger: Vec<String>,
    /// Claim a finished job on the ledger after it has been unpaid for this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = compose::CLAIM_AFTER_S,
        value_parser = clap::value_parser!(u32).range(1..=86_400))]
    claim_after: u32,
    /// Refuse jobs of leases that a developer could close and empty within fewer blocks (plus one block for each second
    /// that the job may take)
    #[arg(long, value_name = "BLOCKS", default_value_t = compose::WINDOW_BLOCKS_MIN)]
    window_min: u32,
    /// Data directory, including the key [default: piecework-provider in the user's data directory]
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// Settings file; options override it [default: provider.toml in DIR, if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Name of this provider; used when it first joins [default: the host name]
    #[arg(long)]
    name: Option<String>,
    /// Region of this computer, as the community calls it [default: anywhere]
    #[arg(long)]
    region: Option<String>,
    /// Label that functions can ask for; may be repeated
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Number of cores to use [default: all]
    #[arg(long, value_name = "N")]
    cores: Option<u32>,
    /// Memory to use; no job starts while more is in use [default: all]
    #[arg(long, value_name = "SIZE", value_parser = units::memory_mb)]
    memory: Option<u32>,
    /// Disk space for functions' code; the least recently used goes first [default: 8GiB]
    #[arg(long, value_name = "SIZE", value_parser = units::memory_mb)]
    disk: Option<u32>,
    /// Give way while other programs are busy: freeze jobs, and give them back if that lasts
    #[arg(long)]
    when_idle: bool,
    /// Give way while the computer runs on battery
    #[arg(long)]
    on_mains: bool,
    /// Start jobs only during these hours, in local time, like 22:00-07:00
    #[arg(long, value_name = "FROM-TO", value_parser = units::noun::<Hours>)]
    hours: Option<Hours>,
    /// With --when-idle: count only the load of this control group, like /sys/fs/cgroup/user.slice
    #[arg(long, value_name = "DIR")]
    owner_group: Option<PathBuf>,
    /// Number of concurrent jobs [default: 64 per core, because most jobs wait for something]
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// Let functions reach the public network from here, limited to their allow lists
    #[arg(long)]
    egress: bool,
    /// Private network, like 10.0.0.0/8, that functions may also reach if their allow list names it; may be repeated
    #[arg(long, value_name = "NETWORK", value_parser = units::noun::<Network>)]
    egress_to: Vec<Network>,
    /// Make this computer belong to the account that is logged in here (`piecework login`), whose jobs pay no
    /// commission on it; used when it first joins
    #[arg(long)]
    mine: bool,
    /// With --mine: file with your account's key, if you keep it yourself
    #[arg(long, value_name = "FILE", requires = "mine")]
    owner_key: Option<PathBuf>,
    /// Charge nothing for jobs of the account that this computer belongs to
    #[arg(long)]
    free_for_owner: bool,
    /// Price per core-second, in ucr
    #[arg(long, value_name = "UCR")]
    price_cpu: Option<u64>,
    /// Price per GiB-second of memory, in ucr
    #[arg(long, value_name = "UCR")]
    price_memory: Option<u64>,
    /// Price per start, in ucr
    #[arg(long, value_name = "UCR")]
    price_start: Option<u64>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show the settings
    Config {
        #[command(subcommand)]
        action: Config,
    },
}

#[derive(Debug, clap::Subcommand)]
enum Config {
    /// Print all settings in force, including defaults
    Show,
    /// Check the settings file, and print its path if it is sound
    Check,
}

impl Provide {
    /// Prints `ready NAME` on standard output once jobs may come; progress goes to standard error.
    pub async fn run(self) -> Result<(), Failure> {
        let directory = match &self.data {
            Some(directory) => directory.clone(),
            None => places::default_role_dir("provider").map_err(Failure::Local)?,
        };
        if let Some(Action::Config { action: Config::Check }) = self.action {
            return settings::check::<ProviderSettings>(&directory, self.config.as_deref());
        }
        let settings = self.settings(&directory)?;
        let terms = terms(&settings);
        let shown = settings::text(&in_force(settings.clone(), &terms))?;
        let line = StatusLine::new();
        let (board, began) = (line.clone(), Instant::now());
        let say = move |what: &str| line.above(&format!("[{:5.1} s] {what}", began.elapsed().as_secs_f64()));
        if let Some(Action::Config { action: Config::Show }) = self.action {
            return show_settings(&directory, in_force(settings, &terms)).await;
        }
        if settings.controllers.is_empty() {
            return Err(Failure::usage("no controller given; add --controller URL"));
        }
        let invite = match self.invite {
            Some(invite) => Some(invite),
            None => compose::invite::kept(&directory).map_err(Failure::Local)?,
        };
        let provision = Provision {
            directory,
            ledger: self.ledger,
            caution: Caution {
                claim_after: Duration::from_secs(self.claim_after.into()),
                window_blocks_min: self.window_min,
            },
            terms,
            controllers: settings.controllers,
            owner: owners_word(self.mine, self.owner_key.as_deref())?,
            free_for_owner: settings.owner.free,
            invite,
            settings: shown,
            board: Arc::new(move |status: &AgentStatus| board.show(status)),
        };
        compose::provide(provision, Arc::new(say), stopped())
            .await
            .map_err(Failure::Local)
    }

    /// What the file says, if there is one, with this command's options before it.
    fn settings(&self, directory: &std::path::Path) -> Result<ProviderSettings, Failure> {
        let path = settings::path::<ProviderSettings>(directory, self.config.as_deref());
        let mut settings = match self.config.is_some() || path.exists() {
            true => settings::read::<ProviderSettings>(&path)?,
            false => ProviderSettings::default(),
        };
        prefer_list(&mut settings.controllers, &self.controller);
        prefer_list(&mut settings.labels, &self.labels);
        prefer(&mut settings.name, &self.name);
        prefer(&mut settings.region, &self.region);
        prefer(&mut settings.cores, &self.cores);
        prefer(&mut settings.memory_mib, &self.memory);
        prefer(&mut settings.disk_mib, &self.disk);
        prefer(&mut settings.slots, &self.slots);
        settings.owner.when_idle |= self.when_idle;
        settings.owner.on_mains |= self.on_mains;
        settings.owner.free |= self.free_for_owner;
        prefer(&mut settings.owner.hours, &self.hours);
        prefer(&mut settings.owner.group, &self.owner_group);
        settings.egress.allowed |= self.egress;
        prefer_list(&mut settings.egress.to, &self.egress_to);
        prefer(&mut settings.prices.cpu_per_s, &self.price_cpu);
        prefer(&mut settings.prices.memory_per_gib_s, &self.price_memory);
        prefer(&mut settings.prices.start, &self.price_start);
        settings.check()?;
        Ok(settings)
    }
}

/// Those of the provider that runs on this directory, with what was changed since it started; else what it would start with.
async fn show_settings(directory: &std::path::Path, would_be: ProviderSettings) -> Result<(), Failure> {
    let running = control::ask(directory, Word::Status).await.map_err(Failure::Local)?;
    let Some(status) = running.filter(|status| !status.settings.is_empty()) else {
        return show::text(&settings::text(&would_be)?);
    };
    let mut settings: ProviderSettings = toml::from_str(&status.settings).map_err(anyhow::Error::new)?;
    settings.owner.when_idle = status.rules.when_idle;
    settings.owner.on_mains = status.rules.on_mains;
    settings.owner.hours = status.rules.hours;
    settings.memory_mib = match status.rules.memory_bytes {
        Some(bytes) => u32::try_from(bytes >> 20).ok(),
        None => settings.memory_mib,
    };
    show::text(&format!(
        "# In force at `{}`, which runs now.\n{}",
        status.name,
        settings::text(&settings)?
    ))
}

/// A line at the foot of the terminal that says how the provider stands; without a terminal there is none.
#[derive(Clone)]
struct StatusLine(Option<ProgressBar>);

impl StatusLine {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let style = ProgressStyle::with_template("{spinner} {wide_msg}").expect("a fine template");
        Self(Some(ProgressBar::new_spinner().with_style(style)))
    }

    fn above(&self, what: &str) {
        match &self.0 {
            Some(bar) => bar.suspend(|| eprintln!("{what}")),
            None => eprintln!("{what}"),
        }
    }

    fn show(&self, status: &AgentStatus) {
        if let Some(bar) = &self.0 {
            bar.set_message(standing(status));
            bar.tick();
        }
    }
}

/// `12 jobs today, 1,234 ucr; 2 running`, and why it is idle if something is in the way.
fn standing(status: &AgentStatus) -> String {
    let today = status.earnings.today;
    let jobs = if today.jobs == 1 { "job" } else { "jobs" };
    let earned = show::ucr(Credits::from(today.price_ucr));
    let now = match (status.why_idle.first(), status.running) {
        (Some(why), _) => why.clone(),
        (None, 0) => "waiting for jobs".to_owned(),
        (None, running) => format!("{running} running"),
    };
    format!("{} {jobs} today, {earned}; {now}", today.jobs)
}

fn owners_word(mine: bool, key: Option<&std::path::Path>) -> Result<Option<OwnersWord>, Failure> {
    if !mine {
        return Ok(None);
    }
    Ok(Some(OwnersWord {
        client: session::connect()?,
        key: key.map(keyfile::existing).transpose()?,
    }))
}

fn prefer<T: Clone>(setting: &mut Option<T>, option: &Option<T>) {
    if option.is_some() {
        setting.clone_from(option);
    }
}

fn prefer_list<T: Clone>(setting: &mut Vec<T>, option: &[T]) {
    if !option.is_empty() {
        *setting = option.to_vec();
    }
}

fn mib(mib: u32) -> u64 {
    u64::from(mib) << 20
}

fn terms(settings: &ProviderSettings) -> Terms {
    let name = settings.name.clone().unwrap_or_else(places::host_name);
    let region = settings.region.as_deref().unwrap_or("anywhere");
    let mut terms = Terms::whole_machine(&name, region);
    terms.labels.clone_from(&settings.labels);
    terms.memory_bytes = settings
        .memory_mib
        .map_or(terms.memory_bytes, |limit| terms.memory_bytes.min(mib(limit)));
    if let Some(cores) = settings.cores.filter(|cores| *cores < terms.cores) {
        terms.slots = terms.slots / terms.cores * cores;
        terms.cores = cores;
    }
    terms.slots = settings.slots.unwrap_or(terms.slots);
    terms.disk_bytes = settings.disk_mib.map_or(terms.disk_bytes, mib);
    terms.rules = Rules {
        when_idle: settings.owner.when_idle,
        on_mains: settings.owner.on_mains,
        hours: settings.owner.hours,
        memory_bytes: settings.memory_mib.map(mib),
    };
    terms.owner_group.clone_from(&settings.owner.group);
    terms.egress = settings.egress.allowed.then(|| EgressPolicy {
        private: settings.egress.to.clone(),
    });
    let prices = &settings.prices;
    terms.prices.cpu_ucr_per_s = prices.cpu_per_s.unwrap_or(terms.prices.cpu_ucr_per_s);
    terms.prices.memory_ucr_per_gib_s = prices.memory_per_gib_s.unwrap_or(terms.prices.memory_ucr_per_gib_s);
    terms.prices.start_ucr = prices.start.unwrap_or(terms.prices.start_ucr);
    terms
}

/// The settings, with defaults of this computer filled in.
fn in_force(settings: ProviderSettings, terms: &Terms) -> ProviderSettings {
    let in_mib = |bytes: u64| u32::try_from(bytes >> 20).ok();
    let mut shown = ProviderSettings {
        name: Some(terms.name.clone()),
        region: Some(terms.region.clone()),
        cores: Some(terms.cores),
        memory_mib: in_mib(terms.memory_bytes),
        disk_mib: in_mib(terms.disk_bytes),
        slots: Some(terms.slots),
        ..settings
    };
    shown.prices.cpu_per_s = Some(terms.prices.cpu_ucr_per_s);
    shown.prices.memory_per_gib_s = Some(terms.prices.memory_ucr_per_gib_s);
    shown.prices.start = Some(terms.prices.start_ucr);
    shown
}
