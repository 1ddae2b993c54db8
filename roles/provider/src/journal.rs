//! The sequences that were begun, on disk: after a restart the provider runs none of them again.
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
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use piecework_model::{LeaseId, Rejection};

const RECORD: usize = 29;
const ONE: u8 = 0;
const ALL_BELOW: u8 = 1;

/// Longer than this a journal is written anew, shorter: half a million jobs.
const BYTES_MAX: u64 = 16 << 20;

pub(crate) struct Journal {
    path: PathBuf,
    written: Mutex<Written>,
}

/// What a journal says of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    One(LeaseId, u64),
    AllBelow(LeaseId, u64),
}

struct Written {
    file: File,
    /// Of whole records.
    length: u64,
}

impl Written {
    fn anew(path: &Path, begun: Vec<Begun>) -> io::Result<Self> {
        let partial = path.with_extension("partial");
        let records: Vec<u8> = begun.into_iter().flat_map(encode).collect();
        let mut file = File::create(&partial)?;
        file.write_all(&records)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        let file = OpenOptions::new().append(true).open(path)?;
        let length = records.len() as u64;
        Ok(Self { file, length })
    }

    /// All of the record or nothing of it: half a record would shift those after it.
    fn append(&mut self, record: &[u8; RECORD]) -> io::Result<()> {
        let written = self.file.write_all(record);
        match written {
            Ok(()) => self.length += RECORD as u64,
            Err(_) => {
                if let Err(error) = self.file.set_len(self.length) {
                    tracing::error!(%error, "half a record stays in the journal of begun jobs");
                }
            }
        }
        written
    }
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
        Ok(Self {
            written: Mutex::new(Written::anew(path, compacted)?),
            path: path.to_owned(),
        })
    }

    pub(crate) fn is_long(&self) -> bool {
        self.written.lock().length > BYTES_MAX
    }

    /// Puts `begun`, which says the same as all records so far, in their place.
    pub(crate) fn shorten(&self, begun: Vec<Begun>) -> io::Result<()> {
        let mut written = self.written.lock();
        *written = Written::anew(&self.path, begun)?;
        Ok(())
    }

    /// Rejects with `provider.disk_full` (or `provider.disk_failed`): what cannot be remembered must not run.
    pub(crate) fn note(&self, lease: LeaseId, sequence: u64) -> Result<(), Rejection> {
        let written = self.written.lock().append(&encode(Begun::One(lease, sequence)));
        written.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => disk_full(),
            _ => Rejection::new("provider.disk_failed", "the provider cannot write to its disk"),
        })
    }
}

pub(crate) fn disk_full() -> Rejection {
    Rejection::new("provider.disk_full", "the provider's disk is full")
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

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: LeaseId = LeaseId([7; 20]);

    fn read(path: &Path) -> Vec<Begun> {
        let mut found = Vec::new();
        Journal::open(path, |begun| {
            found.clone_from(&begun);
            begun
        })
        .expect("opens");
        found
    }

    #[test]
    fn what_was_noted_is_there_after_a_restart_and_half_a_record_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("begun");
        let journal = Journal::open(&path, |begun| begun).expect("opens");
        journal.note(LEASE, 3).expect("notes");
        journal.note(LEASE, 9).expect("notes");
        drop(journal);
        let mut bytes = fs::read(&path).expect("reads");
        bytes.extend_from_slice(&[0; RECORD - 1]);
        fs::write(&path, bytes).expect("writes");
        assert_eq!(read(&path), [Begun::One(LEASE, 3), Begun::One(LEASE, 9)]);
    }

    #[test]
    fn a_full_disk_refuses_the_job_and_shifts_no_record() {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let journal = Journal {
            path: PathBuf::from("/dev/full"),
            written: Mutex::new(Written { file: full, length: 0 }),
        };
        assert_eq!(journal.note(LEASE, 1).expect_err("full").code, "provider.disk_full");
    }

    #[test]
    fn a_disk_that_takes_nothing_refuses_the_job() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let journal = Journal {
            path: file.path().to_owned(),
            // What a disk that fails looks like from here: open, and yet nothing is written.
            written: Mutex::new(Written {
                file: File::open(file.path()).expect("opens"),
                length: 0,
            }),
        };
        assert_eq!(journal.note(LEASE, 1).expect_err("failed").code, "provider.disk_failed");
        assert_eq!(read(file.path()), []);
    }

    #[test]
    fn a_long_journal_is_written_shorter() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("begun");
        let journal = Journal::open(&path, |begun| begun).expect("opens");
        for sequence in 0..100 {
            journal.note(LEASE, sequence).expect("notes");
        }
        journal.shorten(vec![Begun::AllBelow(LEASE, 100)]).expect("shortens");
        journal.note(LEASE, 100).expect("notes");
        drop(journal);
        assert_eq!(read(&path), [Begun::AllBelow(LEASE, 100), Begun::One(LEASE, 100)]);
    }
}
