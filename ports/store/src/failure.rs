//! What can go wrong in the store, by kind.

use std::{io, path::PathBuf};

use piecework_model::UnknownVersion;

use crate::Kept;

/// Why a record could not be written or read.
///
/// `Conflict` and `NotFound` answer the caller's own wish and change nothing; every other variant belongs to the world.
#[derive(Debug, thiserror::Error)]
pub enum StoreFailure {
    #[error("{what} already exists")]
    Conflict { what: &'static str },
    #[error("there is no such {what}")]
    NotFound { what: &'static str },
    /// Nothing was written; the same call succeeds once there is space.
    #[error("the disk with the data directory is full; free some space")]
    DiskFull,
    /// The account keeps as much of this kind as it may; nothing was written.
    #[error("the account keeps {used} of at most {most} of {kept:?}")]
    OverQuota { kept: Kept, used: u64, most: u64 },
    /// Too many jobs wait for the tables; the caller may retry in a second.
    #[error("the limit of {jobs} jobs ({bytes} bytes) waiting to be stored is reached; retry in a second")]
    Overloaded { jobs: u64, bytes: u64 },
    #[error("the job's record of {bytes} bytes is larger than the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("another process uses the data directory {directory}; stop it first")]
    Locked { directory: PathBuf },
    #[error(
        "{directory} contains files that are not from a Piecework store; use an empty directory, or one of an earlier run"
    )]
    Foreign { directory: PathBuf },
    #[error(
        "the data in {directory} has format {found}, but this program supports only formats up to {known}; run the newer program, or restore a backup"
    )]
    Newer { directory: PathBuf, found: u32, known: u32 },
    #[error(transparent)]
    UnknownVersion(#[from] UnknownVersion),
    #[error("{what} is damaged at byte {position}; restore it from a backup, or move it away to continue without it")]
    Corrupt { what: String, position: u64 },
    /// It existed in an earlier run: to continue would start over and forget what the rest remembers.
    #[error("{path} is missing; restore it from a backup, or move the whole directory away to start over")]
    Gone { path: PathBuf },
    /// Short, cut, changed, or sealed under another key or for another context.
    #[error("cannot decrypt sealed data: it was changed, or was sealed elsewhere or for another purpose")]
    SealBroken,
    #[error("the master key file is not 32 bytes long; restore it from a backup")]
    BadMasterKey,
    #[error("the master key does not match this data; restore it from a backup")]
    OtherMasterKey,
    #[error("the system's random source failed")]
    NoEntropy,
    #[error("cannot hash a password")]
    PasswordHash,
    /// A sync to disk failed: nothing is accepted until what was written before is on disk after all. The same call succeeds
    /// then.
    #[error("the journal could not be written to disk; it accepts records again once the disk takes them")]
    JournalStalled,
    /// It was found damaged after a failed sync, or the store is being closed.
    #[error("the journal could not be written to disk and is closed until the next start")]
    JournalClosed,
    #[error("{operation} failed")]
    Io {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{operation} failed in the database")]
    Database {
        operation: &'static str,
        #[source]
        source: sqlx::Error,
    },
    #[error("cannot read a stored {what}")]
    Undecodable { what: &'static str },
}

impl StoreFailure {
    /// A stable code for logs, metrics and exit messages.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "store.conflict",
            Self::NotFound { .. } => "store.not_found",
            Self::DiskFull => "store.disk_full",
            Self::OverQuota { .. } => "store.over_quota",
            Self::Overloaded { .. } => "store.overloaded",
            Self::TooLarge { .. } => "store.too_large",
            Self::Locked { .. } => "store.locked",
            Self::Foreign { .. } => "store.foreign",
            Self::Newer { .. } | Self::UnknownVersion(_) => "store.newer",
            Self::Corrupt { .. } | Self::Undecodable { .. } => "store.corrupt",
            Self::SealBroken => "store.seal_broken",
            Self::Gone { .. } => "store.gone",
            Self::BadMasterKey | Self::OtherMasterKey => "store.bad_master_key",
            Self::NoEntropy => "store.no_entropy",
            Self::PasswordHash => "store.password_hash",
            Self::JournalStalled => "store.journal_stalled",
            Self::JournalClosed => "store.journal_closed",
            Self::Io { .. } => "store.io",
            Self::Database { .. } => "store.database",
        }
    }

    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// Names the operation of an input or output error; a full disk becomes its own variant.
    pub(crate) fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io { operation, source },
        }
    }

    /// Names the operation of a database error; a full disk becomes its own variant.
    pub(crate) fn database(operation: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| match database_code(&source).as_deref() {
            // SQLITE_FULL, and SQLITE_IOERR_SHMSIZE: the write-ahead log's index could not grow.
            Some("13" | "4874") => Self::DiskFull,
            Some("11" | "26") => Self::Corrupt {
                what: "the database".to_owned(),
                position: 0,
            },
            Some(_) | None => Self::Database { operation, source },
        }
    }

    /// As [`Self::database`], where a unique index says that `what` exists.
    pub(crate) fn unique(operation: &'static str, what: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| match &source {
            sqlx::Error::Database(error) if error.is_unique_violation() => Self::Conflict { what },
            _ => Self::database(operation)(source),
        }
    }
}

fn database_code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}
