//! The files of a peer's directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use piecework_ledger::Genesis;
use piecework_model::{PublicKey, SecretKey};

use crate::PeerFailure;

const GENESIS_FILE: &str = "genesis.json";
const KEY_FILE: &str = "peer.key";
pub(crate) const LEDGER_DIRECTORY: &str = "ledger";

fn failure(path: &Path) -> impl FnOnce(io::Error) -> PeerFailure {
    let path = path.to_owned();
    move |source| PeerFailure::File { path, source }
}

pub(crate) fn load_or_create_key(directory: &Path) -> Result<SecretKey, PeerFailure> {
    fs::create_dir_all(directory).map_err(failure(directory))?;
    let path = directory.join(KEY_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => parse_key(&path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let seed: [u8; 32] = rand::random();
            // Public keys and seeds share their text form.
            let text = format!("{}\n", PublicKey(seed));
            write_new(&path, text.as_bytes(), 0o600).map_err(failure(&path))?;
            Ok(SecretKey::from_seed(seed))
        }
        Err(error) => Err(failure(&path)(error)),
    }
}

/// The key that is there already.
pub(crate) fn load_key(directory: &Path) -> Result<SecretKey, PeerFailure> {
    let path = directory.join(KEY_FILE);
    let text = fs::read_to_string(&path).map_err(failure(&path))?;
    parse_key(&path, &text)
}

fn parse_key(path: &Path, text: &str) -> Result<SecretKey, PeerFailure> {
    let seed: PublicKey = text
        .trim()
        .parse()
        .map_err(|_| PeerFailure::BadKey { path: path.to_owned() })?;
    Ok(SecretKey::from_seed(seed.0))
}

pub(crate) fn read_genesis(directory: &Path) -> Result<Genesis, PeerFailure> {
    read_genesis_file(&directory.join(GENESIS_FILE))
}

pub(crate) fn read_genesis_file(path: &Path) -> Result<Genesis, PeerFailure> {
    let bytes = fs::read(path).map_err(failure(path))?;
    let path = path.to_owned();
    serde_json::from_slice(&bytes).map_err(|source| PeerFailure::BadGenesis { path, source })
}

pub(crate) fn write_genesis(directory: &Path, genesis: &Genesis) -> Result<(), PeerFailure> {
    fs::create_dir_all(directory).map_err(failure(directory))?;
    let path = directory.join(GENESIS_FILE);
    let bytes = serde_json::to_vec_pretty(genesis).expect("a genesis has no maps with odd keys");
    match write_new(&path, &bytes, 0o644) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(PeerFailure::GenesisExists { path }),
        written => written.map_err(failure(&path)),
    }
}

/// Writes a file that must not exist, whole or not at all.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let draft: PathBuf = path.with_extension("new");
    // Left by a crash between the two steps.
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(mode)
        .open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // A link, unlike a rename, never replaces what another process has put there.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    linked?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
