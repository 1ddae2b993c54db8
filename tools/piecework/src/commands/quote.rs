//! `piecework quote`: the price before a run.

use crate::{failure::Failure, session, show};

/// Show what a run costs before you run it
#[derive(Debug, clap::Args)]
pub struct Quote {
    /// Name or id of the function
    name: String,
}

impl Quote {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let quote = session::connect()?.quote(&self.name).await?;
        if json {
            return show::json(&quote);
        }
        let typical = match quote.price_typical_ucr {
            Some(price) => format!("{}, median of {} jobs", show::ucr(price), quote.jobs_seen),
            None => "no jobs yet".to_owned(),
        };
        show::fields(&[
            ("function", format!("{} version {}", quote.function, quote.version)),
            ("at least", show::ucr_long(quote.price_min_ucr)),
            ("at most", show::ucr_long(quote.price_max_ucr)),
            ("typically", typical),
            ("start", format!("{} ucr", quote.prices.start_ucr)),
            ("cpu", format!("{} ucr per s", quote.prices.cpu_ucr_per_s)),
            ("memory", format!("{} ucr per GiB s", quote.prices.memory_ucr_per_gib_s)),
            ("egress", format!("{} ucr per MiB", quote.prices.egress_ucr_per_mib)),
            (
                "commission",
                format!(
                    "{}.{} % of the price",
                    quote.commission_permille / 10,
                    quote.commission_permille % 10
                ),
            ),
        ])
    }
}
