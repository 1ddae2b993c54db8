//! `piecework traffic`: how calls are split between versions.

use piecework_api::functions::{SetTraffic, TrafficView};

use crate::{failure::Failure, session, show, units};

/// Show or set how a function's calls are split between its versions
#[derive(Debug, clap::Args)]
pub struct Traffic {
    /// Name or id of the function
    name: String,
    /// Shares, like v3=90 v4=10; without any, show the current split
    #[arg(value_name = "VERSION=SHARE", value_parser = units::share)]
    shares: Vec<(u32, u32)>,
    /// Error rate above which a version that is not live loses its share [default: 10%]
    #[arg(long, value_name = "PERCENT", value_parser = units::permille, requires = "shares")]
    max_errors: Option<u32>,
    /// Number of calls before a version is judged [default: 20]
    #[arg(long, value_name = "N", requires = "shares")]
    min_calls: Option<u32>,
    /// Send all calls to the live version again
    #[arg(long, conflicts_with = "shares")]
    end: bool,
}

impl Traffic {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        if self.end {
            client.end_traffic(&self.name).await?;
        }
        let view = if self.shares.is_empty() {
            client.traffic(&self.name).await?
        } else {
            let body = SetTraffic {
                weights: self.shares.into_iter().collect(),
                errors_permille_max: self.max_errors,
                calls_min: self.min_calls,
            };
            client.set_traffic(&self.name, &body).await?
        };
        if json {
            return show::json(&view);
        }
        let rows = view.versions.iter().map(|share| {
            [
                format!("v{}", share.version),
                share.weight.to_string(),
                if share.live { "live" } else { "" }.to_owned(),
                share.calls.to_string(),
                share.errors.to_string(),
            ]
        });
        show::table(
            ["VERSION", "SHARE", "", "CALLS", "ERRORS"],
            rows.collect(),
            "no versions",
        )
    }
}

/// `v3 90, v4 10`.
pub fn shares(view: &TrafficView) -> String {
    let shares: Vec<String> = view
        .versions
        .iter()
        .map(|share| format!("v{} {}", share.version, share.weight))
        .collect();
    shares.join(", ")
}
