//! Zip archives, as browsers and code hosts make them.

use std::io::Read as _;

use flate2::bufread::DeflateDecoder;
use piecework_model::Rejection;
use rawzip::{CompressionMethod, ZipArchive, ZipFileHeaderRecord, ZipSliceEntry};

use crate::bundle::{
    Bundle, BundleLimits, check_path, entries_max, is_program, not_regular, path_of, too_large, too_many, unreadable,
};

const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// The regular files of a zip: stored or deflated ones, without encryption. Its directory is read entry by entry, so that a
/// number of entries that was only said takes no room.
pub(crate) fn read(upload: &[u8], limits: &BundleLimits) -> Result<Bundle, Rejection> {
    let archive = ZipArchive::from_slice(upload).map_err(unreadable)?;
    let (mut bundle, mut entries) = (Bundle::default(), archive.entries());
    let (mut entries_left, mut packed_left) = (entries_max(limits), upload.len());
    while let Some(entry) = entries.next_entry().map_err(unreadable)? {
        entries_left = entries_left.checked_sub(1).ok_or_else(|| too_many(limits))?;
        let name = path_of(entry.file_path().as_bytes())?;
        match is_regular(&entry) {
            Some(true) => {}
            Some(false) => {
                check_path(name.trim_end_matches('/'))?;
                continue;
            }
            None => return Err(not_regular(&name)),
        }
        check_path(&name)?;
        let local = archive.get_entry(entry.wayfinder()).map_err(unreadable)?;
        // Entries that share their data would be unpacked again and again.
        packed_left = packed_left
            .checked_sub(local.data().len())
            .ok_or_else(|| unreadable("its files overlap"))?;
        let content = content(&entry, &local, limits.bytes - bundle.bytes(), limits)?;
        bundle.add(&name, content.into(), limits)?;
        if is_program(entry.mode().value()) {
            bundle = bundle.with_programs([name]);
        }
    }
    bundle.check_directories()?;
    Ok(bundle)
}

/// Whether it is a file, or a folder; neither is a link or a device.
fn is_regular(entry: &ZipFileHeaderRecord<'_>) -> Option<bool> {
    match entry.mode().value() & KIND {
        _ if entry.is_dir() => Some(false),
        DIRECTORY => Some(false),
        0 | REGULAR => Some(true),
        _ => None,
    }
}

fn content(
    entry: &ZipFileHeaderRecord<'_>,
    local: &ZipSliceEntry<'_>,
    bytes_left: u64,
    limits: &BundleLimits,
) -> Result<Vec<u8>, Rejection> {
    if entry.flags().is_encrypted() {
        return Err(unreadable("it is encrypted"));
    }
    if entry.uncompressed_size_hint() > bytes_left {
        return Err(too_large(limits));
    }
    let mut content = Vec::new();
    // More than was said is a wrong archive, and its check says so; more than is left is not read.
    let read = match entry.compression_method() {
        CompressionMethod::STORE => local
            .verifying_reader(local.data())
            .take(bytes_left + 1)
            .read_to_end(&mut content),
        CompressionMethod::DEFLATE => local
            .verifying_reader(DeflateDecoder::new(local.data()))
            .take(bytes_left + 1)
            .read_to_end(&mut content),
        _ => {
            return Err(unreadable(
                "a file uses an unsupported compression method; use store or deflate",
            ));
        }
    };
    read.map_err(unreadable)?;
    match content.len() as u64 > bytes_left {
        true => Err(too_large(limits)),
        false => Ok(content),
    }
}
