//! Files that only their owner reads, from their first moment on.
//!
//! Where there are no Unix permissions, a file has those of its folder: that of a user's own settings is closed to other users.

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
};

/// A new file; fails if there is one.
pub fn create_new(path: &Path) -> io::Result<File> {
    options().create_new(true).open(path)
}

/// An empty file, whether there is one or not.
pub fn create(path: &Path) -> io::Result<File> {
    options().create(true).truncate(true).open(path)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Whether other users can read the file.
#[cfg(unix)]
pub fn others_can_read(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(path.metadata()?.permissions().mode() & 0o077 != 0)
}

/// Unknown: it would be in a list of rights.
#[cfg(not(unix))]
pub fn others_can_read(_: &Path) -> io::Result<bool> {
    Ok(false)
}
