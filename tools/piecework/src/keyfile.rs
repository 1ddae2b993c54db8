//! A person's own key in a file: 64 hex digits, readable by its owner alone.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use anyhow::Context as _;
use piecework_model::SecretKey;
use rand::RngExt as _;

use crate::{failure::Failure, private};

/// The key in the file, if there is one. One that others can read is refused.
pub fn read(path: &Path) -> Result<Option<SecretKey>, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(anyhow::Error::new(error)
                .context(format!("cannot read {}", path.display()))
                .into());
        }
    };
    if private::others_can_read(path).context("the key was there a moment ago")? {
        return Err(Failure::usage(format!(
            "other users can read {0}\n  run `chmod 600 {0}`; if somebody may have read it, replace the key",
            path.display()
        )));
    }
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed)
        .map_err(|_| Failure::usage(format!("{} is not a key: expected 64 hex digits", path.display())))?;
    Ok(Some(SecretKey::from_seed(seed)))
}

/// The key in the file; an error if there is none.
pub fn existing(path: &Path) -> Result<SecretKey, Failure> {
    read(path)?.ok_or_else(|| Failure::usage(format!("no key in {}", path.display())))
}

/// The key in the file; a new one if there is none.
pub fn existing_or_new(path: &Path) -> Result<SecretKey, Failure> {
    if let Some(key) = read(path)? {
        return Ok(key);
    }
    let key = SecretKey::from_seed(rand::rng().random());
    write_new(path, &hex::encode(key.to_seed())).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!(
        "created a new key in {}: back it up and keep it secret; it is the account, and nobody can restore it",
        path.display()
    );
    Ok(key)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = private::create_new(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_from_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ada.key");
        assert!(existing(&path).is_err());
        let made = existing_or_new(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(existing(&path).expect("read").public(), made.public());
        assert_eq!(existing_or_new(&path).expect("read").public(), made.public());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("opened to all");
        assert!(read(&path).is_err());
        let bad = folder.path().join("bad.key");
        write_new(&bad, "abc").expect("written");
        assert!(read(&bad).is_err());
    }
}
