//! A file that holds part of the disk, to be given up for what must be written.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use rustix::fs::{FallocateFlags, fallocate};

/// Half of the reserve, and no more than what is under way takes when the disk is full: its records and their settlement.
const SHARE: u64 = 2;
const BYTES_MAX: u64 = 64 << 20;

pub(crate) struct Ballast {
    path: PathBuf,
    bytes: u64,
    held: bool,
}

impl Ballast {
    pub(crate) fn new(path: PathBuf, reserve_bytes: u64) -> Self {
        let held = path.exists();
        Self {
            path,
            bytes: (reserve_bytes / SHARE).min(BYTES_MAX),
            held,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Takes the room, unless it has it. All of it or nothing.
    pub(crate) fn take(&mut self) -> io::Result<()> {
        if self.held || self.bytes == 0 {
            return Ok(());
        }
        let taken = self.allocate();
        if taken.is_err() {
            // What was allocated of it is of use to others.
            let _ = fs::remove_file(&self.path);
        }
        self.held = taken.is_ok();
        taken
    }

    fn allocate(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let file: File = options.write(true).create(true).mode(0o600).open(&self.path)?;
        fallocate(&file, FallocateFlags::empty(), 0, self.bytes)?;
        Ok(())
    }

    /// Whether there was any to give up.
    pub(crate) fn give_up(&mut self) -> bool {
        if !self.held {
            return false;
        }
        let gone = fs::remove_file(&self.path);
        if let Err(error) = &gone {
            tracing::error!(%error, "the reserve could not be given up");
        }
        self.held = false;
        gone.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_room_is_taken_in_fact_and_given_up_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("reserve");
        let mut ballast = Ballast::new(path.clone(), 8 << 20);
        ballast.take().expect("room");
        let taken = fs::metadata(&path).expect("there").blocks() * 512;
        assert!(taken >= 4 << 20, "{taken}");
        assert!(Ballast::new(path.clone(), 8 << 20).is_held(), "found again");
        assert!(ballast.give_up() && !ballast.give_up() && !path.exists());
    }
}
