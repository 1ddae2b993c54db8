//! The bundle on the host, made readable for the identity that jails have.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use piecework_sandbox::Program;

/// Search and read for others on directories, read on files: the jails' identity owns nothing.
const DIRECTORY_BITS: u32 = 0o005;
const FILE_BITS: u32 = 0o004;

/// The bundle's real path. Where jails run as somebody else, a bundle that others cannot read gets that permission once; who
/// may come near it on the host is decided by the directories above it, which are left alone.
pub(crate) fn open_to_jails(program: &Program, as_somebody_else: bool) -> io::Result<PathBuf> {
    match as_somebody_else {
        true => open_to_others(program),
        false => program.directory.canonicalize(),
    }
}

/// As [`open_to_jails`], where sandboxes always run as somebody else.
pub fn open_to_others(program: &Program) -> io::Result<PathBuf> {
    let directory = program.directory.canonicalize()?;
    let entry = directory.join(program.language.entry_file());
    let open = has(&directory, DIRECTORY_BITS)? && (!entry.exists() || has(&entry, FILE_BITS)?);
    if !open {
        open_all(&directory)?;
    }
    Ok(directory)
}

fn has(path: &Path, bits: u32) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & bits == bits)
}

fn open_all(directory: &Path) -> io::Result<()> {
    add(directory, DIRECTORY_BITS)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            open_all(&entry.path())?;
        } else if kind.is_file() {
            add(&entry.path(), FILE_BITS)?;
        }
    }
    Ok(())
}

fn add(path: &Path, bits: u32) -> io::Result<()> {
    let mut permissions = fs::metadata(path)?.permissions();
    permissions.set_mode(permissions.mode() | bits);
    fs::set_permissions(path, permissions)
}
