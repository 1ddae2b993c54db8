//! A file with an image in it: what `docker save` writes, or an OCI layout as a tar.
//!
//! The file is read in place: of each entry only where it lies. One that is compressed is unpacked into a temporary file first.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use serde::Deserialize;
use tempfile::TempDir;

use super::{
    Blob, Fetched, SourceError,
    index::{self, Descriptor, Document, Manifest},
    missing,
};
use crate::{
    DOCUMENT_BYTES_MAX, IMAGE_BYTES_MAX, LAYERS_MAX, Sha256, Sha256Stream, bad, description::mismatch, too_large,
};

const ENTRIES_MAX: usize = 10_000;
const HOPS_MAX: usize = 4;
/// Layers in such a file are mostly not compressed.
const FILE_BYTES_MAX: u64 = 4 * IMAGE_BYTES_MAX;

/// Where the files in the archive lie.
struct Archive {
    file: PathBuf,
    entries: BTreeMap<String, Place>,
    folder: Option<Arc<TempDir>>,
}

enum Place {
    At {
        offset: u64,
        bytes: u64,
    },
    /// `docker save` links layers that two images share.
    Link(String),
}

/// `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(super) fn read(path: &Path) -> Result<Fetched, SourceError> {
    let archive = Archive::open(path)?;
    let shown = path.display().to_string();
    match (archive.has("manifest.json"), archive.has("index.json")) {
        (_, true) => archive.layout(shown),
        (true, false) => archive.saved(shown),
        (false, false) => {
            let message = format!("{shown} is not an image: it has neither manifest.json nor index.json");
            Err(bad(message).into())
        }
    }
}

impl Archive {
    fn open(path: &Path) -> Result<Self, SourceError> {
        let cannot = || SourceError::io(format!("cannot read {}", path.display()));
        let mut first = [0; 4];
        let mut file = File::open(path).map_err(cannot())?;
        let got = file.read(&mut first).map_err(cannot())?;
        file.rewind().map_err(cannot())?;
        let mut archive = Self {
            file: path.to_owned(),
            entries: BTreeMap::new(),
            folder: None,
        };
        let unpacked: Option<Box<dyn Read>> = match &first[..got] {
            [0x1f, 0x8b, ..] => Some(Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(file)))),
            [0x28, 0xb5, 0x2f, 0xfd] => Some(Box::new(zstd::stream::read::Decoder::new(file).map_err(cannot())?)),
            _ => None,
        };
        if let Some(unpacked) = unpacked {
            let folder = tempfile::tempdir().map_err(cannot())?;
            archive.file = folder.path().join("image.tar");
            archive.folder = Some(Arc::new(folder));
            let mut to = File::create(&archive.file).map_err(cannot())?;
            let copied = io::copy(&mut unpacked.take(FILE_BYTES_MAX + 1), &mut to);
            let copied = copied.map_err(|error| bad(format!("{} is damaged: {error}", path.display())))?;
            if copied > FILE_BYTES_MAX {
                return Err(too_large("the image's file is too large").into());
            }
        }
        archive
            .list()
            .map_err(|error| bad(format!("{} is not an image: {error}", path.display())))?;
        Ok(archive)
    }

    fn list(&mut self) -> io::Result<()> {
        let mut tar = tar::Archive::new(File::open(&self.file)?);
        for entry in tar.entries_with_seek()? {
            let entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes())
                .trim_start_matches("./")
                .to_owned();
            let place = match entry.header().entry_type() {
                tar::EntryType::Regular => Place::At {
                    offset: entry.raw_file_position(),
                    bytes: entry.size(),
                },
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    Place::Link(String::from_utf8_lossy(&target).trim_start_matches("../").to_owned())
                }
                _ => continue,
            };
            self.entries.insert(name, place);
            if self.entries.len() > ENTRIES_MAX {
                return Err(io::Error::other("it has too many files"));
            }
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    fn blob(&self, name: &str) -> Result<Blob, SourceError> {
        let (mut name, mut hops) = (name, 0);
        loop {
            match self.entries.get(name) {
                Some(Place::At { offset, bytes }) => {
                    return Ok(Blob {
                        file: self.file.clone(),
                        offset: *offset,
                        bytes: *bytes,
                        _folder: self.folder.clone(),
                    });
                }
                Some(Place::Link(target)) if hops < HOPS_MAX => (name, hops) = (target, hops + 1),
                Some(Place::Link(_)) | None => return Err(missing(name).into()),
            }
        }
    }

    fn document(&self, name: &str) -> Result<Bytes, SourceError> {
        let blob = self.blob(name)?;
        if blob.bytes > DOCUMENT_BYTES_MAX as u64 {
            return Err(too_large(format!("{name} has more than {DOCUMENT_BYTES_MAX} bytes")).into());
        }
        let cannot = || SourceError::io(format!("cannot read {}", self.file.display()));
        let mut file = File::open(&blob.file).map_err(cannot())?;
        file.seek(SeekFrom::Start(blob.offset)).map_err(cannot())?;
        let mut bytes = Vec::new();
        file.take(blob.bytes).read_to_end(&mut bytes).map_err(cannot())?;
        Ok(bytes.into())
    }

    fn named(&self, digest: Sha256) -> String {
        format!("blobs/{}", digest.to_string().replacen(':', "/", 1))
    }

    fn checked(&self, digest: Sha256) -> Result<Bytes, SourceError> {
        let bytes = self.document(&self.named(digest))?;
        match Sha256::of(&bytes) == digest {
            true => Ok(bytes),
            false => Err(mismatch("a part of the image", digest).into()),
        }
    }

    fn layout(&self, shown: String) -> Result<Fetched, SourceError> {
        let mut manifest = self.document("index.json")?;
        let reference = index::name_in(&manifest).map_or(shown.clone(), |name| format!("{shown}:{name}"));
        for _ in 0..HOPS_MAX {
            match index::document(&manifest)? {
                Document::Index(entry) => manifest = self.checked(entry.digest)?,
                Document::Manifest(found) => {
                    let layers = found.layers.iter().map(|layer| {
                        let blob = self.blob(&self.named(layer.digest))?;
                        match blob.bytes == layer.size {
                            true => Ok(blob),
                            false => Err(mismatch("a layer of the image", layer.digest).into()),
                        }
                    });
                    return Ok(Fetched {
                        reference,
                        config: self.checked(found.config.digest)?,
                        layers: layers.collect::<Result<_, SourceError>>()?,
                        manifest,
                    });
                }
            }
        }
        Err(bad("the image's indexes are nested too deeply or refer to each other").into())
    }

    /// It has no manifest of a registry's form: one is made, the same of the same file each time.
    fn saved(&self, shown: String) -> Result<Fetched, SourceError> {
        let listed = self.document("manifest.json")?;
        let listed: Vec<Saved> =
            serde_json::from_slice(&listed).map_err(|error| bad(format!("manifest.json is not valid: {error}")))?;
        let [saved] = &listed[..] else {
            return Err(bad(format!("{shown} has {} images; save one alone", listed.len())).into());
        };
        if saved.layers.len() > LAYERS_MAX {
            return Err(too_large(format!("an image has at most {LAYERS_MAX} layers")).into());
        }
        let config = self.document(&saved.config)?;
        let described = Descriptor::new(
            "application/vnd.oci.image.config.v1+json",
            Sha256::of(&config),
            config.len() as u64,
        );
        let (mut layers, mut descriptors) = (Vec::new(), Vec::new());
        for name in &saved.layers {
            let blob = self.blob(name)?;
            let digest = self.digest_of(&blob)?;
            descriptors.push(Descriptor::new(
                "application/vnd.oci.image.layer.v1.tar",
                digest,
                blob.bytes,
            ));
            layers.push(blob);
        }
        let manifest = serde_json::to_vec(&Manifest::new(described, descriptors)).expect("it is plain data");
        let tag = saved.repo_tags.iter().flatten().next().cloned();
        Ok(Fetched {
            reference: tag.unwrap_or(shown),
            manifest: manifest.into(),
            config,
            layers,
        })
    }

    fn digest_of(&self, blob: &Blob) -> Result<Sha256, SourceError> {
        let cannot = || SourceError::io(format!("cannot read {}", self.file.display()));
        let mut file = File::open(&blob.file).map_err(cannot())?;
        file.seek(SeekFrom::Start(blob.offset)).map_err(cannot())?;
        let (mut from, mut hash, mut buffer) = (file.take(blob.bytes), Sha256Stream::default(), vec![0; 128 << 10]);
        loop {
            let got = from.read(&mut buffer).map_err(cannot())?;
            if got == 0 {
                return Ok(hash.finish());
            }
            hash.update(&buffer[..got]);
        }
    }
}
