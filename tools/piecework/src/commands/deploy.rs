//! `piecework deploy`: a new function, or a new version of one.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use piecework_api::{
    Client,
    functions::{CreateFunction, FunctionView, PlacementBody, PriceCap, UpdateFunction},
    results::SetResults,
};
use piecework_model::Language;

use crate::{
    failure::Failure,
    session, show,
    source::{self, Source},
    units,
};

/// Deploy a file, a folder or inline code; a name that exists gets a new version
#[derive(Debug, clap::Args)]
pub struct Deploy {
    /// A .py, .mjs or .js file, a folder with main.py or main.mjs, or - for standard input
    #[arg(required_unless_present = "code")]
    path: Option<PathBuf>,
    /// The code itself
    #[arg(long, conflicts_with = "path")]
    code: Option<String>,
    /// The function's name [default: the file's or folder's]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

/// What a version is run with.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Settings {
    /// python or javascript [default: by the file's ending, or main.py or main.mjs in the folder]
    #[arg(long, value_name = "L", value_parser = units::noun::<Language>)]
    pub language: Option<Language>,
    /// Longest run, like 500ms, 5s or 2m; at most 15m [default: 5s]
    #[arg(long, value_parser = units::timeout_ms)]
    pub timeout: Option<u32>,
    /// Most memory, 32MiB to 4GiB [default: 128MiB]
    #[arg(long, value_parser = units::memory_mb)]
    pub memory: Option<u32>,
    /// auto, or the one backend that may run it [default: auto]
    #[arg(long, value_name = "auto|BACKEND")]
    pub sandbox: Option<String>,
    /// FILE or FILE:FUNCTION [default: main.py:handler, or the default export of main.mjs]
    #[arg(long)]
    pub handler: Option<String>,
    /// A variable; may be repeated. On a new version the whole set is replaced
    #[arg(long, value_name = "K=V", value_parser = units::assignment)]
    pub env: Vec<(String, String)>,
    /// A variable that is sealed at rest and never shown; may be repeated
    #[arg(long, value_name = "K=V", value_parser = units::assignment)]
    pub secret: Vec<(String, String)>,
    /// Runs at one time, 1 to 1000
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u32>,
    /// What the function may cost in a calendar month, like 250 or 1.5cr; 0 for no budget
    #[arg(long, value_name = "AMOUNT", value_parser = units::budget_ucr)]
    pub budget: Option<u64>,
    /// Give the new version this percentage of the calls and leave the live one live
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub canary: Option<u32>,
    /// Record each job on the ledger before it runs
    #[arg(long)]
    pub strict: bool,
    /// What it may reach on the network; may be repeated, replaces the whole set; `none` shuts it [default: none]
    #[arg(long, value_name = "HOST:PORT")]
    pub allow: Vec<String>,
    /// Most that one run may move over the network, 1MiB to 16GiB [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = units::memory_mb)]
    pub egress_limit: Option<u32>,
    /// Most that one run may stream at the function's URL, 0 to 16GiB [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = units::stream_mb)]
    pub stream_limit: Option<u32>,
    /// Where results go and how long they are kept, as JSON in a file (docs/functions.md); `none` for as usual
    #[arg(long, value_name = "FILE", value_parser = units::results)]
    pub results: Option<SetResults>,
    /// Let anybody call its URL without a token, at your expense
    #[arg(long)]
    pub public: bool,
    #[command(flatten)]
    pub placement: Placement,
    /// It is deterministic: run this share of its jobs twice, at your expense, and compare; 0 lifts it [default: 0]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub rerun: Option<u32>,
}

/// Where its jobs may run. What is not said stays as it was.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Placement {
    /// Only providers of this region; `any` lifts it [default: any]
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Only providers with this label; may be repeated, replaces the whole set; `none` empties it
    #[arg(long, value_name = "LABEL")]
    pub label: Vec<String>,
    /// Only providers of at least this trust [default: new]
    #[arg(long, value_name = "new|known|trusted")]
    pub trust: Option<String>,
    /// Only providers no dearer, like cpu=300,start=2 (ucr; start, cpu, memory, egress); `none` lifts it
    #[arg(long, value_name = "CAPS", value_parser = units::price_cap)]
    pub price_cap: Option<PriceCap>,
    /// Only this provider, or `own` for yours; may be repeated, replaces the whole set; `none` lifts it
    #[arg(long, value_name = "PROVIDER|own")]
    pub pin: Vec<String>,
    /// random, least-loaded, warm-first or cheapest [default: the community's]
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<String>,
}

impl Placement {
    fn body(&self) -> Option<PlacementBody> {
        let region = self.region.clone();
        let body = PlacementBody {
            region: region.map(|region| if region == "any" { String::new() } else { region }),
            labels: listed(&self.label),
            trust: self.trust.clone(),
            price_cap: self.price_cap,
            pin: listed(&self.pin),
            policy: self.policy.clone(),
        };
        (body != PlacementBody::default()).then_some(body)
    }
}

impl Deploy {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let progress = spinner("reading");
        let source = match self.code {
            Some(code) => source::inline(code, self.settings.language)?,
            None => source::read(
                &self.path.expect("clap asks for a path or code"),
                self.settings.language,
            )?,
        };
        let name = self
            .name
            .or_else(|| source.name.clone())
            .ok_or_else(|| Failure::usage("the path gives no name of 1 to 30 of a-z, 0-9 and -: say --name"))?;
        let client = session::connect()?;
        progress.set_message(format!("deploying {name} ({})", source.summary));
        let view = send(&client, &name, source, &self.settings).await;
        progress.finish_and_clear();
        let view = view?;
        if json { show::json(&view) } else { print(&view) }
    }
}

/// Creates the function; where the name is taken, makes a new version.
pub async fn send(client: &Client, name: &str, source: Source, settings: &Settings) -> Result<FunctionView, Failure> {
    let create = creation(name, source, settings);
    match client.create_function(&create).await.map_err(Failure::from) {
        Err(failure) if failure.code() == Some("function.exists") => {
            Ok(client.update_function(name, &update(create, settings.canary)).await?)
        }
        answer => answer,
    }
}

fn creation(name: &str, source: Source, settings: &Settings) -> CreateFunction {
    CreateFunction {
        name: name.to_owned(),
        language: source.language.to_string(),
        code: source.code,
        bundle: source.bundle,
        handler: settings.handler.clone(),
        timeout_ms: settings.timeout,
        memory_limit_mb: settings.memory,
        env: variables(&settings.env),
        secrets: variables(&settings.secret),
        sandbox: settings.sandbox.clone(),
        // A flag that is not there keeps what an older version had.
        strict: settings.strict.then_some(true),
        public: settings.public.then_some(true),
        concurrency: settings.concurrency,
        budget_ucr: settings.budget,
        egress: listed(&settings.allow),
        egress_limit_mb: settings.egress_limit,
        stream_limit_mb: settings.stream_limit,
        placement: settings.placement.body(),
        results: settings.results.clone(),
        rerun_percent: settings.rerun,
    }
}

/// `none` is the empty list.
fn listed(given: &[String]) -> Option<Vec<String>> {
    let listed = given.iter().filter(|entry| *entry != "none");
    (!given.is_empty()).then(|| listed.cloned().collect())
}

fn variables(given: &[(String, String)]) -> Option<BTreeMap<String, String>> {
    (!given.is_empty()).then(|| given.iter().cloned().collect())
}

fn update(create: CreateFunction, canary: Option<u32>) -> UpdateFunction {
    UpdateFunction {
        language: Some(create.language),
        code: create.code,
        bundle: create.bundle,
        handler: create.handler,
        timeout_ms: create.timeout_ms,
        memory_limit_mb: create.memory_limit_mb,
        env: create.env,
        secrets: create.secrets,
        sandbox: create.sandbox,
        strict: create.strict,
        public: create.public,
        concurrency: create.concurrency,
        budget_ucr: create.budget_ucr,
        canary,
        egress: create.egress,
        egress_limit_mb: create.egress_limit_mb,
        stream_limit_mb: create.stream_limit_mb,
        placement: create.placement,
        results: create.results,
        rerun_percent: create.rerun_percent,
    }
}

fn print(view: &FunctionView) -> Result<(), Failure> {
    show::text(&format!(
        "{} version {} in {}: {}\n",
        view.name, view.version, view.sandbox, view.sandbox_reason
    ))?;
    if !view.packages.is_empty() {
        show::text(&format!("packages {}\n", view.packages.join(" ")))?;
    }
    if let Some(traffic) = &view.traffic {
        show::text(&format!("calls go to {}\n", super::traffic::shares(traffic)))?;
    }
    if !view.egress.is_empty() {
        show::text(&format!(
            "may reach {} ({} MiB a run)\n",
            view.egress.join(" "),
            view.egress_limit_mb
        ))?;
    }
    show::text(&format!("{}\n", view.url))
}

/// A sign of life on standard error, where that is a terminal.
pub fn spinner(message: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("a fine template");
    let progress = ProgressBar::new_spinner().with_style(style).with_message(message);
    progress.enable_steady_tick(Duration::from_millis(100));
    progress
}
