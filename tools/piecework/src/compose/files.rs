//! A data directory: private, locked by one process, keys and other small files written whole.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use piecework_model::{Code, Rejection, SecretKey};
use rand::RngExt as _;

/// Only its owner may look into it: it holds keys.
pub fn make_private(directory: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            damaged(format!("{} is not a directory", directory.display()))
        }
        _ => anyhow::Error::new(error).context(format!("cannot create the directory {}", directory.display())),
    })
}

pub(super) const LOCK: &str = "lock";

pub(super) fn lock(directory: &Path) -> Result<fs::File> {
    let path = directory.join(LOCK);
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            let used = format!("another `piecework` uses {}", directory.display());
            Err(Rejection::new(Code::DirectoryInUse, used)
                .hint("stop it, or use another --data")
                .into())
        }
        Err(fs::TryLockError::Error(error)) => Err(error).context("cannot lock the data directory"),
    }
}

/// Refuses a directory with files in it that no `up` has made: its state would lie among somebody's own.
pub(super) fn refuse_foreign(directory: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(());
    };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    // A file system of its own brings this one along.
    let is_empty = names.iter().all(|name| name == "lost+found");
    if is_empty || names.iter().any(|name| name == LOCK) {
        return Ok(());
    }
    let foreign = format!("{} has files that `piecework up` did not create", directory.display());
    Err(Rejection::new(Code::DirectoryForeign, foreign)
        .hint("use an empty directory, or one that does not exist yet")
        .into())
}

fn damaged(message: String) -> anyhow::Error {
    Rejection::new(Code::DirectoryDamaged, message)
        .hint("restore it from a backup")
        .into()
}

/// The keys of the accounts that one machine plays; the peer's own lies with the peer.
pub(super) struct Keys {
    pub(super) operator: SecretKey,
    pub(super) controller: SecretKey,
    pub(super) provider: SecretKey,
}

impl Keys {
    /// Those of the data directory `data`. A network that was made with them needs them: then a missing one is an
    /// error.
    pub(super) fn load_or_create(data: &Path) -> Result<Self> {
        let directory = data.join("keys");
        make_private(&directory)?;
        let in_use = data.join("peer/genesis.json").exists();
        let key = |name: &str| {
            let path = directory.join(format!("{name}.key"));
            if in_use && !path.exists() {
                return Err(damaged(format!("{} is missing", path.display())));
            }
            load_or_create_key(&path)
        };
        Ok(Self {
            operator: key("operator")?,
            controller: key("controller")?,
            provider: key("provider")?,
        })
    }
}

pub(super) fn load_or_create_key(path: &Path) -> Result<SecretKey> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let mut seed = [0; 32];
            hex::decode_to_slice(text.trim(), &mut seed)
                .map_err(|_| damaged(format!("{} is not a key", path.display())))?;
            Ok(SecretKey::from_seed(seed))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = SecretKey::from_seed(rand::rng().random());
            write_private(path, &hex::encode(key.to_seed()))?;
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Whole or not at all, readable by its owner alone.
pub(super) fn write_private(path: &Path, text: &str) -> Result<()> {
    piecework_provider::agent::write_private(path, text).with_context(|| format!("cannot write {}", path.display()))
}
