//! Sealing under the master key of a data directory: XChaCha20-Poly1305.
//!
//! Format: one version byte (1), 24 bytes of nonce, ciphertext with its 16-byte tag. The context is associated data.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use rand::{TryRng, rngs::SysRng};

use crate::StoreFailure;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
pub(crate) const FILE: &str = "master.key";

/// Opens what it has sealed.
pub(crate) struct Vault(XChaCha20Poly1305);

impl Vault {
    /// Reads the master key, or makes one (mode 0600) where there is none.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreFailure> {
        let path = directory.join(FILE);
        let key = match File::open(&path) {
            Ok(file) => read_key(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => create_key(directory, &path)?,
            Err(error) => return Err(StoreFailure::io("reading the master key")(error)),
        };
        Ok(Self(XChaCha20Poly1305::new(&key.into())))
    }

    pub(crate) fn seal(&self, context: &str, bytes: &[u8]) -> Result<Vec<u8>, StoreFailure> {
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce)?;
        let payload = Payload {
            msg: bytes,
            aad: context.as_bytes(),
        };
        let ciphertext = self
            .0
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| StoreFailure::SealBroken)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + ciphertext.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    pub(crate) fn open_sealed(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreFailure> {
        let (version, rest) = sealed.split_first().ok_or(StoreFailure::SealBroken)?;
        let (nonce, ciphertext) = rest
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(StoreFailure::SealBroken)?;
        if *version != VERSION {
            return Err(StoreFailure::SealBroken);
        }
        let payload = Payload {
            msg: ciphertext,
            aad: context.as_bytes(),
        };
        self.0
            .decrypt(&XNonce::from(*nonce), payload)
            .map_err(|_| StoreFailure::SealBroken)
    }
}

fn read_key(mut file: File) -> Result<[u8; 32], StoreFailure> {
    let mut bytes = Vec::with_capacity(33);
    let read = Read::by_ref(&mut file).take(33).read_to_end(&mut bytes);
    read.map_err(StoreFailure::io("reading the master key"))?;
    bytes.try_into().map_err(|_| StoreFailure::BadMasterKey)
}

/// Writes beside and renames, so that a crash never leaves a short key behind.
fn create_key(directory: &Path, path: &Path) -> Result<[u8; 32], StoreFailure> {
    let mut key = [0; 32];
    random(&mut key)?;
    let beside = directory.join("master.key.new");
    write_private(&beside, &key)
        .and_then(|()| std::fs::rename(&beside, path))
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(StoreFailure::io("writing the master key"))?;
    Ok(key)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(PermissionsExt::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn random(bytes: &mut [u8]) -> Result<(), StoreFailure> {
    SysRng.try_fill_bytes(bytes).map_err(|_| StoreFailure::NoEntropy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_open_again_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let sealed = Vault::open(directory.path())
            .expect("opened")
            .seal("a", b"secret")
            .expect("sealed");
        let again = Vault::open(directory.path()).expect("opened");
        assert_eq!(again.open_sealed("a", &sealed).expect("opened"), b"secret");
        let mode = std::fs::metadata(directory.path().join(FILE))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_flipped_bit_a_cut_or_another_context_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let vault = Vault::open(directory.path()).expect("opened");
        let sealed = vault.seal("a", b"secret").expect("sealed");
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(matches!(
                vault.open_sealed("a", &changed),
                Err(StoreFailure::SealBroken)
            ));
            assert!(matches!(
                vault.open_sealed("a", &sealed[..index]),
                Err(StoreFailure::SealBroken)
            ));
        }
        assert!(matches!(vault.open_sealed("b", &sealed), Err(StoreFailure::SealBroken)));
    }

    #[test]
    fn a_short_master_key_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(FILE), b"short").expect("written");
        assert!(matches!(Vault::open(directory.path()), Err(StoreFailure::BadMasterKey)));
    }
}
