//! Bundles: one digest per content, and nothing hostile gets in.

use std::{fs, io::Write, os::unix::fs::symlink, path::Path};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use piecework_blobs::{Blobs, BlobsError, Bundle, BundleLimits, Files};
use piecework_model::Code;
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

const LIMITS: BundleLimits = BundleLimits::UPLOAD;

pub fn bundle(files: &[(&str, &str)]) -> Bundle {
    let files = files
        .iter()
        .map(|(path, content)| ((*path).to_owned(), Bytes::copy_from_slice(content.as_bytes())));
    Bundle::new(files, &LIMITS).expect("a good bundle")
}

/// A tar with one entry whose name is written as it is, past the checks of the tar library.
pub fn raw_tar(name: &[u8], kind: EntryType, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_mode(0o777);
    header.set_size(content.len() as u64);
    if matches!(kind, EntryType::Symlink | EntryType::Link) {
        header.set_link_name("/etc/passwd").expect("a link name");
    }
    header.set_cksum();
    let mut tar = Builder::new(Vec::new());
    tar.append(&header, content).expect("appends");
    tar.into_inner().expect("ends")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("writes");
    encoder.finish().expect("ends")
}

fn refused(upload: &[u8]) -> Code {
    let refused = Bundle::read(upload, &LIMITS).expect_err("refused");
    refused.code.known().expect("one of ours")
}

#[test]
fn the_same_files_give_the_same_digest_however_they_were_packed() {
    let made = bundle(&[("main.py", "x = 1"), ("lib/a.py", "y = 2")]);
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("lib")).expect("makes");
    fs::write(folder.path().join("lib/a.py"), "y = 2").expect("writes");
    fs::write(folder.path().join("main.py"), "x = 1").expect("writes");
    let from_folder = Bundle::pack_dir(folder.path(), &LIMITS).expect("packs");

    let mut tar = Builder::new(Vec::new());
    tar.append_dir_all(".", folder.path())
        .expect("appends with today's times and modes");
    let tar = tar.into_inner().expect("ends");

    let expected = made.pack();
    assert_eq!(from_folder.pack(), expected);
    assert_eq!(Bundle::read(&tar, &LIMITS).expect("reads").pack(), expected);
    assert_eq!(Bundle::read(&gzip(&tar), &LIMITS).expect("reads").pack(), expected);
    let zstd = zstd::bulk::compress(&tar, 3).expect("compresses");
    assert_eq!(Bundle::read(&zstd, &LIMITS).expect("reads").pack(), expected);
}

#[test]
fn a_program_stays_one_through_upload_and_unpacking() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let tool = folder.path().join("tool.sh");
    fs::write(&tool, "#!/bin/sh\n").expect("writes");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("a program");
    fs::write(folder.path().join("main.py"), "x = 1").expect("writes");
    let packed = Bundle::pack_dir(folder.path(), &LIMITS).expect("packs").pack();
    let read = Bundle::read(&packed.tar, &LIMITS).expect("reads");
    assert_eq!(read.pack(), packed);
    let with_packages = read
        .with_folder("packages", [("packages/a.py".to_owned(), Bytes::new())], &LIMITS)
        .expect("within limits");
    let target = tempfile::tempdir().expect("a folder");
    with_packages.unpack(target.path()).expect("unpacks");
    let mode = |name: &str| {
        fs::metadata(target.path().join(name))
            .expect("there")
            .permissions()
            .mode()
            & 0o111
    };
    assert_eq!((mode("tool.sh"), mode("main.py"), mode("packages/a.py")), (0o111, 0, 0));
}

/// The digest names code in tickets and on the ledger: it may never change by an update of a library.
#[test]
fn the_canonical_bytes_are_golden() {
    let packed = bundle(&[("main.py", "def handler(event, context):\n    return event\n")]).pack();
    assert_eq!(packed.tar.len(), 2_048);
    assert_eq!(
        packed.digest.to_string(),
        "af0edbce72f5a76aefe62ca5b6b0deaa0905454764281c94f80475eaf327f833"
    );
    let long = format!("{}deep.mjs", "folder/".repeat(20));
    assert_eq!(
        bundle(&[(&long, "1")]).pack().digest.to_string(),
        "112b17d1ee526a4b00be438cbef5f0e5f4e6cd1137e5294ae784ea12ceb0ff85"
    );
}

proptest! {
    #[test]
    fn packing_then_reading_gives_the_bundle_back(
        files in proptest::collection::btree_map("[a-z]{1,8}(/[a-z.]{1,60}x){0,3}", proptest::collection::vec(any::<u8>(), 0..2_000), 0..20)
    ) {
        let files = files.into_iter().map(|(path, content)| (path, Bytes::from(content)));
        if let Ok(made) = Bundle::new(files, &LIMITS) {
            prop_assert_eq!(Bundle::read(&made.pack().tar, &LIMITS).expect("reads"), made);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3_000)) {
        let _ = Bundle::read(&bytes, &LIMITS);
        let _ = Bundle::read(&gzip(&bytes), &LIMITS);
    }

    #[test]
    fn a_damaged_tar_never_panics(at in 0_usize..2_048, to in any::<u8>()) {
        let mut tar = bundle(&[("main.py", "x = 1")]).pack().tar.to_vec();
        let at = at % tar.len();
        tar[at] = to;
        let _ = Bundle::read(&tar, &LIMITS);
    }
}

#[test]
fn paths_that_leave_the_bundle_are_refused() {
    for name in [
        &b"/etc/passwd"[..],
        b"../outside",
        b"a/../../outside",
        b"a/..",
        b"a//b",
        b"a/./b",
        b"a\\b",
        b"a\nb",
        b"caf\xe9",
    ] {
        let tar = raw_tar(name, EntryType::Regular, b"x");
        assert_eq!(refused(&tar), Code::BundleBadPath, "{}", String::from_utf8_lossy(name));
        assert_eq!(refused(&gzip(&tar)), Code::BundleBadPath);
    }
    let long = "x/".repeat(250) + "y";
    let rejection = Bundle::new([(long, Bytes::new())], &LIMITS).expect_err("too long");
    assert_eq!(rejection.code, Code::BundleBadPath);
}

#[test]
fn links_and_devices_are_refused() {
    let kinds = [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::GNUSparse,
    ];
    for kind in kinds {
        let content: &[u8] = if kind == EntryType::GNUSparse { b"x" } else { b"" };
        let code = refused(&raw_tar(b"link", kind, content));
        assert!(
            [Code::BundleBadPath, Code::BundleBadArchive].contains(&code),
            "{kind:?}: {code}"
        );
    }
    let folder = tempfile::tempdir().expect("a folder");
    symlink("/etc/passwd", folder.path().join("main.py")).expect("links");
    let refused = Bundle::pack_dir(folder.path(), &LIMITS).expect_err("refused");
    assert!(matches!(refused, BlobsError::Rejected(rejection) if rejection.code == Code::BundleBadPath));
}

#[test]
fn a_path_twice_or_as_file_and_folder_is_refused() {
    let mut twice = raw_tar(b"main.py", EntryType::Regular, b"one");
    twice.truncate(1_024);
    twice.extend(raw_tar(b"./main.py", EntryType::Regular, b"two"));
    assert_eq!(refused(&twice), Code::BundleBadPath);
    let files = ["a", "a-b", "a/b"].map(|path| (path.to_owned(), Bytes::new()));
    assert_eq!(
        Bundle::new(files, &LIMITS).expect_err("refused").code,
        Code::BundleBadPath
    );
}

#[test]
fn a_gzip_bomb_is_refused_before_it_unfolds() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let mut header = Header::new_gnu();
    header.set_path("zeros").expect("a path");
    header.set_entry_type(EntryType::Regular);
    header.set_size(4 << 30);
    header.set_cksum();
    encoder.write_all(header.as_bytes()).expect("writes");
    let zeros = vec![0; 1 << 20];
    (0..64).for_each(|_| encoder.write_all(&zeros).expect("writes"));
    assert_eq!(refused(&encoder.finish().expect("ends")), Code::BundleTooLarge);
}

#[test]
fn a_bomb_inside_a_long_name_or_between_entries_is_refused() {
    // The library reads a long name whole: only the cap on the stream bounds it.
    let name = vec![b'x'; 80 << 20];
    assert_eq!(
        refused(&gzip(&raw_tar(b"longlink", EntryType::GNULongName, &name))),
        Code::BundleTooLarge
    );
    let mut padded = vec![0; 100 << 20];
    padded[..7].copy_from_slice(b"main.py");
    assert!([Code::BundleTooLarge, Code::BundleBadArchive].contains(&refused(&gzip(&padded))));
}

#[test]
fn too_many_bytes_or_files_are_refused() {
    let few = BundleLimits { bytes: 10, files: 2 };
    let files = |count: usize, size: usize| (0..count).map(move |at| (format!("f{at}"), Bytes::from(vec![0; size])));
    assert!(Bundle::new(files(2, 5), &few).is_ok());
    assert_eq!(
        Bundle::new(files(2, 6), &few).expect_err("refused").code,
        Code::BundleTooLarge
    );
    assert_eq!(
        Bundle::new(files(3, 1), &few).expect_err("refused").code,
        Code::BundleTooManyFiles
    );
    let packed = Bundle::new(files(3, 1), &LIMITS).expect("fits").pack();
    assert_eq!(
        Bundle::read(&packed.tar, &few).expect_err("refused").code,
        Code::BundleTooManyFiles
    );
    let mut folders = Builder::new(Vec::new());
    for at in 0..200 {
        let mut header = Header::new_gnu();
        header.set_path(format!("d{at}/")).expect("a path");
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        header.set_cksum();
        folders.append(&header, &[][..]).expect("appends");
    }
    let folders = folders.into_inner().expect("ends");
    assert_eq!(
        Bundle::read(&folders, &few).expect_err("refused").code,
        Code::BundleTooManyFiles
    );
}

#[test]
fn what_is_no_tar_or_was_cut_is_unreadable() {
    assert_eq!(refused(b"print('hello')"), Code::BundleBadArchive);
    assert_eq!(refused(&[0x1f, 0x8b, 1, 2, 3]), Code::BundleBadArchive);
    let tar = bundle(&[("main.py", &"x".repeat(3_000))]).pack().tar;
    assert_eq!(refused(&tar[..1_000]), Code::BundleBadArchive);
    let packed = gzip(&tar);
    assert_eq!(refused(&packed[..packed.len() / 2]), Code::BundleBadArchive);
}

#[test]
fn pack_dir_leaves_out_caches_and_what_is_resolved_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |path: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
        fs::write(path, "x").expect("writes");
    };
    [
        "main.mjs",
        "package.json",
        "node_modules/left/index.js",
        ".git/config",
        "lib/__pycache__/a.pyc",
    ]
    .iter()
    .for_each(|path| write(path));
    let packed = Bundle::pack_dir(folder.path(), &LIMITS).expect("packs");
    assert_eq!(packed.files().keys().collect::<Vec<_>>(), ["main.mjs", "package.json"]);
}

#[test]
fn with_folder_replaces_what_was_below_it() {
    let before = bundle(&[("main.py", "1"), ("packages/old.py", "2"), ("packages.txt", "3")]);
    let new = [("packages/new.py".to_owned(), Bytes::from_static(b"4"))];
    let after = before
        .with_folder("packages", new, &BundleLimits::RESOLVED)
        .expect("merges");
    assert_eq!(
        after.files().keys().collect::<Vec<_>>(),
        ["main.py", "packages.txt", "packages/new.py"]
    );
    assert_eq!(after.bytes(), 3);
}

#[tokio::test]
async fn a_bundle_survives_the_blob_store_and_unpacks() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = Files::open(folder.path().join("blobs")).expect("opens");
    let made = bundle(&[("main.py", "x = 1"), ("lib/a.py", "y = 2")]);
    let packed = made.pack();
    assert_eq!(files.put(packed.tar).await.expect("puts"), packed.digest);
    let back = files.get(&packed.digest).await.expect("gets");
    let target = folder.path().join("out");
    fs::create_dir(&target).expect("makes");
    Bundle::read(&back, &LIMITS)
        .expect("reads")
        .unpack(&target)
        .expect("unpacks");
    let read = |path: &str| fs::read_to_string(Path::new(&target).join(path)).expect("reads");
    assert_eq!(
        (read("main.py").as_str(), read("lib/a.py").as_str()),
        ("x = 1", "y = 2")
    );
}

#[test]
fn files_are_added_and_replaced_and_programs_stay_programs() {
    let before = bundle(&[("run.sh", "x"), ("a.txt", "old")]).with_programs(["run.sh".to_owned()]);
    let after = before
        .with_files(
            [("a.txt".to_owned(), Bytes::from_static(b"new"))],
            &BundleLimits::UPLOAD,
        )
        .expect("small");
    assert_eq!(after.get("a.txt").map(|text| &text[..]), Some(&b"new"[..]));
    let due = bundle(&[("run.sh", "x"), ("a.txt", "new")]).with_programs(["run.sh".to_owned()]);
    assert_eq!(after.pack().digest, due.pack().digest);
    let large = [("b.txt".to_owned(), Bytes::from_static(b"yy"))];
    let tight = BundleLimits { bytes: 4, files: 9 };
    assert_eq!(
        due.with_files(large, &tight).map_err(|refused| refused.code),
        Err(Code::BundleTooLarge.into())
    );
}

#[test]
fn one_folder_of_a_packed_bundle_is_read_without_the_rest() {
    let packed = bundle(&[("main.mjs", "code"), ("public/a.html", "page"), ("publicity.txt", "no")]).pack();
    let files = Bundle::folder_of(&packed.tar, "public/", &BundleLimits::UPLOAD).expect("a bundle");
    assert_eq!(
        files.into_iter().collect::<Vec<_>>(),
        [("public/a.html".to_owned(), Bytes::from_static(b"page"))]
    );
}
