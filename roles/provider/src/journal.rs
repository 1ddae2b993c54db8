//! Which sequences were begun, on disk: a provider that restarts runs none of them again.
//!
//! Records of 29 bytes, appended as jobs begin and not synced: they outlive the process, and a power cut may lose the
//! last seconds. What is lost then can only cost the provider work: the ledger pays a sequence once whatever happens.
//!
//! ```text
//! kind (0 this sequence, 1 all below) | lease, 20 bytes | sequence, 8 bytes little-endian
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use parking_lot::Mutex;
use piecework_model::{LeaseId, Rejection};

const RECORD: usize = 29;
const ONE: u8 = 0;
const ALL_BELOW: u8 = 1;

pub(crate) struct Journal(Mutex<File>);

/// What a journal says of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    One(LeaseId, u64),
    AllBelow(LeaseId, u64),
}

impl Journal {
    /// Reads what there is, lets `compact` say it shorter, and begins a new file with that.
    pub(crate) fn open(path: &Path, compact: impl FnOnce(Vec<Begun>) -> Vec<Begun>) -> io::Result<Self> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        // A record that a crash cut short was of a job that never began.
        let compacted = compact(bytes.chunks_exact(RECORD).filter_map(decode).collect());
        let partial = path.with_extension("partial");
        let mut file = File::create(&partial)?;
        for begun in compacted {
            file.write_all(&encode(begun))?;
        }
        file.sync_all()?;
        fs::rename(&partial, path)?;
        Ok(Self(Mutex::new(OpenOptions::new().append(true).open(path)?)))
    }

    /// Rejects with `provider.disk_full` (or `provider.disk_failed`): what cannot be remembered must not run.
    pub(crate) fn note(&self, lease: LeaseId, sequence: u64) -> Result<(), Rejection> {
        let written = self.0.lock().write_all(&encode(Begun::One(lease, sequence)));
        written.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Rejection::new("provider.disk_full", "the provider's disk is full")
            }
            _ => Rejection::new("provider.disk_failed", "the provider cannot write to its disk"),
        })
    }
}

fn encode(begun: Begun) -> [u8; RECORD] {
    let (kind, lease, sequence) = match begun {
        Begun::One(lease, sequence) => (ONE, lease, sequence),
        Begun::AllBelow(lease, sequence) => (ALL_BELOW, lease, sequence),
    };
    let mut record = [0; RECORD];
    record[0] = kind;
    record[1..21].copy_from_slice(&lease.0);
    record[21..].copy_from_slice(&sequence.to_le_bytes());
    record
}

fn decode(record: &[u8]) -> Option<Begun> {
    let lease = LeaseId(record.get(1..21)?.try_into().ok()?);
    let sequence = u64::from_le_bytes(record.get(21..)?.try_into().ok()?);
    match *record.first()? {
        ONE => Some(Begun::One(lease, sequence)),
        ALL_BELOW => Some(Begun::AllBelow(lease, sequence)),
        _ => None,
    }
}
