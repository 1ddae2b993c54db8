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
        let rows = view.versions.iter().zip(percent(&view)).map(|(share, percent)| {
            [
                format!("v{}", share.version),
                format!("{percent} %"),
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

/// `v3 90 %, v4 10 %`.
pub fn shares(view: &TrafficView) -> String {
    let shares = view.versions.iter().zip(percent(view));
    let shares: Vec<String> = shares
        .map(|(share, percent)| format!("v{} {percent} %", share.version))
        .collect();
    shares.join(", ")
}

/// What of a hundred calls each version gets, of weights that may have any sum. What rounding down leaves goes to those that it
/// took most from.
fn percent(view: &TrafficView) -> Vec<u64> {
    let weights: Vec<u64> = view.versions.iter().map(|share| share.weight.into()).collect();
    let total = weights.iter().sum::<u64>().max(1);
    let mut percent: Vec<u64> = weights.iter().map(|weight| weight * 100 / total).collect();
    let mut most: Vec<usize> = (0..weights.len()).collect();
    most.sort_by_key(|at| std::cmp::Reverse(weights[*at] * 100 % total));
    let left = 100_u64.saturating_sub(percent.iter().sum());
    for (at, _) in most.into_iter().zip(0..left) {
        percent[at] += 1;
    }
    percent
}

#[cfg(test)]
mod tests {
    use piecework_api::functions::ShareView;

    use super::*;

    #[test]
    fn shares_of_any_weights_are_of_a_hundred_calls() {
        for (weights, due) in [
            (&[30, 50][..], &[37, 63][..]),
            (&[1, 1, 1], &[34, 33, 33]),
            (&[1000, 1000], &[50, 50]),
            (&[0, 50], &[0, 100]),
            (&[90, 10], &[90, 10]),
        ] {
            let share = |weight: &u32| ShareView {
                version: 1,
                weight: *weight,
                live: false,
                calls: 0,
                errors: 0,
            };
            let view = TrafficView {
                versions: weights.iter().map(share).collect(),
                errors_permille_max: 100,
                calls_min: 20,
                since: jiff::Timestamp::UNIX_EPOCH,
            };
            assert_eq!(percent(&view).iter().sum::<u64>(), 100, "{weights:?}");
            // Of equal remainders, the first gets one more.
            let given = percent(&view);
            assert!(
                given.iter().zip(due).all(|(given, due)| given.abs_diff(*due) <= 1),
                "{given:?}"
            );
        }
    }
}
