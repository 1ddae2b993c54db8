//! Blobs as files: two levels of directories by digest, compressed, never half written.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;
use piecework_model::Digest;
use tempfile::NamedTempFile;

use crate::{BlobSize, Blobs, BlobsError, blocking};

/// Blobs below one directory, each a zstd file named by the digest of its uncompressed content.
#[derive(Clone, Debug)]
pub struct Files {
    root: PathBuf,
}

/// A blob that claims to expand to more is corrupt: nothing larger is ever put.
const BLOB_BYTES_MAX: u64 = 1 << 30;
/// Fast and within a few percent of the default level on source code.
const ZSTD_LEVEL: i32 = 3;

impl Files {
    /// Makes `root` if it is missing and clears away what a crash left half written.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, BlobsError> {
        let root = root.into();
        let incoming = root.join(INCOMING);
        match fs::remove_dir_all(&incoming) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(BlobsError::io("clear half-written blobs")(error)),
        }
        fs::create_dir_all(&incoming).map_err(BlobsError::io("make the blob directory"))?;
        Ok(Self { root })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.root.join(&name[..2]).join(&name[2..4]).join(name)
    }

    fn write(&self, bytes: &[u8]) -> Result<Digest, BlobsError> {
        let digest = Digest::of(bytes);
        let path = self.path(&digest);
        // A kept blob may have rotted: it is only trusted if it still reads well.
        if path.exists() && read(&path, &digest).is_ok() {
            return Ok(digest);
        }
        let failed = BlobsError::io;
        if bytes.len() as u64 > BLOB_BYTES_MAX {
            return Err(BlobsError::Full {
                needed_bytes: bytes.len() as u64,
                quota_bytes: BLOB_BYTES_MAX,
            });
        }
        let directory = path.parent().expect("a blob lies two directories down");
        make_durable_dirs(&self.root, directory).map_err(failed("make a blob's directory"))?;
        let mut file = NamedTempFile::new_in(self.root.join(INCOMING)).map_err(failed("make a blob file"))?;
        let packed = zstd::bulk::compress(bytes, ZSTD_LEVEL).map_err(failed("compress a blob"))?;
        file.write_all(&packed).map_err(failed("write a blob"))?;
        file.as_file().sync_all().map_err(failed("sync a blob"))?;
        file.persist(&path)
            .map_err(|error| failed("name a blob")(error.error))?;
        sync_dir(directory).map_err(failed("sync a blob's directory"))?;
        Ok(digest)
    }
}

/// Where blobs are written before they get their name; on the same file system as the rest.
const INCOMING: &str = "incoming";

fn read(path: &Path, digest: &Digest) -> Result<Bytes, BlobsError> {
    let packed = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(BlobsError::NotFound(*digest)),
        Err(error) => return Err(BlobsError::io("open a blob")(error)),
    };
    let corrupt = |reason: String| BlobsError::Corrupt {
        digest: *digest,
        reason,
    };
    let mut bytes = Vec::new();
    zstd::stream::read::Decoder::new(packed)
        .map_err(BlobsError::io("read a blob"))?
        .take(BLOB_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| corrupt(error.to_string()))?;
    let found = Digest::of(&bytes);
    if found != *digest {
        return Err(corrupt(format!("its content has the digest {found}")));
    }
    Ok(bytes.into())
}

/// Without decompressing it: the frame's header says how much it holds.
fn size(path: &Path) -> io::Result<Option<BlobSize>> {
    /// Of the longest header of a frame.
    const HEADER_BYTES: u64 = 18;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let disk_bytes = file.metadata()?.len();
    let mut header = Vec::new();
    file.take(HEADER_BYTES).read_to_end(&mut header)?;
    let bytes = zstd::zstd_safe::get_frame_content_size(&header).ok().flatten();
    let bytes = bytes.unwrap_or(disk_bytes);
    Ok(Some(BlobSize { bytes, disk_bytes }))
}

/// The files below the two levels of directories whose names are digests.
fn list(root: &Path) -> io::Result<Vec<Digest>> {
    let mut found = Vec::new();
    for outer in directories(root)? {
        for inner in directories(&outer)? {
            for entry in fs::read_dir(inner)? {
                found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<Digest>().ok()));
            }
        }
    }
    Ok(found)
}

fn directories(below: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != INCOMING {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Makes `directory` and syncs each of its parents up to `root`, so that the names survive a power cut.
fn make_durable_dirs(root: &Path, directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    directory
        .ancestors()
        .skip(1)
        .take_while(|parent| parent.starts_with(root))
        .try_for_each(sync_dir)
}

fn sync_dir(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[async_trait]
impl Blobs for Files {
    async fn put(&self, bytes: Bytes) -> Result<Digest, BlobsError> {
        let files = self.clone();
        blocking(move || files.write(&bytes)).await
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, BlobsError> {
        let (path, digest) = (self.path(digest), *digest);
        blocking(move || read(&path, &digest)).await
    }

    async fn has(&self, digest: &Digest) -> Result<bool, BlobsError> {
        tokio::fs::try_exists(self.path(digest))
            .await
            .map_err(BlobsError::io("look for a blob"))
    }

    async fn size(&self, digest: &Digest) -> Result<Option<BlobSize>, BlobsError> {
        let path = self.path(digest);
        blocking(move || size(&path))
            .await
            .map_err(BlobsError::io("look at a blob"))
    }

    async fn list(&self) -> Result<Vec<Digest>, BlobsError> {
        let root = self.root.clone();
        blocking(move || list(&root))
            .await
            .map_err(BlobsError::io("list blobs"))
    }

    async fn delete(&self, digest: &Digest) -> Result<bool, BlobsError> {
        match tokio::fs::remove_file(self.path(digest)).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(BlobsError::io("delete a blob")(error)),
        }
    }
}
