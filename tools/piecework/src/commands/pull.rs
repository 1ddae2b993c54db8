//! `piecework pull`: the files of a version, as they were deployed.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use piecework_blobs::{Bundle, BundleLimits};
use serde_json::json;

use crate::{failure::Failure, session, show, units};

/// Write the files of a deployed version into a folder
#[derive(Debug, clap::Args)]
pub struct Pull {
    /// Name or id of the function
    name: String,
    /// Folder to create; it must not have anything in it [default: the function's name]
    folder: Option<PathBuf>,
    /// Version to read [default: the live one]
    #[arg(long, value_parser = units::version)]
    version: Option<u32>,
}

impl Pull {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        let view = client.function(&self.name).await?;
        let version = self.version.unwrap_or(view.version);
        let folder = self.folder.unwrap_or_else(|| PathBuf::from(&view.name));
        let bundle = Bundle::read(&client.code(&self.name, version).await?, &BundleLimits::UPLOAD)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut there = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        if there.next().is_some() {
            return Err(Failure::usage(format!(
                "{} is not empty; name another folder",
                folder.display()
            )));
        }
        let unpacked = bundle.unpack(&folder);
        unpacked.with_context(|| format!("cannot write to {}", folder.display()))?;
        let files: Vec<&String> = bundle.files().keys().collect();
        if json {
            return show::json(&json!({"version": version, "folder": folder, "files": files}));
        }
        let many = if files.len() == 1 { "file" } else { "files" };
        show::text(&format!(
            "{} {many} of version {version} in {}\n",
            files.len(),
            folder.display()
        ))
    }
}
