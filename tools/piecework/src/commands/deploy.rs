//! `piecework deploy`: a new function, or a new version of one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use piecework_api::{
    Client,
    cors::CorsBody,
    functions::{Changes, CreateFunction, FunctionView, PlacementBody, PriceCap, SiteView, UpdateFunction},
    page::List,
    results::SetResults,
};
use piecework_model::{Code, Language, typescript};

use super::image;
use crate::{failure::Failure, git, session, show, source::Source, target::Target, units};

/// Deploy a file, a folder or inline code; an existing function gets a new version
#[derive(Debug, clap::Args)]
pub struct Deploy {
    /// A .py, .mjs, .js, .cjs or .ts file, a folder with main.py, main.mjs or another usual entry file, a .zip or .tar.gz of one, a
    /// git repository as URL#REVISION:FOLDER, or - for standard input [default: all functions of the project file piecework.toml in
    /// this folder or above]
    path: Option<PathBuf>,
    /// Inline code
    #[arg(long, conflicts_with = "path")]
    code: Option<String>,
    /// Container image: its name in a registry, a folder with an OCI layout, or a file that `docker save` wrote
    #[arg(long, value_name = "REF|PATH", conflicts_with_all = ["path", "code", "language", "handler"])]
    image: Option<String>,
    /// Port at which the image answers HTTP requests; passed to it as the variable PORT [default: 8080]
    #[arg(long, value_name = "PORT", requires = "image", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Run the image once for each call, with the input on its standard input and its standard output as the output
    #[arg(long, requires = "image", conflicts_with = "port")]
    stdio: bool,
    /// Arguments that replace the image's `Cmd`
    #[arg(last = true, requires = "image", value_name = "ARGS")]
    arguments: Vec<String>,
    /// Name of the function [default: the name of the file or folder]; of a project, deploy only this one
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

/// What a version is run with.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Settings {
    /// python, javascript or typescript [default: from the file's extension, or from the entry file in the folder]
    #[arg(long, value_name = "L", value_parser = units::noun::<Language>)]
    pub language: Option<Language>,
    /// Time limit of a run, like 500ms, 5s or 2m; at most 15m [default: 5s]
    #[arg(long, value_parser = units::timeout_ms)]
    pub timeout: Option<u32>,
    /// Memory limit, 32MiB to 4GiB [default: 128MiB]
    #[arg(long, value_parser = units::memory_mb)]
    pub memory: Option<u32>,
    /// Processes and threads that a run may have together, 1 to 256 [default: 32]
    #[arg(long, value_name = "N")]
    pub processes: Option<u32>,
    /// What a run may keep below /tmp, 1MiB to 1GiB; it counts towards the memory limit, too [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = units::memory_mb)]
    pub disk: Option<u32>,
    /// Sandbox: auto, or the name of a backend [default: auto]
    #[arg(long, value_name = "auto|BACKEND")]
    pub sandbox: Option<String>,
    /// Handler: FILE or FILE:FUNCTION; add @CONTRACT if it is not detected [default: what a usual entry file offers, like
    /// main.py:handler or the default export of main.mjs]
    #[arg(long)]
    pub handler: Option<String>,
    /// Set an environment variable; may be repeated; the others stay as they are
    #[arg(long, value_name = "K=V", value_parser = units::assignment)]
    pub env: Vec<(String, String)>,
    /// Remove an environment variable; may be repeated
    #[arg(long, value_name = "K")]
    pub unset_env: Vec<String>,
    /// Set a variable that is encrypted at rest and never shown; may be repeated; the others stay as they are. Other users of
    /// this computer can see it while the command runs: `piecework secrets set` reads values from a file or from standard input
    #[arg(long, value_name = "K=V", value_parser = units::assignment)]
    pub secret: Vec<(String, String)>,
    /// Set the secrets of a file with a line KEY=VALUE for each; - for standard input
    #[arg(long, value_name = "FILE")]
    pub secrets_from: Option<PathBuf>,
    #[arg(skip)]
    pub secrets_read: Vec<(String, String)>,
    /// Maximum number of concurrent runs, 1 to 1000
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u32>,
    /// Budget per calendar month, like 250 or 1.5cr; 0 for no budget
    #[arg(long, value_name = "AMOUNT", value_parser = units::budget_ucr)]
    pub budget: Option<u64>,
    /// Send this percentage of calls to the new version and keep the current one live
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub canary: Option<u32>,
    /// Record each job on the ledger before it runs
    #[arg(long)]
    pub strict: bool,
    /// Record jobs only when they are paid, as usual
    #[arg(long, conflicts_with = "strict")]
    pub no_strict: bool,
    /// Allow network access to this host; may be repeated, replaces the whole list; `none` blocks all [default: none]
    #[arg(long, value_name = "HOST:PORT")]
    pub allow: Vec<String>,
    /// Limit on network traffic per run, 1MiB to 16GiB [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = units::memory_mb)]
    pub egress_limit: Option<u32>,
    /// Maximum size that one run may stream at the function's URL, 0 to 16GiB [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = units::stream_mb)]
    pub stream_limit: Option<u32>,
    /// JSON file that says where results go and how long they are kept (see docs/functions.md); `none` for the default
    #[arg(long, value_name = "FILE", value_parser = units::results)]
    pub results: Option<SetResults>,
    /// Let anyone call the URL without a token, at your expense
    #[arg(long)]
    pub public: bool,
    /// Let only you call the URL again
    #[arg(long, conflicts_with = "public")]
    pub private: bool,
    /// Let pages of this origin call the URL, like https://app.example.com, or * for all; may be repeated, replaces the whole
    /// list; `none` leaves it to the function
    #[arg(long, value_name = "ORIGIN")]
    pub cors: Vec<String>,
    #[arg(skip)]
    pub cors_whole: Option<CorsBody>,
    #[command(flatten)]
    pub placement: Placement,
    /// Declare the function deterministic: run this percentage of its jobs twice, at your expense, and compare; 0 turns
    /// it off [default: 0]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub rerun: Option<u32>,
}

/// Where its jobs may run. What is not said stays as it was.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Placement {
    /// Run only on providers in this region; `any` removes the rule [default: any]
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Run only on providers with this label; may be repeated, replaces the whole list; `none` removes all
    #[arg(long, value_name = "LABEL")]
    pub label: Vec<String>,
    /// Run only on providers with at least this trust class: any, known or trusted [default: known for a function with
    /// secrets or --allow, your own computers apart; otherwise any]
    #[arg(long, value_name = "any|known|trusted")]
    pub trust: Option<String>,
    /// Run only on providers that charge no more than this, like cpu=300,start=2 (in ucr; start, cpu, memory, egress);
    /// `none` removes the caps
    #[arg(long, value_name = "CAPS", value_parser = units::price_cap)]
    pub price_cap: Option<PriceCap>,
    /// Run only on this provider, or `own` for your own; may be repeated, replaces the whole list; `none` removes the
    /// rule
    #[arg(long, value_name = "PROVIDER|own")]
    pub pin: Vec<String>,
    /// How to choose a provider: random, least-loaded, warm-first or cheapest [default: the controller's policy]
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

impl Settings {
    /// As it is said, or as the ending of the handler's file says.
    pub fn language(&self) -> Option<Language> {
        let file = self
            .handler
            .as_deref()
            .map(|handler| handler.split(':').next().unwrap_or(handler));
        let ending = file.and_then(|file| Path::new(file).extension()?.to_str());
        self.language.or(match ending {
            Some("py") => Some(Language::Python),
            Some("js" | "mjs" | "cjs" | "ts" | "mts" | "cts" | "tsx") => Some(Language::JavaScript),
            Some(_) | None => None,
        })
    }

    /// These, and what they do not say as in `base`.
    pub fn over(self, base: Self) -> Self {
        let list = |own: Vec<String>, base| if own.is_empty() { base } else { own };
        let map = |own: Vec<(String, String)>, base: Vec<(String, String)>| base.into_iter().chain(own).collect();
        let said = self.public || self.private;
        let (public, private) = if said {
            (self.public, self.private)
        } else {
            (base.public, base.private)
        };
        let said = self.strict || self.no_strict;
        let (strict, no_strict) = if said {
            (self.strict, self.no_strict)
        } else {
            (base.strict, base.no_strict)
        };
        Self {
            language: self.language.or(base.language),
            timeout: self.timeout.or(base.timeout),
            memory: self.memory.or(base.memory),
            processes: self.processes.or(base.processes),
            disk: self.disk.or(base.disk),
            sandbox: self.sandbox.or(base.sandbox),
            handler: self.handler.or(base.handler),
            env: map(self.env, base.env),
            unset_env: self.unset_env,
            secret: map(self.secret, base.secret),
            secrets_from: self.secrets_from,
            secrets_read: self.secrets_read,
            concurrency: self.concurrency.or(base.concurrency),
            budget: self.budget.or(base.budget),
            canary: self.canary,
            strict,
            no_strict,
            allow: list(self.allow, base.allow),
            egress_limit: self.egress_limit.or(base.egress_limit),
            stream_limit: self.stream_limit.or(base.stream_limit),
            results: self.results.or(base.results),
            public,
            private,
            cors_whole: base.cors_whole.filter(|_| self.cors.is_empty()),
            cors: list(self.cors, base.cors),
            placement: self.placement.over(base.placement),
            rerun: self.rerun.or(base.rerun),
        }
    }
}

impl Placement {
    fn over(self, base: Self) -> Self {
        let list = |own: Vec<String>, base| if own.is_empty() { base } else { own };
        Self {
            region: self.region.or(base.region),
            label: list(self.label, base.label),
            trust: self.trust.or(base.trust),
            price_cap: self.price_cap.or(base.price_cap),
            pin: list(self.pin, base.pin),
            policy: self.policy.or(base.policy),
        }
    }
}

impl Deploy {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        if let Some(image) = self.image.clone() {
            return self.image(&image, json).await;
        }
        let address = self.path.as_deref().and_then(Path::to_str);
        let checkout = match address.filter(|text| git::is_address(text)) {
            Some(address) => {
                let progress = spinner("fetching");
                let fetched = git::fetch(address);
                progress.finish_and_clear();
                Some(fetched?)
            }
            None => None,
        };
        if let (Some(checkout), false) = (&checkout, json) {
            show::text(&format!("commit {}\n", checkout.commit))?;
        }
        let path = checkout.as_ref().map(|checkout| checkout.path.clone()).or(self.path);
        let targets = match self.code {
            Some(code) => Target::text(code, self.name, self.settings)?,
            None => Target::all(path.as_deref(), self.name, self.settings)?,
        };
        let client = session::connect()?;
        let mut views = Vec::with_capacity(targets.len());
        for target in &targets {
            let view = deploy(&client, target).await?;
            if !json {
                print(&view)?;
            }
            views.push(view);
        }
        if !json {
            return Ok(());
        }
        match <[FunctionView; 1]>::try_from(views) {
            Ok([view]) => show::json(&view),
            Err(views) => show::json(&List::all(views)),
        }
    }
}

impl Deploy {
    async fn image(self, image: &str, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        let run = piecework_image::Settings {
            port: self.port,
            stdio: self.stdio,
            arguments: (!self.arguments.is_empty()).then_some(self.arguments),
            ..piecework_image::Settings::default()
        };
        let progress = spinner("reading");
        let source = image::source(&client, image, run, &progress).await?;
        let name = self
            .name
            .or_else(|| source.name.clone())
            .ok_or_else(|| Failure::usage("the image's name gives no valid function name; add --name"))?;
        progress.set_message(format!("deploying {name} ({})", source.summary));
        let target = Target::image(name.clone(), self.settings)?;
        let view = target.send(&client, &name, source).await;
        progress.finish_and_clear();
        match json {
            true => show::json(&view?),
            false => print(&view?),
        }
    }
}

async fn deploy(client: &Client, target: &Target) -> Result<FunctionView, Failure> {
    let progress = spinner("reading");
    let source = target.source()?;
    let name = target.name.clone().or_else(|| source.name.clone()).ok_or_else(|| {
        Failure::usage(
            "the path does not give a valid function name (1 to 30 characters from a-z, 0-9 and -); add --name",
        )
    })?;
    progress.set_message(format!("deploying {name} ({})", source.summary));
    let view = target.send(client, &name, source).await;
    progress.finish_and_clear();
    view
}

/// Creates the function; where the name is taken, makes a new version. `is_known`: whether it is.
pub async fn send(
    client: &Client,
    name: &str,
    source: Source,
    (settings, is_known): (&Settings, bool),
) -> Result<FunctionView, Failure> {
    let create = creation(name, source, settings);
    if is_known {
        return Ok(client.update_function(name, &update(create, settings)).await?);
    }
    match client.create_function(&create).await.map_err(Failure::from) {
        Err(failure) if failure.is_refusal(Code::FunctionExists) => {
            Ok(client.update_function(name, &update(create, settings)).await?)
        }
        answer => answer,
    }
}

fn creation(name: &str, source: Source, settings: &Settings) -> CreateFunction {
    let handler = settings.handler.clone().or(source.handler);
    CreateFunction {
        name: name.to_owned(),
        language: source.language.to_string(),
        code: source.code,
        bundle: source.bundle,
        handler,
        timeout_ms: settings.timeout,
        memory_limit_mb: settings.memory,
        process_limit: settings.processes,
        disk_limit_mb: settings.disk,
        env: variables(&settings.env),
        secrets: variables(&settings.secret),
        sandbox: settings.sandbox.clone(),
        // A flag that is not there keeps what an older version had.
        strict: (settings.strict || settings.no_strict).then_some(settings.strict),
        public: (settings.public || settings.private).then_some(settings.public),
        cors: settings.cors_whole.clone().or_else(|| {
            listed(&settings.cors).map(|origins| CorsBody {
                origins,
                ..CorsBody::default()
            })
        }),
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

fn update(create: CreateFunction, settings: &Settings) -> UpdateFunction {
    let set = |given: Option<BTreeMap<String, String>>| {
        let set = given.into_iter().flatten();
        set.map(|(name, value)| (name, Some(value))).collect::<Changes>()
    };
    let mut env = set(create.env);
    env.extend(settings.unset_env.iter().map(|name| (name.clone(), None)));
    let secrets = set(create.secrets);
    UpdateFunction {
        language: Some(create.language),
        code: create.code,
        bundle: create.bundle,
        handler: create.handler,
        timeout_ms: create.timeout_ms,
        memory_limit_mb: create.memory_limit_mb,
        process_limit: create.process_limit,
        disk_limit_mb: create.disk_limit_mb,
        env: Some(env).filter(|env| !env.is_empty()),
        secrets: Some(secrets).filter(|secrets| !secrets.is_empty()),
        sandbox: create.sandbox,
        strict: create.strict,
        public: create.public,
        cors: create.cors,
        concurrency: create.concurrency,
        budget_ucr: create.budget_ucr,
        canary: settings.canary,
        egress: create.egress,
        egress_limit_mb: create.egress_limit_mb,
        stream_limit_mb: create.stream_limit_mb,
        placement: create.placement,
        results: create.results,
        rerun_percent: create.rerun_percent,
    }
}

/// The file with the handler, if it is TypeScript.
fn typescript_of(view: &FunctionView) -> Option<&str> {
    let file = view.handler.as_deref()?.split(':').next()?;
    typescript::is_source(file).then_some(file)
}

fn print(view: &FunctionView) -> Result<(), Failure> {
    let reason = view.sandbox_reason.lines().next().unwrap_or_default();
    match view.deployed_version {
        // What is shown of the sandbox is the live version's.
        Some(canary) if canary != view.version => show::text(&format!(
            "{} version {canary} beside version {}, which stays live\n",
            view.name, view.version
        ))?,
        _ => show::text(&format!(
            "{} version {} in {}: {reason}\n",
            view.name, view.version, view.sandbox
        ))?,
    }
    if let (Some(contract), Some(handler)) = (view.contract, &view.handler) {
        let target = handler.rsplit_once('@').map_or(handler.as_str(), |(target, _)| target);
        show::text(&format!("contract: {} ({target})\n", contract.as_str()))?;
    }
    if let Some(file) = typescript_of(view) {
        show::text(&format!(
            "typescript: types are removed from {file} and what it imports; they are not checked\n"
        ))?;
    }
    match view.site {
        Some(SiteView::Beside) => show::text("public/: its files are served at the URL without a run\n")?,
        Some(SiteView::Alone) => show::text("site: the files of public/ are served at the URL; nothing runs\n")?,
        None => {}
    }
    if let Some(image) = &view.image {
        show::text(&format!(
            "image {} ({}, {})\n",
            image.reference, image.digest, image.platform
        ))?;
    }
    if !view.packages.is_empty() {
        show::text(&format!("packages {}\n", view.packages.join(" ")))?;
    }
    if let Some(traffic) = &view.traffic {
        show::text(&format!("calls are split {}\n", super::traffic::shares(traffic)))?;
    }
    if !view.egress.is_empty() {
        show::text(&format!(
            "may reach {} ({} MiB a run)\n",
            view.egress.join(" "),
            view.egress_limit_mb
        ))?;
    }
    if view.confidential {
        let why = if view.secret_names.is_empty() {
            "an allow list"
        } else {
            "secrets"
        };
        show::text(&format!(
            "runs only on providers of class known or better, and on your own, as it has {why}; --trust any changes this\n"
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
