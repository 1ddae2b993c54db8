//! Zips: the same bundle as from a tar, and nothing hostile gets in.

use std::io::Write as _;

use flate2::{Compression, write::DeflateEncoder};
use piecework_blobs::{Bundle, BundleLimits};
use piecework_model::Code;
use rawzip::{CompressionMethod, ZipArchiveWriter, path::EntryPath};

use super::bundle::bundle;

const LIMITS: BundleLimits = BundleLimits::UPLOAD;
const FILE: u32 = 0o100_644;

/// A zip of these names, modes and contents, each deflated; a name that ends in a slash is a folder's.
pub fn zip(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut archive = ZipArchiveWriter::new(Vec::new());
    for (name, mode, content) in entries {
        if name.ends_with('/') {
            archive.new_dir(*name).create().expect("made");
            continue;
        }
        let file = archive
            .new_file(EntryPath::verbatim(name.as_bytes()))
            .compression_method(CompressionMethod::DEFLATE)
            .unix_permissions(*mode);
        let (mut entry, config) = file.start().expect("begun");
        let mut data = config.wrap(DeflateEncoder::new(&mut entry, Compression::default()));
        data.write_all(content).expect("written");
        let (encoder, descriptor) = data.finish().expect("ended");
        encoder.finish().expect("ended");
        entry.finish(descriptor).expect("ended");
    }
    archive.finish().expect("ended")
}

fn refused(upload: &[u8]) -> Code {
    let refused = Bundle::read(upload, &LIMITS).expect_err("refused");
    refused.code.known().expect("one of ours")
}

/// Where these bytes are in the archive, from the end.
fn last(archive: &[u8], bytes: &[u8]) -> usize {
    archive
        .windows(bytes.len())
        .rposition(|window| window == bytes)
        .expect("there")
}

#[test]
fn a_zip_gives_the_same_bundle_as_a_tar() {
    let files: [(&str, u32, &[u8]); 4] = [
        ("lib/", 0, b""),
        ("main.py", FILE, b"x = 1"),
        ("./lib/a.py", FILE, b"y = 2"),
        ("tool.sh", 0o100_755, b"#!/bin/sh\n"),
    ];
    let read = Bundle::read(&zip(&files), &LIMITS).expect("reads");
    let made = bundle(&[("main.py", "x = 1"), ("lib/a.py", "y = 2"), ("tool.sh", "#!/bin/sh\n")]);
    assert_eq!(read, made.with_programs(["tool.sh".to_owned()]));
    assert_eq!(Bundle::read(&zip(&[]), &LIMITS), Ok(Bundle::default()));
}

#[test]
fn paths_that_leave_the_bundle_links_and_devices_are_refused() {
    for name in ["/etc/passwd", "../outside", "a/../../b", "a\\b", "a//b", "a\nb"] {
        assert_eq!(refused(&zip(&[(name, FILE, b"x")])), Code::BundleBadPath, "{name}");
    }
    for kind in [0o120_777, 0o020_666, 0o010_666, 0o140_666] {
        assert_eq!(
            refused(&zip(&[("a", kind, b"/etc/passwd")])),
            Code::BundleBadPath,
            "{kind:o}"
        );
    }
    assert_eq!(
        refused(&zip(&[("a", FILE, b"1"), ("./a", FILE, b"2")])),
        Code::BundleBadPath
    );
}

#[test]
fn a_bomb_is_refused_whether_it_says_its_size_or_not() {
    let zeros = vec![0; 40 << 20];
    let mut bomb = zip(&[("zeros", FILE, &zeros)]);
    assert!(bomb.len() < 1 << 20);
    assert_eq!(refused(&bomb), Code::BundleTooLarge);
    // Of the directory's entry: signature, 20 bytes, then the size of the content.
    let at = last(&bomb, b"PK\x01\x02") + 24;
    bomb[at..at + 4].copy_from_slice(&5_u32.to_le_bytes());
    assert!([Code::BundleTooLarge, Code::BundleBadArchive].contains(&refused(&bomb)));
    let many: Vec<String> = (0..LIMITS.files * 2 + 65).map(|at| format!("d{at}/")).collect();
    let many: Vec<(&str, u32, &[u8])> = many.iter().map(|name| (&**name, 0, &b""[..])).collect();
    assert_eq!(refused(&zip(&many)), Code::BundleTooManyFiles);
}

#[test]
fn files_that_share_their_data_are_refused() {
    let noise: Vec<u8> = (0..50_000_u32)
        .flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let mut archive = zip(&[("a", FILE, &noise), ("b", FILE, &noise)]);
    let second = last(&archive, b"PK\x01\x02");
    // The second entry of the directory names the data of the first; and what lies between is cut out.
    archive[second + 42..second + 46].fill(0);
    let mut from = archive.windows(4).enumerate().filter(|(_, four)| four == b"PK\x03\x04");
    let from = from.next_back().expect("two files").0;
    let to = archive
        .windows(4)
        .position(|four| four == b"PK\x01\x02")
        .expect("a directory");
    archive.drain(from..to);
    let end = last(&archive, b"PK\x05\x06") + 16;
    archive[end..end + 4].copy_from_slice(&(from as u32).to_le_bytes());
    let refusal = Bundle::read(&archive, &LIMITS).expect_err("refused");
    assert!(refusal.message.contains("overlap"), "{}", refusal.message);
}

#[test]
fn what_is_damaged_encrypted_or_packed_otherwise_is_unreadable() {
    let good = zip(&[("main.py", FILE, &b"x = 1\n".repeat(200))]);
    assert_eq!(refused(&good[..good.len() / 2]), Code::BundleBadArchive);
    let directory = last(&good, b"PK\x01\x02");
    let mut encrypted = good.clone();
    encrypted[directory + 8] |= 1;
    assert_eq!(refused(&encrypted), Code::BundleBadArchive);
    let mut otherwise = good.clone();
    otherwise[directory + 10] = 12;
    assert_eq!(refused(&otherwise), Code::BundleBadArchive);
    let mut wrong_sum = good;
    wrong_sum[directory + 16] ^= 1;
    assert_eq!(refused(&wrong_sum), Code::BundleBadArchive);
}
