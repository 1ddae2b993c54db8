//! Bytes from the jail that resolves packages, and the manifests that ask for them: what a resolver hands out is believed
//! only as far as it names files of its own folder.

use std::collections::BTreeMap;

use bytes::Bytes;
use piecework_fuzz::{PeakAlloc, attack, within};
use piecework_model::Language;

use crate::{Options, collect::resolved, manifest, requirements};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

fn options() -> Options {
    Options {
        bytes_max: 64 << 10,
        files_max: 20,
        ..Options::default()
    }
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content.as_bytes()).expect("appends");
    }
    tar.into_inner().expect("ends")
}

fn collected(language: Language, folder: &str, archive: &[u8]) -> bool {
    let options = options();
    let room = 4 * archive.len() + (512 << 10);
    let archive = Bytes::copy_from_slice(archive);
    let Ok(found) = within(&PEAK, room, || resolved(language, archive, &options)) else {
        return false;
    };
    assert!(found.files.len() <= options.files_max);
    let bytes: usize = found.files.values().map(Bytes::len).sum();
    assert!(bytes as u64 <= options.bytes_max);
    for path in found.files.keys() {
        let inside = path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        assert!(
            inside && !path.split('/').any(|part| matches!(part, "" | "." | "..")),
            "{path}"
        );
    }
    true
}

#[test]
fn any_archive_of_pips_packages_stays_in_its_folder_and_limits() {
    let files = [
        ("packages/a.py", "A = 1\n"),
        ("packages/a-1.dist-info/METADATA", "Name: a\nVersion: 1\n\n"),
    ];
    attack(&[archive(&files)], |bytes| {
        collected(Language::Python, "packages", bytes)
    });
}

#[test]
fn any_archive_of_npms_packages_stays_in_its_folder_and_limits() {
    let lock = r#"{"packages":{"":{},"node_modules/x":{"version":"1.0.0","resolved":"https://registry.npmjs.org/x/-/x-1.0.0.tgz","dependencies":{"y":"^1.0.0"}}}}"#;
    let files = [("package-lock.json", lock), ("node_modules/x/index.js", "1")];
    attack(&[archive(&files)], |bytes| {
        collected(Language::JavaScript, "node_modules", bytes)
    });
}

#[test]
fn any_manifest_asks_only_for_named_versions_from_the_index() {
    let package = br#"{"name":"f","dependencies":{"left-pad":"^1.3.0","@a/b":"1.x || >=2.0.0 <3.0.0"}}"#;
    attack(&[package.to_vec(), b"{}".to_vec()], |bytes| {
        match manifest::read(bytes) {
            Err(_) => false,
            Ok(None) => true,
            Ok(Some(kept)) => {
                // What npm reads is of nothing but dependencies, and is taken as it is.
                let value: BTreeMap<String, serde_json::Value> = serde_json::from_str(&kept).expect("JSON");
                assert!(value.contains_key("dependencies"), "{kept}");
                assert_eq!(
                    manifest::read(kept.as_bytes()).expect("its own form is fine"),
                    Some(kept)
                );
                true
            }
        }
    });
    let text = b"# what it needs\nsix==1.16.0\nrequests[socks]>=2,<3 ; python_version > '3.8'\n";
    attack(&[text.to_vec()], |bytes| match requirements::read(bytes) {
        Err(_) => false,
        Ok(None) => true,
        Ok(Some(kept)) => {
            for line in kept.lines() {
                let told = line.trim_start();
                assert!(
                    !told.starts_with('-') && !line.contains("://") && !line.contains(" @ "),
                    "{line}"
                );
            }
            true
        }
    });
}
