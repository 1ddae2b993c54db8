//! `piecework rollback`: makes an old version live.

use crate::{failure::Failure, session, show, units};

/// Make an older version live again
#[derive(Debug, clap::Args)]
pub struct Rollback {
    /// Name or id of the function
    name: String,
    /// Version to make live, like 3 [default: the one before the live version; or ends a split and keeps the live version]
    #[arg(value_parser = units::version)]
    version: Option<u32>,
}

impl Rollback {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let view = session::connect()?.rollback(&self.name, self.version).await?;
        if json {
            show::json(&view)
        } else {
            show::text(&format!("{} runs version {}\n", view.name, view.version))
        }
    }
}
