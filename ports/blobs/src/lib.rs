//! Keeps bundles by digest.
//!
//! A [`Bundle`] is the canonical form of a function's files; [`Blobs`] keeps it by the digest of that form;
//! [`Unpacked`] keeps the directories that sandboxes read.

mod bundle;
mod files;
mod unpacked;
mod zip;

use async_trait::async_trait;
use bytes::Bytes;
use piecework_model::{Digest, Rejection};

pub use bundle::{Bundle, BundleLimits, Packed, is_program};
pub use files::Files;
pub use unpacked::{InUse, Unpacked};

/// Bytes kept by the digest of their content.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Keeps `bytes`; durable when it returns. Idempotent: the same bytes are kept once.
    async fn put(&self, bytes: Bytes) -> Result<Digest, BlobsError>;

    /// The bytes of `digest`, checked against it.
    async fn get(&self, digest: &Digest) -> Result<Bytes, BlobsError>;

    async fn has(&self, digest: &Digest) -> Result<bool, BlobsError>;

    /// How large they are; `None` if they are not there.
    async fn size(&self, digest: &Digest) -> Result<Option<BlobSize>, BlobsError>;

    /// All that are kept, in no order.
    async fn list(&self) -> Result<Vec<Digest>, BlobsError>;

    /// Forgets the bytes; `false` if they were not there.
    async fn delete(&self, digest: &Digest) -> Result<bool, BlobsError>;
}

/// The bytes of a blob, and what they take on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobSize {
    pub bytes: u64,
    pub disk_bytes: u64,
}

/// What the world did to a blob or a directory.
#[derive(Debug, thiserror::Error)]
pub enum BlobsError {
    #[error("blob {0} is not kept here")]
    NotFound(Digest),
    /// The stored bytes do not match the digest; restore the blob from elsewhere.
    #[error("blob {digest} is corrupt: {reason}")]
    Corrupt { digest: Digest, reason: String },
    #[error("no room: {needed_bytes} bytes are needed and {quota_bytes} are allowed")]
    Full { needed_bytes: u64, quota_bytes: u64 },
    /// The bytes of a kept blob are not a bundle, or a folder cannot become one.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error("{operation}: {source}")]
    Io {
        operation: &'static str,
        #[source]
        source: std::io::Error,
    },
}

impl BlobsError {
    /// For `map_err`: names the operation that failed.
    pub(crate) fn io(operation: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }

    /// Whether the disk has no room left: the caller may be told.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Io { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ),
            Self::NotFound(_) | Self::Corrupt { .. } | Self::Rejected(_) => false,
        }
    }
}

/// Runs blocking work off the async threads; a panic in it is resumed here.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => unreachable!("blocking work is not cancelled while its runtime lives"),
    }
}
