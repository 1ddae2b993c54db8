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
        session::connect()?.delete_function(&self.name, self.for_good).await?;
        eprintln!("deleted {}", self.name);
        Ok(())
    }
}
