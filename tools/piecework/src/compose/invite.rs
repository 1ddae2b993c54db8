//! An invite that waits in a provider's directory for the first start: in no unit file and in no list of processes, which everybody
//! can read.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

const FILE: &str = "invite";

/// The code, if one was kept and not used yet.
pub fn kept(directory: &Path) -> Result<Option<String>> {
    let path = directory.join(FILE);
    match fs::read_to_string(&path) {
        Ok(code) => Ok(Some(code.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Keeps a code where only its owner reads it: this user, or the one whose number is given.
pub fn keep(directory: &Path, code: &str, owner: Option<(u32, u32)>) -> Result<PathBuf> {
    let path = directory.join(FILE);
    let fresh = path.with_extension("new");
    let written = || -> io::Result<()> {
        // One of an earlier attempt may be readable by others.
        let _ = fs::remove_file(&fresh);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&fresh)?;
        writeln!(file, "{code}")?;
        if let Some((user, group)) = owner {
            // Of the file that was opened: the directory is the service's, which could put a link in its place.
            fchown(&file, Some(user), Some(group))?;
        }
        fs::rename(&fresh, &path)
    };
    written().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// It was used.
pub fn forget(directory: &Path) {
    // One that stays is of no use to anybody.
    let _ = fs::remove_file(directory.join(FILE));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_kept_invite_is_read_by_its_owner_alone_until_it_is_used() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(kept(directory.path()).expect("none"), None);
        for code in ["inv_one", "inv_two"] {
            let path = keep(directory.path(), code, None).expect("kept");
            let mode = fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(kept(directory.path()).expect("read").as_deref(), Some(code));
        }
        forget(directory.path());
        assert_eq!(kept(directory.path()).expect("none"), None);
    }
}
