//! Bundles out of the controller's store; unpacked ones are kept, the packed ones are not.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use piecework_blobs::{BlobSize, Blobs, BlobsError};
use piecework_model::Digest;
use piecework_queue::link::Fetcher;

pub struct Pulled(pub Fetcher);

#[async_trait]
impl Blobs for Pulled {
    async fn put(&self, _bytes: Bytes) -> Result<Digest, BlobsError> {
        Err(failed(io::Error::other("bundles are kept by the controller")))
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, BlobsError> {
        let pulled = self
            .0
            .fetch(*digest)
            .await
            .map_err(|failure| failed(io::Error::other(failure)))?;
        let bytes = pulled.ok_or(BlobsError::NotFound(*digest))?;
        match Digest::of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(BlobsError::Corrupt {
                digest: *digest,
                reason: "the controller sent bytes that do not match the digest".into(),
            }),
        }
    }

    async fn has(&self, _digest: &Digest) -> Result<bool, BlobsError> {
        Ok(false)
    }

    async fn size(&self, _digest: &Digest) -> Result<Option<BlobSize>, BlobsError> {
        Ok(None)
    }

    async fn list(&self) -> Result<Vec<Digest>, BlobsError> {
        Ok(Vec::new())
    }

    async fn delete(&self, _digest: &Digest) -> Result<bool, BlobsError> {
        Ok(false)
    }
}

fn failed(source: io::Error) -> BlobsError {
    BlobsError::Io {
        operation: "pull a bundle",
        source,
    }
}
