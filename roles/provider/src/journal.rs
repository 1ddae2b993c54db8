//! The sequences that were begun, on disk: after a restart the provider runs none of them again.
//!
//! The version of all records in the file, then records of 29 bytes, appended as jobs begin and not synced: they outlive the process, and a power cut may lose the
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
use piecework_model::{Code, Format, LeaseId, Rejection, UnknownVersion};

const RECORD: usize = 29;
/// Opening a journal writes it anew, so one file has records of one version. Version 0 has the records of version 1.
const BEGUN: Format = Format::new("journal of begun jobs", 1);
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
    /// Of the version and whole records.
    length: u64,
}

impl Written {
    fn anew(path: &Path, begun: Vec<Begun>) -> io::Result<Self> {
        let partial = path.with_extension("partial");
        let mut records = BEGUN.prefix().to_vec();
        records.extend(begun.into_iter().flat_map(encode));
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
                    tracing::error!(%error, "an incomplete record stays in the journal of begun jobs");
                }
            }
        }
        written
    }
}

impl Journal {
    /// Reads what there is, lets `compact` say it shorter, and begins a new file with that.
    pub(crate) fn open(path: &Path, compact: impl FnOnce(Vec<Begun>) -> Vec<Begun>) -> io::Result<Self> {
        let bytes = read(path)?;
        let (_, records) = BEGUN.split(&bytes).map_err(newer)?;
        // A record that a crash cut short was of a job that never began.
        let compacted = compact(records.chunks_exact(RECORD).filter_map(decode).collect());
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
            _ => Rejection::new(Code::ProviderDiskFailed, "the provider cannot write to its disk"),
        })
    }
}

pub(crate) fn disk_full() -> Rejection {
    Rejection::new(Code::ProviderDiskFull, "the provider's disk is full")
}

/// `InvalidData` around [`piecework_model::UnknownVersion`].
pub(crate) fn newer(unknown: UnknownVersion) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, unknown)
}

/// Nothing where there is no file.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// Whether this build reads the journal at `path`. Writes nothing.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    BEGUN.split(&read(path)?).map(drop).map_err(newer)
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

    fn read_begun(path: &Path) -> Vec<Begun> {
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
        assert_eq!(read_begun(&path), [Begun::One(LEASE, 3), Begun::One(LEASE, 9)]);
    }

    #[test]
    fn a_journal_from_before_versions_is_read_and_a_newer_one_left_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("begun");
        let old: Vec<u8> = [Begun::AllBelow(LEASE, 7), Begun::One(LEASE, 9)]
            .into_iter()
            .flat_map(encode)
            .collect();
        fs::write(&path, old).expect("writes");
        for _ in ["as it was", "as this build writes it"] {
            assert_eq!(read_begun(&path), [Begun::AllBelow(LEASE, 7), Begun::One(LEASE, 9)]);
        }
        let newer = [&[piecework_model::MARK, BEGUN.newest() + 1][..], b"something else"].concat();
        fs::write(&path, &newer).expect("writes");
        let refused = Journal::open(&path, |begun| begun).map(drop).expect_err("newer");
        assert!(refused.to_string().contains("version 2"), "{refused}");
        check(&path).expect_err("newer");
        assert_eq!(fs::read(&path).expect("reads"), newer);
    }

    #[test]
    fn a_full_disk_refuses_the_job_and_shifts_no_record() {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let journal = Journal {
            path: PathBuf::from("/dev/full"),
            written: Mutex::new(Written { file: full, length: 0 }),
        };
        assert_eq!(journal.note(LEASE, 1).expect_err("full").code, Code::ProviderDiskFull);
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
        assert_eq!(
            journal.note(LEASE, 1).expect_err("failed").code,
            Code::ProviderDiskFailed
        );
        assert_eq!(read_begun(file.path()), []);
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
        assert_eq!(read_begun(&path), [Begun::AllBelow(LEASE, 100), Begun::One(LEASE, 100)]);
    }
}
