//! `piecework delete`: removes a function.

use crate::{failure::Failure, session};

/// Delete a function; its jobs stay on record
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// Name or id of the function
    name: String,
}

impl Delete {
    pub async fn run(self) -> Result<(), Failure> {
        session::connect()?.delete_function(&self.name).await?;
        eprintln!("deleted {}", self.name);
        Ok(())
    }
}
