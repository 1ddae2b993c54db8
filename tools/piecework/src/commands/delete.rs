//! `piecework delete`: removes a function.

use crate::{failure::Failure, session};

/// Delete a function; its jobs stay on record
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// Name or id of the function
    name: String,
    /// Do not keep it for a time in which it can be restored
    #[arg(long)]
    for_good: bool,
}

impl Delete {
    pub async fn run(self) -> Result<(), Failure> {
        let client = session::connect()?;
        client.delete_function(&self.name, self.for_good).await?;
        let name = &self.name;
        match self.for_good {
            true => eprintln!(
                "deleted {name} for good: its versions, variables and secrets are gone; its jobs stay on record"
            ),
            false => eprintln!(
                "deleted {name}; its jobs stay on record. Its versions, variables and secrets are kept for 7 days:\n  \
                 `piecework restore {name}` brings it back, `piecework delete {name} --for-good` removes them now"
            ),
        }
        Ok(())
    }
}
