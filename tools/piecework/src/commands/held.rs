//! `piecework held`: receipts that are not paid, and what an operator decides about them.

use piecework_api::held::{Decision, HeldState};
use piecework_model::JobId;

use crate::{failure::Failure, session, show, units};

/// List suspicious receipts that wait for a decision, and refused ones (operators only)
#[derive(Debug, clap::Args)]
pub struct Held {
    /// Pay the receipt of this job
    #[arg(long, value_name = "JOB", value_parser = units::noun::<JobId>, conflicts_with = "refuse")]
    release: Option<JobId>,
    /// Refuse the receipt of this job; it is never paid and counts against its provider
    #[arg(long, value_name = "JOB", value_parser = units::noun::<JobId>)]
    refuse: Option<JobId>,
    #[command(flatten)]
    page: super::Page,
}

impl Held {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        if let Some(job) = self.release {
            return Ok(client.decide_held(job, Decision::Release).await?);
        }
        if let Some(job) = self.refuse {
            return Ok(client.decide_held(job, Decision::Refuse).await?);
        }
        let list = client.held(&self.page.query()).await?;
        if json {
            return show::json(&list);
        }
        let rows = list.items.into_iter().map(|held| {
            [
                held.job.to_string(),
                match held.state {
                    HeldState::Held => "held".to_owned(),
                    HeldState::Refused => "refused".to_owned(),
                },
                held.provider,
                held.function,
                show::ucr(held.price_ucr),
                show::or_dash(held.pays_at.map(show::time)),
                held.reason,
            ]
        });
        let header = ["JOB", "STATE", "PROVIDER", "FUNCTION", "PRICE", "PAID AT", "WHY"];
        show::table(header, rows.collect(), "no receipt is held")?;
        super::more(list.next.as_deref());
        Ok(())
    }
}
