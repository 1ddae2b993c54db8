//! `piecework restore`: undoes a deletion.

use crate::{failure::Failure, session, show};

/// Bring back a function that was deleted in the last 7 days
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// The name it had, or its id
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
