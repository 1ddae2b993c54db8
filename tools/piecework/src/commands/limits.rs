//! `piecework limits`: what an operator sets for an account.

use piecework_api::audit::AccountLimits;

use crate::{failure::Failure, session, show};

/// Show or set an account's rate limit and weight; only operators can set them
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
    /// Restore the defaults
    #[arg(long, conflicts_with_all = ["rate", "burst", "weight"])]
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
            }
        };
        if wanted != now {
            client.set_account_limits(&self.name, &wanted).await?;
        }
        if json {
            return show::json(&wanted);
        }
        show::fields(&[
            ("account", self.name),
            ("requests a second", show::or_dash(wanted.requests_per_s)),
            ("burst", show::or_dash(wanted.burst)),
            ("weight", show::or_dash(wanted.weight)),
        ])
    }
}
