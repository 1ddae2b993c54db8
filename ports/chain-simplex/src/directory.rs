//! A peer's directory: one process at a time, one network and one key for ever.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::{Digest, Format, NetworkId, PublicKey};

use crate::ChainFailure;

const LOCK_FILE: &str = "chain.lock";
const MARK_FILE: &str = "chain.mark";
const HIGH_WATER_FILE: &str = "chain.high";
const NEW_FILE: &str = "chain.new";
const PROBE_FILE: &str = "chain.probe";
const DATA_DIRECTORY: &str = "chain";
/// Of the layout below and of every encoding in it; a directory of another is not touched.
const FORMAT: Format = Format::new("ledger's directory", 1);

/// Says whose directory this is; its own digest shows damage.
#[derive(BorshSerialize, BorshDeserialize, PartialEq, Eq)]
struct Mark {
    format: u32,
    network: NetworkId,
    key: PublicKey,
}

/// The directory while this process owns it; dropping releases it.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    _lock: File,
}

impl Directory {
    /// Creates or opens the directory of this network and key.
    pub(crate) fn open(root: &Path, network: NetworkId, key: PublicKey) -> Result<Self, ChainFailure> {
        // Before anything is written, be it the lock: a newer program's directory is left as it is.
        check_format(root)?;
        fs::create_dir_all(root).map_err(|error| ChainFailure::directory(root, error))?;
        let lock = lock(root)?;
        let mark = Mark {
            format: FORMAT.newest().into(),
            network,
            key,
        };
        check_mark(root, &mark)?;
        Ok(Self {
            root: root.to_owned(),
            _lock: lock,
        })
    }

    /// What the engine writes to.
    pub fn data(&self) -> PathBuf {
        self.root.join(DATA_DIRECTORY)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory {
            path: self.root.join(NEW_FILE),
        }
    }

    /// Calls damage by its name, where the engine's words say that it found some, and a full disk, which they often do not
    /// name; `reading` is the block that was being read, or 0.
    pub fn blame(&self, failure: ChainFailure, reading: u64) -> ChainFailure {
        const SIGNS: [&str; 3] = ["BlobCorrupt", "checksum mismatch", "corrupt"];
        match failure {
            ChainFailure::Stopped { detail } if SIGNS.iter().any(|sign| detail.contains(sign)) => {
                let of = if reading > 0 {
                    format!("block {reading}: ")
                } else {
                    String::new()
                };
                ChainFailure::Corrupt {
                    directory: self.root.clone(),
                    detail: format!("{of}{detail}"),
                }
            }
            ChainFailure::Stopped { detail } if !has_room(&self.root) => ChainFailure::DiskFull { detail },
            other => other,
        }
    }
}

/// Whether the disk takes what the engine writes at a time, and syncs it: some file systems say only then that they are full.
pub fn has_room(root: &Path) -> bool {
    const WRITTEN_AT_ONCE: usize = 1 << 20;
    let path = root.join(PROBE_FILE);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&vec![1; WRITTEN_AT_ONCE])?;
        file.sync_all()
    });
    // A file that was not made cannot be removed.
    let _ = fs::remove_file(&path);
    !written.is_err_and(|error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// Whether the directory remembers all votes that its key may have given in the epoch that the network is in.
///
/// A directory begins without such a memory: its owner may have lost an older one, and what it would vote now might
/// contradict what it voted then.
pub(crate) struct Memory {
    path: PathBuf,
}

impl Memory {
    pub(crate) fn is_whole(&self) -> bool {
        !self.path.exists()
    }

    /// An epoch has passed of which this peer knows its votes: whatever it gave before is history.
    pub(crate) fn complete(&self) -> Result<(), ChainFailure> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(ChainFailure::directory(&self.path, error)),
        }
    }
}

fn lock(root: &Path) -> Result<File, ChainFailure> {
    let path = root.join(LOCK_FILE);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| ChainFailure::directory(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ChainFailure::Locked {
            directory: root.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(ChainFailure::directory(path, error)),
    }
}

/// Compares the mark, or writes it into a directory that has no data yet.
fn check_mark(root: &Path, mark: &Mark) -> Result<(), ChainFailure> {
    let path = root.join(MARK_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return write_mark(root, &path, mark),
        Err(error) => return Err(ChainFailure::directory(path, error)),
    };
    let corrupt = |detail: &str| ChainFailure::Corrupt {
        directory: root.to_owned(),
        detail: detail.to_owned(),
    };
    let (found, digest): (Mark, Digest) = borsh::from_slice(&bytes).map_err(|_| corrupt("the mark file is damaged"))?;
    if digest != seal(&found) {
        return Err(corrupt("the mark file is damaged"));
    }
    if found != *mark {
        return Err(ChainFailure::ForeignDirectory {
            directory: root.to_owned(),
        });
    }
    if !root.join(DATA_DIRECTORY).is_dir() {
        // A peer that starts over under its old key could vote twice in one view.
        return Err(corrupt("its data is gone"));
    }
    Ok(())
}

fn seal(mark: &impl BorshSerialize) -> Digest {
    Digest::of_value("piecework 2026 chain directory", mark)
}

/// The bytes of a mark of any version, as they are.
struct Unread<'a>(&'a [u8]);

impl BorshSerialize for Unread<'_> {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.0)
    }
}

/// Whether this build reads what lies in a peer's directory: `Newer` where not. Writes nothing; a directory that is not there
/// may be made, and what is damaged is found when it is opened.
///
/// A mark of any version is its number, what only that version knows, and the seal of both.
pub fn check_format(root: &Path) -> Result<(), ChainFailure> {
    let path = root.join(MARK_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(ChainFailure::directory(path, error)),
    };
    let whole = bytes
        .split_last_chunk::<32>()
        .filter(|(mark, digest)| seal(&Unread(mark)).0 == **digest);
    let Some((format, _)) = whole.and_then(|(mark, _)| mark.split_first_chunk::<4>()) else {
        return Ok(());
    };
    FORMAT
        .check(u32::from_le_bytes(*format))
        .map(drop)
        .map_err(|unknown| ChainFailure::Newer {
            directory: root.to_owned(),
            unknown,
        })
}

fn write_mark(root: &Path, path: &Path, mark: &Mark) -> Result<(), ChainFailure> {
    let data = root.join(DATA_DIRECTORY);
    if data.is_dir() {
        return Err(ChainFailure::Corrupt {
            directory: root.to_owned(),
            detail: "there is data but no mark file".to_owned(),
        });
    }
    let bytes = borsh::to_vec(&(mark, seal(mark))).expect("a vector accepts every byte");
    let draft = root.join("chain.mark.new");
    let write = || -> io::Result<()> {
        File::create(root.join(NEW_FILE))?.sync_all()?;
        let mut file = File::create(&draft)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        fs::create_dir_all(&data)?;
        File::open(root)?.sync_all()
    };
    write().map_err(|error| ChainFailure::directory(path, error))
}

/// The highest block that was shown as final: a ledger below it has lost what its users were told.
///
/// Written without a sync, so after a power cut it may be old, never ahead of the ledger; an unreadable one says nothing.
#[derive(Debug)]
pub(crate) struct HighWater {
    file: File,
    reached: Option<(u64, Digest)>,
}

impl HighWater {
    pub(crate) fn open(directory: &Directory) -> Result<Self, ChainFailure> {
        let path = directory.root.join(HIGH_WATER_FILE);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let mut file = options
            .open(&path)
            .map_err(|error| ChainFailure::directory(&path, error))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|error| ChainFailure::directory(&path, error))?;
        let read: Option<((u64, Digest), Digest)> = borsh::from_slice(&bytes).ok();
        let reached = read
            .filter(|(reached, seal)| seal_of(reached) == *seal)
            .map(|(reached, _)| reached);
        Ok(Self { file, reached })
    }

    /// What an earlier run had shown.
    pub(crate) fn reached(&self) -> Option<(u64, Digest)> {
        self.reached
    }

    pub(crate) fn raise(&self, height: u64, digest: Digest) -> io::Result<()> {
        let reached = (height, digest);
        let bytes = borsh::to_vec(&(reached, seal_of(&reached))).expect("a vector accepts every byte");
        self.file.write_all_at(&bytes, 0)
    }
}

fn seal_of(reached: &(u64, Digest)) -> Digest {
    Digest::of_value("piecework 2026 chain high water", reached)
}
