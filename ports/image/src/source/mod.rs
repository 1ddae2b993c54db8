//! Where a developer's image comes from: a registry, an OCI layout, or a file that `docker save` or `skopeo` wrote.
//!
//! All of them give the same: the manifest of one platform and the configuration as they are, and where the bytes of each layer lie
//! on this machine. Every digest on the way is checked.

mod archive;
mod index;
mod layout;
mod login;
mod reference;
mod registry;

use std::{
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use piecework_model::{Code, Digest, Rejection};
use tempfile::TempDir;

pub use login::Logins;
pub use reference::Reference;
pub use registry::Registry;

use crate::{Parts, Settings, Sha256, Sha256Stream, bad, description::PART_BYTES, description::mismatch};

/// An image on this machine.
#[derive(Debug)]
pub struct Fetched {
    /// As it is shown.
    pub reference: String,
    pub manifest: Bytes,
    pub config: Bytes,
    pub layers: Vec<Blob>,
}

/// Bytes of a layer, in a file.
#[derive(Clone, Debug)]
pub struct Blob {
    file: PathBuf,
    offset: u64,
    pub bytes: u64,
    /// What it was downloaded into goes with the last of them.
    _folder: Option<Arc<TempDir>>,
}

/// What went wrong on the way to an image.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error("{what}: {source}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
}

impl SourceError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Reads an image from a folder or a file. Blocks.
pub fn read(path: &Path) -> Result<Fetched, SourceError> {
    let found = std::fs::metadata(path).map_err(SourceError::io(format!("cannot open {}", path.display())))?;
    match found.is_dir() {
        true => layout::read(path),
        false => archive::read(path),
    }
}

impl Blob {
    /// One part of the layer, by its place.
    pub fn part(&self, place: u64) -> Result<Bytes, SourceError> {
        let cannot = || SourceError::io(format!("cannot read a layer in {}", self.file.display()));
        let before = place * PART_BYTES;
        let length = self.bytes.saturating_sub(before).min(PART_BYTES);
        let mut file = File::open(&self.file).map_err(cannot())?;
        file.seek(SeekFrom::Start(self.offset + before)).map_err(cannot())?;
        let mut part = vec![0; usize::try_from(length).expect("4 MiB")];
        file.read_exact(&mut part).map_err(cannot())?;
        Ok(part.into())
    }

    /// The digests of the parts of a layer, in order. Blocks. Refuses with `image.digest_mismatch`.
    pub fn parts(&self, digest: Sha256) -> Result<Parts, SourceError> {
        let (mut hash, mut parts) = (Sha256Stream::default(), Parts::new());
        for place in 0..self.bytes.div_ceil(PART_BYTES) {
            let part = self.part(place)?;
            hash.update(&part);
            parts.push(Digest::of(&part));
        }
        match hash.finish() == digest {
            true => Ok(parts),
            false => Err(mismatch("a layer of the image", digest).into()),
        }
    }
}

impl Fetched {
    /// The settings of an image that is run this way, and whose parts are these.
    pub fn settings(&self, run: Settings, layers: Vec<Parts>) -> Settings {
        Settings {
            reference: self.reference.clone(),
            layers,
            ..run
        }
    }

    /// The digests of the layers, as the manifest names them.
    pub fn layer_digests(&self) -> Result<Vec<Sha256>, Rejection> {
        Ok(index::manifest(&self.manifest)?
            .layers
            .into_iter()
            .map(|layer| layer.digest)
            .collect())
    }
}

fn missing(what: &str) -> Rejection {
    bad(format!("the image is not whole: {what} is missing"))
}

fn registry_failed(message: impl Into<String>) -> Rejection {
    Rejection::new(Code::ImageRegistryFailed, message.into())
}

/// Whatever these bytes are, a parser of manifests and indexes ends with them.
#[cfg(test)]
pub(crate) fn fuzzed(bytes: &[u8]) {
    let _ = index::document(bytes);
    let _ = index::name_in(bytes);
}
