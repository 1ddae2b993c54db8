//! `piecework cancel`: ends a job early.

use piecework_model::JobId;

use crate::{failure::Failure, session, units};

/// Cancel a queued or running job
#[derive(Debug, clap::Args)]
pub struct Cancel {
    /// Job id, like job_0123...
    #[arg(value_parser = units::noun::<JobId>)]
    id: JobId,
}

impl Cancel {
    pub async fn run(self) -> Result<(), Failure> {
        session::connect()?.cancel_job(self.id).await?;
        eprintln!("cancelled {}", self.id);
        Ok(())
    }
}
