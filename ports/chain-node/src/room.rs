//! Waits for room on the disk where a write finds none: the engine answers a failed write by ending.
//!
//! A file system that says so only at the sync ends the engine all the same, and it is started again (see
//! [`lasting`](crate::lasting)). Until a peer is where its last run had left it, a full disk ends its start instead, with a sentence.

use std::{
    future::Future,
    io::ErrorKind,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use commonware_runtime::Error;

/// Nobody fills so much between a look and the write that follows it.
const AMPLE_BYTES: u64 = 1 << 30;
/// With less than this, an attempt to make a file can only fail, and leaves half of one.
const FILE_BYTES: u64 = 256 << 10;
/// Attempts after a failure that does not say why, while there seems to be room: somebody may have made it since.
const UNCLEAR_MAX: u32 = 20;
/// Between attempts.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

pub(crate) struct Room {
    directory: PathBuf,
    patient: AtomicBool,
    /// Somebody waits, which was said.
    waiting: AtomicBool,
}

impl Room {
    pub(crate) fn new(directory: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            directory,
            patient: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
        })
    }

    /// From now on what finds no room waits.
    pub(crate) fn be_patient(&self) {
        self.patient.store(true, Ordering::Relaxed);
    }

    /// As much as there can be where the disk does not say.
    fn free(&self) -> u64 {
        rustix::fs::statvfs(&self.directory).map_or(u64::MAX, |found| found.f_bavail.saturating_mul(found.f_frsize))
    }

    pub(crate) fn is_ample(&self) -> bool {
        self.free() >= AMPLE_BYTES
    }

    /// Does it, again and again while it fails for want of room. It must be such that a failed attempt leaves no harm.
    pub(crate) async fn until_there_is<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut unclear = 0;
        loop {
            match attempt().await {
                Err(error)
                    if self.patient.load(Ordering::Relaxed) && self.may_be_for_want_of_room(&error, &mut unclear) =>
                {
                    if !self.waiting.swap(true, Ordering::Relaxed) {
                        tracing::error!("the disk is full: the ledger stands still until there is room");
                    }
                    // On the engine's own runtime, which is tokio's.
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                done => {
                    if done.is_ok() && self.waiting.swap(false, Ordering::Relaxed) {
                        tracing::info!("there is room on the disk again: the ledger goes on");
                    }
                    return done;
                }
            }
        }
    }

    /// `unclear`: how often that was not to be told.
    fn may_be_for_want_of_room(&self, error: &Error, unclear: &mut u32) -> bool {
        match error {
            Error::Io(cause) | Error::BlobOpenFailed(_, _, cause) | Error::BlobResizeFailed(_, _, cause) => {
                matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
            }
            // They do not say why.
            Error::PartitionCreationFailed(_) | Error::WriteFailed => {
                if self.free() >= FILE_BYTES {
                    *unclear += 1;
                }
                *unclear <= UNCLEAR_MAX
            }
            _ => false,
        }
    }
}
