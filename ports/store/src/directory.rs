//! The data directory: its marker, its format, and its lock for one process.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use piecework_model::Format;

use crate::StoreFailure;

/// Of all that lies in a store's directory. Higher whenever anything is written there that the build before cannot read; the
/// number in the directory is raised before the first such record.
///
/// - 1: frames, segments, job records and sealed bytes have versions, other records do not.
/// - 2: every record has one.
/// - 3: what accounts keep is counted; results may be dropped; tokens have parents, in a column of their table.
/// - 4: the audit record has a bound; what was dropped of it is noted in a table.
/// - 5: build logs have a table.
const FORMAT: Format = Format::new("store", 5);
pub(crate) const VERSION_FILE: &str = "VERSION";
const LOCK_FILE: &str = "lock";
const PREFIX: &str = "piecework store ";

/// A locked data directory; the lock goes with the value, also when the process dies.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Takes or makes the directory: `Locked`, `Foreign` or `Newer` where it must not be touched.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreFailure> {
        create_private(path)?;
        check_foreign(path)?;
        // Before anything is written, be it the lock: a newer program's directory is left as it is.
        check_version(path)?;
        let lock = lock(path)?;
        if check_version(path)? != Some(FORMAT.newest().into()) {
            write_version(path)?;
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A subdirectory, made if needed.
    pub(crate) fn subdirectory(&self, name: &str) -> Result<PathBuf, StoreFailure> {
        let path = self.path.join(name);
        create_private(&path)?;
        Ok(path)
    }
}

/// Whether a store of this build may open the directory, by its format alone: `Newer` or `Foreign` where not. Reads one file,
/// and writes nothing; a directory that is not there may be made.
pub fn check(path: &Path) -> Result<(), StoreFailure> {
    check_version(path).map(drop)
}

fn create_private(path: &Path) -> Result<(), StoreFailure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StoreFailure::io("making the data directory"))
}

/// Nothing is written into a directory that has files but no version; our own first files do not count, as a crash may
/// have come right after them.
fn check_foreign(path: &Path) -> Result<(), StoreFailure> {
    let mut foreign = false;
    for entry in fs::read_dir(path).map_err(StoreFailure::io("reading the data directory"))? {
        let name = entry
            .map_err(StoreFailure::io("reading the data directory"))?
            .file_name();
        if name == VERSION_FILE {
            return Ok(());
        }
        foreign |= name != LOCK_FILE && name != "VERSION.new" && name != "lost+found";
    }
    if foreign {
        return Err(StoreFailure::Foreign {
            directory: path.to_owned(),
        });
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, StoreFailure> {
    let file = File::create(path.join(LOCK_FILE)).map_err(StoreFailure::io("opening the lock file"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreFailure::Locked {
            directory: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(StoreFailure::io("locking the data directory")(error)),
    }
}

/// The directory's format, if it says one, and if this build knows it. Writes nothing.
fn check_version(path: &Path) -> Result<Option<u32>, StoreFailure> {
    let text = match fs::read_to_string(path.join(VERSION_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreFailure::io("reading the version file")(error)),
    };
    let found = text
        .strip_prefix(PREFIX)
        .and_then(|number| number.trim().parse::<u32>().ok());
    match found.map(|found| (found, FORMAT.check(found))) {
        Some((1.., Ok(found))) => Ok(Some(found)),
        Some((found, Err(unknown))) => Err(StoreFailure::Newer {
            directory: path.to_owned(),
            found,
            known: unknown.newest,
        }),
        Some((0, Ok(_))) | None => Err(StoreFailure::Foreign {
            directory: path.to_owned(),
        }),
    }
}

fn write_version(path: &Path) -> Result<(), StoreFailure> {
    let beside = path.join("VERSION.new");
    let write = || {
        let mut file = File::create(&beside)?;
        writeln!(file, "{PREFIX}{}", FORMAT.newest())?;
        file.sync_all()?;
        fs::rename(&beside, path.join(VERSION_FILE))?;
        File::open(path)?.sync_all()
    };
    write().map_err(StoreFailure::io("writing the version file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_users_of_one_directory_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Directory::open(directory.path()).expect("opened");
        let refused = Directory::open(directory.path()).expect_err("locked");
        assert_eq!(refused.code(), "store.locked");
        drop(first);
        Directory::open(directory.path()).expect("free again");
    }

    #[test]
    fn an_older_directory_is_taken_up_and_closed_to_older_programs() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(VERSION_FILE), "piecework store 1\n").expect("written");
        drop(Directory::open(directory.path()).expect("opened"));
        let text = fs::read_to_string(directory.path().join(VERSION_FILE)).expect("read");
        assert_eq!(text, "piecework store 5\n");
    }

    #[test]
    fn a_newer_or_foreign_directory_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("holiday.jpg"), b"x").expect("written");
        assert_eq!(
            Directory::open(directory.path()).expect_err("foreign").code(),
            "store.foreign"
        );
        assert_eq!(
            fs::read_dir(directory.path()).expect("read").count(),
            1,
            "nothing was written"
        );
        fs::write(directory.path().join(VERSION_FILE), "piecework store 7\n").expect("written");
        let newer = Directory::open(directory.path()).expect_err("newer");
        assert_eq!(newer.code(), "store.newer");
        assert!(newer.to_string().contains("format 7"), "{newer}");
        assert_eq!(
            fs::read_dir(directory.path()).expect("read").count(),
            2,
            "not even a lock was written"
        );
        fs::write(directory.path().join(VERSION_FILE), "something else\n").expect("written");
        assert_eq!(
            Directory::open(directory.path()).expect_err("foreign").code(),
            "store.foreign"
        );
    }
}
