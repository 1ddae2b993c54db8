//! `piecework jobs`: the caller's newest jobs.

use piecework_api::jobs::{JobState, JobsQuery};

use crate::{failure::Failure, session, show, units};

/// List jobs, newest first
#[derive(Debug, clap::Args)]
pub struct Jobs {
    /// Only jobs of this function
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Only jobs in this state: queued, running, succeeded, failed, timed_out, cancelled or expired
    #[arg(long, value_parser = units::noun::<JobState>)]
    state: Option<JobState>,
    #[command(flatten)]
    page: super::Page,
}

impl Jobs {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let query = JobsQuery {
            function: self.function,
            state: self.state.map(|state| state.as_str().to_owned()),
            limit: Some(self.page.limit),
            cursor: self.page.cursor,
        };
        let list = session::connect()?.jobs(&query).await?;
        if json {
            return show::json(&list);
        }
        let rows = list.items.into_iter().map(|job| {
            [
                job.id.to_string(),
                format!("{} v{}", job.function, job.version),
                job.state.as_str().to_owned(),
                show::start(job.cold).to_owned(),
                show::ms(job.duration_ms),
                show::ucr(job.price_ucr),
                if job.paid { "paid" } else { "-" }.to_owned(),
                show::time(job.created_at),
            ]
        });
        let header = [
            "JOB", "FUNCTION", "STATE", "START", "DURATION", "PRICE", "PAID", "CREATED",
        ];
        show::fitted(
            header,
            rows.collect(),
            "no jobs",
            &["PAID", "START", "PRICE", "CREATED"],
        )?;
        super::more(list.next.as_deref());
        Ok(())
    }
}
