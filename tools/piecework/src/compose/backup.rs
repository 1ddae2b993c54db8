//! Backups of a controller: made while it runs, and put in its place.
//!
//! Bundles are copied before the tables and again after, so that every version in the copy has its code.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use piecework_store::{copy_store, take_over};
use serde::{Deserialize, Serialize};

use super::{
    files::{LOCK, lock, make_private, write_private},
    formats,
};

/// Written last: a folder without it is no whole backup.
const LABEL: &str = "backup.json";
const SETTINGS: &str = "controller.toml";
/// Beside the settings: what makes the controller itself again.
const FILES: [&str; 3] = ["genesis.json", "token", "url"];
const KEYS: &str = "keys";
const BLOBS: &str = "blobs";
const STORE: &str = "store";

#[derive(Serialize, Deserialize)]
struct Label {
    /// Of this label and what lies beside it.
    version: u32,
    program: String,
    made_at: jiff::Timestamp,
}

const VERSION: u32 = 1;

/// Copies the controller at `directory`, which may run, into the new or empty folder `to`. Durable when it returns.
pub async fn back_up(directory: &Path, to: &Path) -> Result<()> {
    formats::check(directory)?;
    if directory.join("peer").exists() {
        bail!(
            "{} has a ledger of its own, which cannot be copied while it is used: stop `piecework up`, copy the whole directory, \
             and start it again",
            directory.display()
        );
    }
    if !directory.join(STORE).exists() {
        bail!(
            "{} is not the directory of a controller that has run",
            directory.display()
        );
    }
    check_empty(to)?;
    make_private(to)?;
    copy_folder(&directory.join(KEYS), &to.join(KEYS))?;
    for name in [SETTINGS].into_iter().chain(FILES) {
        let from = directory.join(name);
        if from.exists() {
            copy_file(&from, &to.join(name))?;
        }
    }
    copy_folder(&directory.join(BLOBS), &to.join(BLOBS))?;
    copy_store(&directory.join(STORE), &to.join(STORE))
        .await
        .context("cannot copy the store")?;
    copy_folder(&directory.join(BLOBS), &to.join(BLOBS))?;
    let label = Label {
        version: VERSION,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: jiff::Timestamp::now(),
    };
    write_private(&to.join(LABEL), &serde_json::to_string_pretty(&label)?)
}

/// Makes the new or empty `directory` a controller as it was when the backup at `from` was made. Returns that time.
pub async fn restore(from: &Path, directory: &Path) -> Result<jiff::Timestamp> {
    let text = fs::read_to_string(from.join(LABEL))
        .with_context(|| format!("{} is not a whole backup: it has no {LABEL}", from.display()))?;
    let label: Label = serde_json::from_str(&text).with_context(|| format!("cannot read {LABEL}"))?;
    if label.version > VERSION {
        bail!(
            "{} was made by a newer program ({}): restore it with that",
            from.display(),
            label.program
        );
    }
    check_empty(directory)?;
    make_private(directory)?;
    let _lock = lock(directory)?;
    copy_folder(from, directory)?;
    take_over(&directory.join(STORE))
        .await
        .context("cannot use the store")?;
    fs::remove_file(directory.join(LABEL))?;
    Ok(label.made_at)
}

fn check_empty(directory: &Path) -> Result<()> {
    let Ok(mut entries) = fs::read_dir(directory) else {
        return Ok(());
    };
    match entries.next() {
        None => Ok(()),
        Some(_) => bail!("{} is not empty; name a new directory", directory.display()),
    }
}

/// With what is in it; what is there already stays.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    make_private(to)?;
    let entries = match fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", from.display())),
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy_folder(&source, &target)?,
            Ok(kind) if kind.is_file() && entry.file_name() != LOCK && !target.exists() => copy_file(&source, &target)?,
            Ok(_) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", source.display())),
        }
    }
    fs::File::open(to)?
        .sync_all()
        .with_context(|| format!("cannot write {}", to.display()))
}

/// Whole or not at all, with its rights. One that goes meanwhile is not needed any more.
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let beside = PathBuf::from(format!("{}.new", to.display()));
    match fs::copy(from, &beside) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot copy {}", from.display())),
    }
    fs::File::open(&beside)?.sync_all()?;
    fs::rename(&beside, to).with_context(|| format!("cannot write {}", to.display()))
}
