//! `piecework metrics`: counts, errors and latencies over time.

use jiff::{SignedDuration, Timestamp};
use piecework_api::metrics::MetricsQuery;

use crate::{failure::Failure, session, show, units};

/// Show counts, errors and latencies over time
#[derive(Debug, clap::Args)]
pub struct Metrics {
    /// Name of a function [default: the whole system]
    name: Option<String>,
    /// Only this version of the function
    #[arg(long, value_name = "N", requires = "name")]
    version: Option<u32>,
    /// How far back to look
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = units::duration)]
    since: std::time::Duration,
    /// Interval: minute, hour or day
    #[arg(long)]
    step: Option<String>,
}

impl Metrics {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let back = SignedDuration::try_from(self.since).map_err(anyhow::Error::new)?;
        let from = Timestamp::now()
            .checked_sub(back)
            .map_err(|_| Failure::usage("--since goes back too far"))?;
        let query = MetricsQuery {
            from: Some(from),
            to: None,
            step: self.step,
            version: self.version,
        };
        let client = session::connect()?;
        let view = match &self.name {
            Some(name) => client.function_metrics(name, &query).await?,
            None => client.system_metrics(&query).await?,
        };
        if json {
            return show::json(&view);
        }
        let rows = view.points.into_iter().map(|point| {
            [
                show::time(point.at),
                point.count.to_string(),
                point.errors.to_string(),
                format!("{:.0} %", point.cold_ratio * 100.0),
                show::ms(point.p50_ms),
                show::ms(point.p95_ms),
                show::ms(point.p99_ms),
                format!("{} us", point.cpu_us),
                show::bytes(point.memory_peak_bytes),
                show::ucr(point.price_ucr),
            ]
        });
        let header = [
            "FROM", "JOBS", "ERRORS", "COLD", "P50", "P95", "P99", "CPU", "PEAK", "PRICE",
        ];
        show::table(header, rows.collect(), "no jobs in this time")
    }
}
