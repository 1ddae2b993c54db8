//! `piecework code`: the code of a function, as it was deployed.

use std::{fs, io, io::Write as _, path::PathBuf};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use piecework_api::functions::CodeQuery;
use piecework_blobs::{Bundle, BundleLimits};

use crate::{failure::Failure, session, show};

/// Read back the code of a function as it was deployed
#[derive(Debug, clap::Args)]
pub struct Code {
    /// Name or id of the function
    name: String,
    /// Version [default: the live one]
    #[arg(long = "version", value_name = "N")]
    number: Option<u32>,
    /// Write the files into this new directory [default: print a single file, or list several]
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

impl Code {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let query = CodeQuery { version: self.number };
        let view = session::connect()?.code(&self.name, &query).await?;
        if json {
            return show::json(&view);
        }
        let tar = BASE64_STANDARD
            .decode(&view.bundle)
            .context("the bundle is not base64")?;
        let bundle = Bundle::read(&tar, &BundleLimits::RESOLVED).map_err(anyhow::Error::new)?;
        if let Some(folder) = self.into {
            fs::create_dir(&folder).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Failure::usage(format!("{} already exists", folder.display())),
                _ => anyhow::Error::new(error)
                    .context(format!("cannot make {}", folder.display()))
                    .into(),
            })?;
            bundle
                .unpack(&folder)
                .with_context(|| format!("cannot write into {}", folder.display()))?;
            eprintln!(
                "wrote {} files of version {} into {}",
                bundle.files().len(),
                view.version,
                folder.display()
            );
            return Ok(());
        }
        let mut files = bundle.files().iter();
        if let (Some((_, only)), None) = (files.next(), files.next()) {
            return Ok(io::stdout().write_all(only).context("cannot print")?);
        }
        let rows = bundle
            .files()
            .iter()
            .map(|(path, content)| [path.clone(), show::bytes(content.len() as u64)]);
        show::table(["FILE", "SIZE"], rows.collect(), "no files")?;
        eprintln!("write them with --into DIR");
        Ok(())
    }
}
