//! An OCI image layout: a folder with `index.json` and `blobs/sha256/`.

use std::{fs, io::Read as _, path::Path};

use bytes::Bytes;

use super::{
    Blob, Fetched, SourceError,
    index::{self, Document},
    missing,
};
use crate::{DOCUMENT_BYTES_MAX, Sha256, bad, description::mismatch, too_large};

/// Indexes that lead to indexes.
const HOPS_MAX: usize = 4;

pub(super) fn read(folder: &Path) -> Result<Fetched, SourceError> {
    let at = folder.join("index.json");
    if !at.is_file() {
        let message = format!(
            "{} is not an image: it has no index.json, as an OCI layout has",
            folder.display()
        );
        return Err(bad(message).into());
    }
    let shown = folder.display().to_string();
    let index = document(&at)?;
    let reference = index::name_in(&index).map_or(shown.clone(), |name| format!("{shown}:{name}"));
    let mut manifest = index;
    for _ in 0..HOPS_MAX {
        match index::document(&manifest)? {
            Document::Index(entry) => manifest = blob(folder, entry.digest)?,
            Document::Manifest(found) => {
                let layers = found.layers.iter().map(|layer| file(folder, layer.digest, layer.size));
                return Ok(Fetched {
                    reference,
                    config: blob(folder, found.config.digest)?,
                    layers: layers.collect::<Result<_, _>>()?,
                    manifest,
                });
            }
        }
    }
    Err(bad("the image's indexes are nested too deeply or refer to each other").into())
}

fn path(folder: &Path, digest: Sha256) -> std::path::PathBuf {
    folder.join("blobs").join(digest.to_string().replacen(':', "/", 1))
}

/// A small file, checked.
fn blob(folder: &Path, digest: Sha256) -> Result<Bytes, SourceError> {
    let path = path(folder, digest);
    if !path.is_file() {
        return Err(missing(&digest.to_string()).into());
    }
    let bytes = document(&path)?;
    match Sha256::of(&bytes) == digest {
        true => Ok(bytes),
        false => Err(mismatch("a part of the image", digest).into()),
    }
}

fn document(path: &Path) -> Result<Bytes, SourceError> {
    let cannot = || SourceError::io(format!("cannot read {}", path.display()));
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(cannot())?;
    file.take(DOCUMENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot())?;
    match bytes.len() > DOCUMENT_BYTES_MAX {
        true => Err(too_large(format!("{} has more than {DOCUMENT_BYTES_MAX} bytes", path.display())).into()),
        false => Ok(bytes.into()),
    }
}

/// A layer, which is checked when it is read.
fn file(folder: &Path, digest: Sha256, bytes: u64) -> Result<Blob, SourceError> {
    let file = path(folder, digest);
    let found = fs::metadata(&file).map_err(|_| missing(&digest.to_string()))?;
    if !found.is_file() || found.len() != bytes {
        return Err(mismatch("a layer of the image", digest).into());
    }
    Ok(Blob {
        file,
        offset: 0,
        bytes,
        _folder: None,
    })
}
