//! `piecework man`: manual pages, for packages.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::{cli::Cli, failure::Failure};

/// Write the manual pages, one for each command, into a directory
#[derive(Debug, clap::Args)]
pub struct Man {
    /// Directory; is created
    directory: PathBuf,
}

impl Man {
    pub fn run(self) -> Result<(), Failure> {
        let directory = &self.directory;
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        // Without the options of every command that each page would repeat.
        let command = Cli::command().disable_help_subcommand(true);
        clap_mangen::generate_to(command, directory)
            .with_context(|| format!("cannot write to {}", directory.display()))?;
        Ok(())
    }
}
