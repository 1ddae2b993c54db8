//! What is not needed: it keeps and brings nothing.

use async_trait::async_trait;
use bytes::Bytes;
use piecework_blobs::{BlobSize, Blobs, BlobsError};
use piecework_model::{Digest, Rejection};
use piecework_sink::{Deliver, Parcel, Sink, Undelivered};

pub(crate) struct Nothing;

#[async_trait]
impl Blobs for Nothing {
    async fn put(&self, bytes: Bytes) -> Result<Digest, BlobsError> {
        Ok(Digest::of(&bytes))
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, BlobsError> {
        Err(BlobsError::NotFound(*digest))
    }

    async fn has(&self, _: &Digest) -> Result<bool, BlobsError> {
        Ok(false)
    }

    async fn size(&self, _: &Digest) -> Result<Option<BlobSize>, BlobsError> {
        Ok(None)
    }

    async fn list(&self) -> Result<Vec<Digest>, BlobsError> {
        Ok(Vec::new())
    }

    async fn delete(&self, _: &Digest) -> Result<bool, BlobsError> {
        Ok(false)
    }
}

#[async_trait]
impl Deliver for Nothing {
    fn check(&self, _: &Sink) -> Result<(), Rejection> {
        Ok(())
    }

    async fn deliver(&self, _: &Sink, _: &Parcel) -> Result<(), Undelivered> {
        Err(Undelivered::Forbidden)
    }
}
