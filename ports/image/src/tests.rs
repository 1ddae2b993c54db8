//! What becomes of layers, and what descriptions are refused; in this process, into a temporary directory.

use std::{
    fs::{self, File},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
};

use bytes::Bytes;
use piecework_model::{Code, Digest};
use serde_json::{Value, json};
use tar::EntryType;

use crate::{
    Description, PART_BYTES, Settings, Sha256, bundle_of, parts_of_bundle,
    unpack::{Failure, Made, Wanted, unpack},
};

/// One entry, as it stands in a header: also what no library writes.
pub(crate) fn entry(kind: EntryType, path: &str, target: &str, (mode, content): (u32, &[u8])) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(1_000_000);
    header.set_size(content.len() as u64);
    let old = header.as_old_mut();
    old.name[..path.len()].copy_from_slice(path.as_bytes());
    old.linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub(crate) fn file(path: &str, content: &[u8]) -> Vec<u8> {
    entry(EntryType::Regular, path, "", (0o644, content))
}

pub(crate) fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1_024, 0);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).expect("written");
    encoder.finish().expect("whole")
}

fn wanted(kept: &[u8], tar: &[u8]) -> Wanted {
    Wanted {
        digest: Sha256::of(kept),
        diff_id: Sha256::of(tar),
        bytes_max: 1 << 20,
        entries_max: 20,
    }
}

fn unpacked(kept: &[u8], wanted: &Wanted) -> (Result<Made, Option<Code>>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = OwnedFd::from(File::open(folder.path()).expect("it is there"));
    let made = unpack(kept, &directory, wanted).map_err(|failure| match failure {
        Failure::Rejected(rejection) => rejection.code.known(),
        Failure::Io(what, error) => panic!("{what}: {error}"),
    });
    (made, folder)
}

fn refused(entries: &[Vec<u8>]) -> Option<Code> {
    let tar = tar(entries);
    unpacked(&tar, &wanted(&tar, &tar)).0.expect_err("it is refused")
}

#[test]
fn a_layer_becomes_what_overlayfs_reads() {
    let tar = tar(&[
        entry(EntryType::Directory, "./bin/", "", (0o555, b"")),
        entry(EntryType::Regular, "bin/tool", "", (0o6750, b"tool")),
        entry(EntryType::Link, "bin/same", "bin/tool", (0, b"")),
        entry(EntryType::Symlink, "etc", "/usr/etc", (0o777, b"")),
        file("a/b/c", b"deep"),
        file("a/.wh.gone", b""),
        file("a/.wh..wh..opq", b""),
        file("a/.wh..wh.plnk", b""),
        entry(EntryType::Char, "dev/null", "", (0o666, b"")),
        entry(EntryType::Fifo, "pipe", "", (0o600, b"")),
        file("twice", b"first"),
        file("twice", b"second"),
    ]);
    for kept in [tar.clone(), gzip(&tar), zstd::encode_all(&tar[..], 3).expect("packed")] {
        let (made, folder) = unpacked(&kept, &wanted(&kept, &tar));
        // With `a` and `a/b`, which are only implied.
        assert_eq!(made.expect("unpacked").entries, 14);
        let at = |path: &str| folder.path().join(path);
        let mode = |path: &str| fs::symlink_metadata(at(path)).expect(path).mode() & 0o7777;
        assert_eq!(mode("bin/tool"), 0o757, "no set-user-ID; others may what the owner may");
        assert_eq!(mode("bin"), 0o755, "its owner can delete it");
        assert_eq!(
            fs::metadata(at("bin/same")).expect("linked").ino(),
            fs::metadata(at("bin/tool")).expect("there").ino()
        );
        assert_eq!(fs::metadata(at("bin/tool")).expect("there").mtime(), 1_000_000);
        assert_eq!(fs::read_link(at("etc")).expect("a link"), Path::new("/usr/etc"));
        let gone = fs::symlink_metadata(at("a/gone")).expect("a whiteout");
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        let mut value = [0; 4];
        let opaque = rustix::fs::getxattr(at("a"), "user.overlay.opaque", &mut value).expect("marked");
        assert_eq!(&value[..opaque], b"y");
        assert!(!at("dev/null").exists() && !at("a/.wh..wh.plnk").exists());
        assert!(fs::symlink_metadata(at("pipe")).expect("there").file_type().is_fifo());
        assert_eq!(fs::read(at("twice")).expect("there"), b"second");
    }
}

#[test]
fn nothing_of_a_layer_gets_out_of_it() {
    let outside = tempfile::tempdir().expect("a folder");
    let target = outside.path().to_str().expect("UTF-8");
    for path in ["../x", "a/../../x", "a/.."] {
        assert_eq!(refused(&[file(path, b"x")]), Some(Code::ImageBadLayer), "{path}");
    }
    // A link is followed within the layer alone, wherever it means to lead.
    let tar = tar(&[
        entry(EntryType::Symlink, "out", target, (0, b"")),
        file("/absolute", b"x"),
    ]);
    let (made, folder) = unpacked(&tar, &wanted(&tar, &tar));
    made.expect("links are only texts");
    assert!(folder.path().join("absolute").exists());
    let through = [entry(EntryType::Symlink, "out", target, (0, b"")), file("out/x", b"x")];
    let tar = self::tar(&through);
    let (made, folder) = unpacked(&tar, &wanted(&tar, &tar));
    assert_eq!(made, Err(Some(Code::ImageBadLayer)), "there is no such directory in it");
    drop(folder);
    assert_eq!(fs::read_dir(outside.path()).expect("there").count(), 0);
    for (path, target) in [
        ("x", "/etc/passwd"),
        ("x", "../../etc/passwd"),
        ("x", "nowhere"),
        ("x", ""),
    ] {
        let link = entry(EntryType::Link, path, target, (0, b""));
        assert_eq!(refused(&[link]), Some(Code::ImageBadLayer), "{target}");
    }
}

#[test]
fn devices_lies_and_bombs_are_refused() {
    let plain = tar(&[file("a", b"x")]);
    assert_eq!(
        refused(&[entry(EntryType::Block, "disk", "", (0, b""))]),
        Some(Code::ImageBadLayer)
    );
    assert_eq!(
        refused(&[entry(EntryType::Char, "etc/mem", "", (0, b""))]),
        Some(Code::ImageBadLayer)
    );
    let many: Vec<_> = (0..21).map(|at| file(&format!("{at}"), b"")).collect();
    assert_eq!(refused(&many), Some(Code::ImageTooLarge));
    let bomb = gzip(&tar(&[file("zeros", &vec![0; 2 << 20])]));
    let not_said = wanted(&bomb, &bomb);
    assert_eq!(unpacked(&bomb, &not_said).0, Err(Some(Code::ImageTooLarge)));
    let padded = gzip(&[plain.clone(), vec![0; 2 << 20]].concat());
    assert_eq!(
        unpacked(&padded, &wanted(&padded, &plain)).0,
        Err(Some(Code::ImageTooLarge)),
        "behind its end"
    );
    let cut = &gzip(&plain)[..40];
    assert_eq!(unpacked(cut, &wanted(cut, &plain)).0, Err(Some(Code::ImageBadLayer)));
    let no_tar = b"this is no tar, whatever it says of itself".repeat(50);
    assert_eq!(
        unpacked(&no_tar, &wanted(&no_tar, &no_tar)).0,
        Err(Some(Code::ImageBadLayer))
    );
    for lying in [
        Wanted {
            digest: Sha256::of(b"other"),
            ..wanted(&plain, &plain)
        },
        Wanted {
            diff_id: Sha256::of(b"other"),
            ..wanted(&plain, &plain)
        },
    ] {
        assert_eq!(unpacked(&plain, &lying).0, Err(Some(Code::ImageDigestMismatch)));
    }
}

/// Settings, manifest and configuration of an image of one layer of 5 MiB.
pub(crate) fn documents() -> [Value; 3] {
    let parts = [Digest::of(b"one"), Digest::of(b"two")];
    let architecture = crate::description::own_architecture();
    let config = json!({
        "os": "linux", "architecture": architecture, "rootfs": {"diff_ids": [Sha256::of(b"tar")]},
        "config": {"Entrypoint": ["/serve"], "Cmd": ["now"], "Env": ["A=b=c", "none"], "User": "web", "WorkingDir": "/srv"},
    });
    let layer = json!({"mediaType": "", "digest": Sha256::of(b"layer"), "size": PART_BYTES + 1});
    let manifest = json!({"schemaVersion": 2, "config": {"digest": "", "size": 1}, "layers": [layer]});
    [json!({"reference": "x/web:1", "layers": [parts]}), manifest, config]
}

fn described([settings, mut manifest, config]: [Value; 3]) -> Result<Description, Option<Code>> {
    let config = config.to_string();
    if manifest["config"]["digest"] == "" {
        manifest["config"]["digest"] = json!(Sha256::of(config.as_bytes()));
    }
    let [settings, manifest] = [settings, manifest].map(|document| document.to_string());
    let described = Description::of(settings.as_bytes(), manifest.as_bytes(), config.as_bytes());
    described.map_err(|rejection| rejection.code.known())
}

#[test]
fn an_image_says_how_it_is_started() {
    let found = described(documents()).expect("an image");
    assert_eq!(found.entry.arguments, ["/serve", "now"]);
    assert_eq!(
        (&*found.entry.directory, &*found.entry.user, found.entry.port),
        ("/srv", "web", Some(8_080))
    );
    assert_eq!((&*found.entry.env["A"], &*found.entry.env["PORT"]), ("b=c", "8080"));
    assert_eq!((found.layers[0].parts.len(), found.parts().count()), (2, 2));
    let [mut settings, manifest, config] = documents();
    settings["arguments"] = json!(["later"]);
    settings["stdio"] = json!(true);
    let found = described([settings, manifest, config]).expect("an image");
    assert_eq!((&found.entry.arguments[1][..], found.entry.port), ("later", None));
    assert!(!found.entry.env.contains_key("PORT"));
}

#[test]
fn descriptions_that_do_not_hold_together_are_refused() {
    let changed = |change: &dyn Fn(&mut [Value; 3])| {
        let mut all = documents();
        change(&mut all);
        described(all).expect_err("refused")
    };
    let bad = Some(Code::ImageBad);
    assert_eq!(changed(&|all| all[0]["port"] = json!(0)), bad);
    assert_eq!(changed(&|all| all[0]["more"] = json!(1)), bad);
    assert_eq!(changed(&|all| all[0]["layers"] = json!([])), bad);
    assert_eq!(changed(&|all| all[0]["layers"] = json!([[Digest::of(b"one")]])), bad);
    assert_eq!(changed(&|all| all[1]["schemaVersion"] = json!(1)), bad);
    assert_eq!(changed(&|all| all[1]["layers"] = json!([])), bad);
    assert_eq!(changed(&|all| all[2]["rootfs"]["diff_ids"] = json!([])), bad);
    assert_eq!(changed(&|all| all[2]["config"] = json!({})), bad);
    assert_eq!(changed(&|all| all[2]["config"]["WorkingDir"] = json!("srv")), bad);
    assert_eq!(changed(&|all| all[2]["config"]["Env"] = json!(["A=\0"])), bad);
    assert_eq!(
        changed(&|all| all[2]["architecture"] = json!("s390x")),
        Some(Code::ImageOtherPlatform)
    );
    assert_eq!(
        changed(&|all| all[2]["os"] = json!("windows")),
        Some(Code::ImageOtherPlatform)
    );
    assert_eq!(
        changed(&|all| all[1]["config"]["digest"] = json!(Sha256::of(b"other"))),
        Some(Code::ImageDigestMismatch)
    );
    assert_eq!(
        changed(&|all| all[1]["layers"][0]["size"] = json!(u64::MAX)),
        Some(Code::ImageTooLarge)
    );
    let many = |all: &mut [Value; 3]| {
        let layer = all[1]["layers"][0].clone();
        all[1]["layers"] = json!(vec![layer; 129]);
    };
    assert_eq!(changed(&many), Some(Code::ImageTooLarge));
    let long = json!({"Entrypoint": ["x"], "Env": [format!("A={}", "x".repeat(70_000))]});
    assert_eq!(
        changed(&|all| all[2]["config"] = long.clone()),
        Some(Code::ImageTooLarge)
    );
}

#[test]
fn a_bundle_names_the_parts_of_its_image_and_others_none() {
    let parts = vec![Digest::of(b"one"), Digest::of(b"two")];
    let settings = Settings {
        layers: vec![parts.clone()],
        ..Settings::default()
    };
    let bundle = bundle_of(&settings, Bytes::from_static(b"{}"), Bytes::from_static(b"{}")).expect("small");
    assert_eq!(parts_of_bundle(&bundle.pack().tar), parts);
    assert_eq!(parts_of_bundle(b"no tar"), []);
}
