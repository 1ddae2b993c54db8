//! `piecework function`: one function's settings.

use std::str::FromStr;

use piecework_api::{
    Client,
    build_logs::{BuildLogView, FailedDeploysQuery},
    functions::{BudgetView, FunctionView, PlacementBody},
    results::{ResultsView, SetResults},
};

use crate::{failure::Failure, session, show, units};

/// Show a function, or change settings that need no new version
#[derive(Debug, clap::Args)]
pub struct Function {
    /// Name or id of the function
    name: String,
    /// Release a quarantined version, so that it takes calls again
    #[arg(long)]
    release: bool,
    /// Stop taking calls; running jobs finish
    #[arg(long, conflicts_with = "start")]
    stop: bool,
    /// Take calls again after --stop
    #[arg(long)]
    start: bool,
    /// Budget per calendar month, like 250 or 1.5cr; 0 for no budget
    #[arg(long, value_name = "AMOUNT", value_parser = units::budget_ucr)]
    budget: Option<u64>,
    /// JSON file that says where results go and how long they are kept (see docs/functions.md); `none` for the default
    #[arg(long, value_name = "FILE", value_parser = units::results)]
    results: Option<SetResults>,
    /// Print the build log of a version: a number, or `failed` for the latest failed deploys [default: the live version]
    #[arg(long, value_name = "VERSION", num_args = 0..=1, default_missing_value = "live",
        conflicts_with_all = ["release", "stop", "start", "budget", "results"])]
    build_log: Option<Built>,
}

/// Which deploys are meant.
#[derive(Clone, Copy, Debug)]
enum Built {
    Live,
    Version(u32),
    Failed,
}

impl FromStr for Built {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "live" => Ok(Self::Live),
            "failed" => Ok(Self::Failed),
            number => number
                .parse()
                .map(Self::Version)
                .map_err(|_| "expected the number of a version, or `failed`"),
        }
    }
}

impl Function {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        if let Some(built) = self.build_log {
            return build_log(&client, &self.name, built, json).await;
        }
        if self.release {
            client.release(&self.name).await?;
        }
        if self.stop {
            client.stop(&self.name).await?;
        }
        if self.start {
            client.start(&self.name).await?;
        }
        if let Some(budget_ucr) = self.budget {
            client.set_budget(&self.name, budget_ucr).await?;
        }
        if let Some(results) = &self.results {
            client.set_results(&self.name, results).await?;
        }
        let view = client.function(&self.name).await?;
        if json {
            show::json(&view)
        } else {
            show::fields(&rows(&view))
        }
    }
}

async fn build_log(client: &Client, name: &str, built: Built, json: bool) -> Result<(), Failure> {
    let number = match built {
        Built::Version(number) => number,
        Built::Live => client.function(name).await?.version,
        Built::Failed => {
            let query = FailedDeploysQuery {
                function: Some(name.to_owned()),
            };
            let list = client.failed_deploys(&query).await?;
            if json {
                return show::json(&list);
            }
            if list.items.is_empty() {
                eprintln!("no failed deploy of {name} is on record");
            }
            // The newest last, where the eye is.
            for log in list.items.iter().rev() {
                print_log(log)?;
            }
            return Ok(());
        }
    };
    let log = client.build_log(name, number).await?;
    if json {
        return show::json(&log);
    }
    if log.at.is_none() {
        eprintln!("no build log of version {number} is kept");
    }
    print_log(&log)
}

fn print_log(log: &BuildLogView) -> Result<(), Failure> {
    if let Some(at) = log.at {
        let what = log
            .version
            .map_or_else(|| "failed".to_owned(), |number| format!("version {number}"));
        eprintln!("{} {what}, deployed {}", log.function, show::time(at));
    }
    show::text(&show::harmless(&log.text))
}

fn rows(view: &FunctionView) -> Vec<(&'static str, String)> {
    let env: Vec<String> = view.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut rows = vec![
        ("name", view.name.clone()),
        ("id", view.id.to_string()),
        ("url", view.url.clone()),
        ("own url", view.own_url.clone().unwrap_or_else(|| "-".into())),
        ("owner", view.owner.clone()),
        ("version", view.version.to_string()),
        ("language", view.language.to_string()),
        ("status", status(view)),
        (
            "sandbox",
            format!(
                "{}: {}",
                view.sandbox,
                view.sandbox_reason.lines().next().unwrap_or_default()
            ),
        ),
        ("timeout", show::ms(view.timeout_ms.into())),
        ("memory", format!("{} MiB", view.memory_limit_mb)),
        ("processes", view.process_limit.to_string()),
        ("/tmp", format!("{} MiB", view.disk_limit_mb)),
        ("concurrency", view.concurrency.to_string()),
        ("public", show::yes(view.public)),
        (
            "cors",
            view.cors
                .as_ref()
                .map_or_else(|| "left to the function".into(), |cors| cors.origins.join(" ")),
        ),
        ("strict", show::yes(view.strict)),
        ("network", dash(&view.egress)),
        ("streams", format!("up to {} MiB", view.stream_limit_mb)),
        ("placement", placement(&view.placement, view.confidential)),
        (
            "deterministic",
            match view.rerun_percent {
                0 => "not declared".into(),
                percent => format!("{percent} % of its jobs run twice"),
            },
        ),
        ("env", dash(&env)),
        ("secrets", dash(&view.secret_names)),
        ("packages", dash(&view.packages)),
        ("code", view.code_digest.to_string()),
        ("created", show::time(view.created_at)),
        ("updated", show::time(view.updated_at)),
    ];
    rows.extend(view.image.as_ref().map(|image| {
        let shown = format!("{} ({}, {})", image.reference, image.digest, image.platform);
        ("image", shown)
    }));
    rows.extend(
        view.traffic
            .as_ref()
            .map(|traffic| ("traffic", super::traffic::shares(traffic))),
    );
    rows.extend(view.budget.as_ref().map(|budget| ("budget", spent(budget))));
    rows.extend(view.results.as_ref().map(|results| ("results", places(results))));
    rows
}

fn placement(asked: &PlacementBody, is_confidential: bool) -> String {
    let caps = asked.price_cap.unwrap_or_default();
    let cap = |name: &str, ucr: Option<u64>| ucr.map(|ucr| format!("{name}<={ucr}ucr"));
    let mut parts: Vec<String> = Vec::new();
    parts.extend(asked.region.as_ref().map(|region| format!("region {region}")));
    parts.extend(
        asked
            .labels
            .as_ref()
            .map(|labels| format!("labels {}", labels.join(" "))),
    );
    parts.extend(asked.trust.as_ref().map(|trust| format!("trust {trust}")));
    parts.extend(asked.pin.as_ref().map(|pin| format!("pinned to {}", pin.join(" "))));
    parts.extend(asked.policy.clone());
    parts.extend(cap("start", caps.start_ucr));
    parts.extend(cap("cpu", caps.cpu_ucr_per_s));
    parts.extend(cap("memory", caps.memory_ucr_per_gib_s));
    parts.extend(cap("egress", caps.egress_ucr_per_mib));
    if is_confidential {
        parts.push("trust known, or your own".to_owned());
    }
    if parts.is_empty() {
        "anywhere".into()
    } else {
        parts.join(", ")
    }
}

fn places(results: &ResultsView) -> String {
    let to = results
        .sink
        .as_ref()
        .map(|sink| format!("to {} ({})", sink.to, sink.kind));
    let kept = results.ttl_s.map(|seconds| format!("kept for {seconds} s"));
    [to, kept].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn status(view: &FunctionView) -> String {
    let status = format!("{:?}", view.status).to_lowercase();
    match &view.quarantine {
        Some(why) => format!(
            "{status} since {}: {} times {} in a row; deploy a new version, or use --release",
            show::time(why.since),
            why.failures,
            why.code
        ),
        None => status,
    }
}

fn spent(budget: &BudgetView) -> String {
    format!(
        "{} of {} spent since {}",
        show::ucr(budget.spent_ucr),
        show::ucr(budget.budget_ucr),
        show::time(budget.month_began_at)
    )
}

fn dash(items: &[String]) -> String {
    if items.is_empty() { "-".into() } else { items.join(" ") }
}
