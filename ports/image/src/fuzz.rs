//! Bytes from strangers as layers and as descriptions: each is refused, or stays within its bounds and its directory.

use std::{fs, fs::File, os::fd::OwnedFd, path::Path};

use piecework_fuzz::attack;
use tar::EntryType;

use crate::{
    Description, Sha256,
    source::fuzzed,
    tests::{documents, entry, file, tar},
    unpack::{Failure, Wanted, unpack},
};

const ENTRIES_MAX: u64 = 50;
const BYTES_MAX: u64 = 1 << 20;

fn count(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("it can be read");
    entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let is_directory = fs::symlink_metadata(&path).expect("it is there").is_dir();
            1 + if is_directory { count(&path) } else { 0 }
        })
        .sum()
}

#[test]
fn layers() {
    let valid = [
        tar(&[file("a/b", b"x"), entry(EntryType::Directory, "c/", "", (0o755, b""))]),
        tar(&[
            entry(EntryType::Symlink, "l", "/etc", (0, b"")),
            entry(EntryType::Link, "h", "l", (0, b"")),
        ]),
        tar(&[file(".wh.x", b""), file("d/.wh..wh..opq", b"")]),
    ];
    let outside = tempfile::tempdir().expect("a folder");
    attack(&valid, |bytes| {
        let folder = tempfile::tempdir_in(outside.path()).expect("a folder");
        let directory = OwnedFd::from(File::open(folder.path()).expect("it is there"));
        // Of this very layer: else its content would not be looked at.
        let wanted = Wanted {
            digest: Sha256::of(bytes),
            diff_id: Sha256::of(bytes),
            bytes_max: BYTES_MAX,
            entries_max: ENTRIES_MAX,
        };
        let made = unpack(bytes, &directory, &wanted);
        assert_eq!(
            fs::read_dir(outside.path()).expect("there").count(),
            1,
            "something lies beside it"
        );
        // Directories that a path only implies are not entries.
        assert!(count(folder.path()) <= ENTRIES_MAX * 128);
        match made {
            Ok(made) => {
                assert!(made.entries <= ENTRIES_MAX && made.disk_bytes <= BYTES_MAX);
                true
            }
            Err(Failure::Rejected(_) | Failure::Io(..)) => false,
        }
    });
}

#[test]
fn descriptions() {
    let [settings, mut manifest, config] = documents();
    let config = config.to_string();
    manifest["config"]["digest"] = serde_json::json!(Sha256::of(config.as_bytes()));
    let (settings, manifest) = (settings.to_string(), manifest.to_string());
    attack(&[settings.clone().into_bytes()], |bytes| {
        Description::of(bytes, manifest.as_bytes(), config.as_bytes()).is_ok()
    });
    attack(&[manifest.clone().into_bytes()], |bytes| {
        fuzzed(bytes);
        Description::of(settings.as_bytes(), bytes, config.as_bytes()).is_ok_and(|described| {
            let parts = described
                .layers
                .iter()
                .all(|layer| layer.bytes.div_ceil(crate::PART_BYTES) == layer.parts.len() as u64);
            assert!(parts && described.layers.len() <= crate::LAYERS_MAX);
            true
        })
    });
}
