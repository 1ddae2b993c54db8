//! `piecework restore`: undoes a deletion.

use crate::{failure::Failure, session, show};

/// Restore a function deleted in the last 7 days
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// Former name or id of the function
    name: String,
}

impl Restore {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let view = session::connect()?.restore(&self.name).await?;
        if json {
            show::json(&view)
        } else {
            show::text(&format!("{} is back, version {}\n", view.name, view.version))
        }
    }
}
