//! Bytes from strangers as bundles: each is refused, or has one canonical form within the limits.

use piecework_blobs::{Bundle, BundleLimits};
use piecework_fuzz::{PeakAlloc, attack, within};
use tar::EntryType;

use super::{
    bundle::{bundle, gzip, raw_tar},
    zip::zip,
};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

const LIMITS: BundleLimits = BundleLimits {
    bytes: 64 << 10,
    files: 20,
};
/// Contents twice (as they are read, and as they are kept), and what the tar and gzip readers keep. What zstd keeps is not
/// counted here: a window of at most 8 MiB.
const ROOM_BYTES: usize = 4 * (64 << 10) + 20 * 2_048 + (512 << 10);

fn read(bytes: &[u8]) -> bool {
    let Ok(bundle) = within(&PEAK, ROOM_BYTES + 2 * bytes.len(), || Bundle::read(bytes, &LIMITS)) else {
        return false;
    };
    assert!(bundle.bytes() <= LIMITS.bytes && bundle.files().len() <= LIMITS.files);
    for path in bundle.files().keys() {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0', '\n']);
        assert!(path.split('/').all(plain), "{path:?}");
    }
    let packed = bundle.pack();
    let again = Bundle::read(&packed.tar, &LIMITS).expect("its own form is fine");
    assert_eq!(again, bundle);
    assert_eq!(again.pack(), packed, "one bundle has two forms");
    true
}

fn tars() -> Vec<Vec<u8>> {
    let plain = bundle(&[
        ("main.py", "x = 1"),
        ("lib/a/b.py", "y = 2"),
        ("data.bin", &"z".repeat(2_000)),
    ]);
    let deep = format!("{}/main.py", "folder".repeat(20));
    vec![
        plain.pack().tar.to_vec(),
        // With a header for its long name.
        bundle(&[(&deep, "x")]).pack().tar.to_vec(),
        raw_tar(b"./main.py", EntryType::Continuous, b"x"),
    ]
}

#[test]
fn any_archive_is_refused_or_has_one_form_within_the_limits() {
    attack(&tars(), read);
}

#[test]
fn any_compressed_archive_is_refused_or_has_one_form_within_the_limits() {
    let zipped = tars().into_iter().map(|tar| gzip(&tar));
    let zstd = tars()
        .into_iter()
        .map(|tar| zstd::encode_all(&tar[..], 3).expect("compresses"));
    attack(&zipped.chain(zstd).collect::<Vec<_>>(), read);
}

#[test]
fn any_zip_is_refused_or_has_one_form_within_the_limits() {
    let content = "z".repeat(2_000);
    let files: [(&str, u32, &[u8]); 3] = [
        ("main.py", 0o100_644, b"x = 1"),
        ("lib/", 0, b""),
        ("lib/data.bin", 0o100_755, content.as_bytes()),
    ];
    attack(&[zip(&files), zip(&files[..1]), zip(&[])], read);
}
