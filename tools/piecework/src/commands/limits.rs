//! `piecework limits`: what an operator sets for an account.

use piecework_api::audit::{AccountLimits, UsageItem};

use crate::{failure::Failure, session, show};

/// Show an account's limits and what it keeps on the server; only operators can set limits
#[derive(Debug, clap::Args)]
pub struct Limits {
    /// Name of the account
    name: String,
    /// Sustained requests per second
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Burst size, in requests [default: twice the rate]
    #[arg(long, value_name = "N")]
    burst: Option<u32>,
    /// Weight when slots are scarce, 1 to 100
    #[arg(long, value_name = "N")]
    weight: Option<u32>,
    /// MiB of stored outputs; the oldest are dropped beyond
    #[arg(long, value_name = "MIB")]
    outputs: Option<u32>,
    /// MiB of stored logs; the oldest are dropped beyond
    #[arg(long, value_name = "MIB")]
    logs: Option<u32>,
    /// MiB of job records; the oldest paid ones are dropped beyond
    #[arg(long, value_name = "MIB")]
    jobs: Option<u32>,
    /// MiB of inputs of asynchronous jobs that have not ended
    #[arg(long, value_name = "MIB")]
    inputs: Option<u32>,
    /// MiB of bundles on disk
    #[arg(long, value_name = "MIB")]
    bundles: Option<u32>,
    /// Versions of all functions
    #[arg(long, value_name = "N")]
    versions: Option<u32>,
    /// Functions, deleted ones included while they can be restored
    #[arg(long, value_name = "N")]
    functions: Option<u32>,
    /// Restore the defaults
    #[arg(long, conflicts_with_all = ["rate", "burst", "weight", "outputs", "logs", "jobs", "inputs", "bundles", "versions", "functions"])]
    reset: bool,
}

impl Limits {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        let now = client.account_limits(&self.name).await?;
        let wanted = if self.reset {
            AccountLimits::default()
        } else {
            AccountLimits {
                requests_per_s: self.rate.or(now.requests_per_s),
                burst: self.burst.or(now.burst),
                weight: self.weight.or(now.weight),
                outputs_mb: self.outputs.or(now.outputs_mb),
                logs_mb: self.logs.or(now.logs_mb),
                jobs_mb: self.jobs.or(now.jobs_mb),
                inputs_mb: self.inputs.or(now.inputs_mb),
                bundles_mb: self.bundles.or(now.bundles_mb),
                versions: self.versions.or(now.versions),
                functions: self.functions.or(now.functions),
            }
        };
        if wanted != now {
            client.set_account_limits(&self.name, &wanted).await?;
        }
        if json {
            return show::json(&wanted);
        }
        let usage = client.account_usage(&self.name).await?;
        show::fields(&[
            ("account", self.name),
            ("requests a second", show::or_dash(wanted.requests_per_s)),
            ("burst", show::or_dash(wanted.burst)),
            ("weight", show::or_dash(wanted.weight)),
        ])?;
        show::table(
            ["KEEPS", "USED", "LIMIT"],
            usage.items.into_iter().map(row).collect(),
            "nothing",
        )
    }
}

fn row(item: UsageItem) -> [String; 3] {
    let shown = |amount: u64| match item.unit.as_str() {
        "bytes" => format!("{:.1} MiB", amount as f64 / f64::from(1 << 20)),
        _ => amount.to_string(),
    };
    let (used, limit) = (shown(item.used), shown(item.limit));
    [item.kind, used, limit]
}
