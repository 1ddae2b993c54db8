//! What can go wrong while keeping something, by kind.

use std::{io, path::PathBuf};

use piecework_model::UnknownVersion;

/// Why a record could not be written or read.
///
/// `Conflict` and `NotFound` answer the caller's own wish and change nothing; every other variant belongs to the world.
#[derive(Debug, thiserror::Error)]
pub enum StoreFailure {
    #[error("{what} is taken already")]
    Conflict { what: &'static str },
    #[error("there is no such {what}")]
    NotFound { what: &'static str },
    /// Nothing was written; the same call succeeds once there is space.
    #[error("the disk that holds the data directory is full; free some space, nothing else is needed")]
    DiskFull,
    /// Too many jobs wait for the tables; the caller may try again in a second.
    #[error("{jobs} jobs ({bytes} bytes) wait to be filed, which is the limit; try again in a second")]
    Overloaded { jobs: u64, bytes: u64 },
    #[error("one job's record of {bytes} bytes is above the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("another process uses the data directory {directory}; stop it first")]
    Locked { directory: PathBuf },
    #[error(
        "{directory} holds files that no piecework store has written; name an empty directory, or one of an earlier run"
    )]
    Foreign { directory: PathBuf },
    #[error(
        "the data in {directory} has format {found}, this program knows up to {known}; run the newer program, or restore a backup"
    )]
    Newer { directory: PathBuf, found: u32, known: u32 },
    #[error(transparent)]
    UnknownVersion(#[from] UnknownVersion),
    #[error("{what} is damaged at byte {position}; restore it from a backup, or move it away to go on without")]
    Corrupt { what: String, position: u64 },
    /// It was there in an earlier run: going on would begin anew and forget what the rest remembers.
    #[error("{path} is gone; restore it from a backup, or move the whole directory away to begin anew")]
    Gone { path: PathBuf },
    /// Short, cut, changed, or sealed under another key or for another context.
    #[error("sealed bytes cannot be opened: they were changed, or sealed elsewhere or for something else")]
    SealBroken,
    #[error("the master key file is not 32 bytes long; restore it from a backup")]
    BadMasterKey,
    #[error("the master key is not the one that sealed this data; restore it from a backup")]
    OtherMasterKey,
    #[error("the random source of the system gave nothing")]
    NoEntropy,
    #[error("a password could not be hashed")]
    PasswordHash,
    /// A sync to disk failed earlier: what was written since is uncertain, so nothing more is accepted before a restart.
    #[error("the journal could not be brought to disk and is closed until the next start")]
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
    #[error("a stored {what} cannot be read")]
    Undecodable { what: &'static str },
}

impl StoreFailure {
    /// A stable code for logs, metrics and exit messages.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "store.conflict",
            Self::NotFound { .. } => "store.not_found",
            Self::DiskFull => "store.disk_full",
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
