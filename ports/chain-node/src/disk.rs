//! A blob on the disk of either machine.

use std::sync::Arc;

use commonware_runtime::{
    Blob as _, Error, Handle, IoBufs, IoBufsMut, ReadOptions, Storage, WriteOptions, deterministic, tokio::Context,
};
use futures::{FutureExt as _, Stream, future::BoxFuture, stream::StreamExt as _};

use crate::room::Room;

type File = <Context as Storage>::Blob;

pub(crate) enum Blob {
    File(File, Arc<Room>),
    Simulated(deterministic::Blob),
}

/// A write that is synced in the same call and fails leaves the file unusable: close to the end of the disk the bytes come
/// first, as often as it takes, and then the sync.
async fn write_file(
    file: &File,
    room: &Room,
    (offset, buffers): (u64, IoBufs),
    options: WriteOptions,
) -> Result<(), Error> {
    let syncs = options.contains(WriteOptions::SYNC);
    if syncs && room.is_ample() {
        return file.write_at(offset, buffers, options).await;
    }
    let plain = options.without(WriteOptions::SYNC);
    room.until_there_is(|| file.write_at(offset, buffers.clone(), plain))
        .await?;
    match syncs {
        true => file.sync().await,
        false => Ok(()),
    }
}

impl Blob {
    fn read(
        &self,
        offset: u64,
        len: usize,
        buffers: IoBufsMut,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<IoBufsMut, Error>> {
        match self {
            Self::File(file, _) => file.read_at_buf(offset, len, buffers, options).boxed(),
            Self::Simulated(blob) => blob.read_at_buf(offset, len, buffers, options).boxed(),
        }
    }

    fn write(&self, offset: u64, buffers: IoBufs, options: WriteOptions) -> BoxFuture<'_, Result<(), Error>> {
        match self {
            Self::File(file, room) => write_file(file, room, (offset, buffers), options).boxed(),
            Self::Simulated(blob) => blob.write_at(offset, buffers, options).boxed(),
        }
    }
}

/// All but the handling of single bytes is boxed; see the machine.
impl commonware_runtime::Blob for Blob {
    fn read_at_buf(
        &self,
        offset: u64,
        len: usize,
        bufs: impl Into<IoBufsMut> + Send,
        options: ReadOptions,
    ) -> impl Future<Output = Result<IoBufsMut, Error>> + Send {
        self.read(offset, len, bufs.into(), options)
    }

    fn read_at(
        &self,
        offset: u64,
        len: usize,
        options: ReadOptions,
    ) -> impl Future<Output = Result<IoBufsMut, Error>> + Send {
        match self {
            Self::File(file, _) => file.read_at(offset, len, options).boxed(),
            Self::Simulated(blob) => blob.read_at(offset, len, options).boxed(),
        }
    }

    fn read_many(
        &self,
        ranges: &[(u64, usize)],
        options: ReadOptions,
    ) -> impl Stream<Item = Result<(usize, IoBufsMut), Error>> + Send {
        match self {
            Self::File(file, _) => file.read_many(ranges, options).left_stream(),
            Self::Simulated(blob) => blob.read_many(ranges, options).right_stream(),
        }
    }

    async fn start_read_many(&self, ranges: &[(u64, usize)], options: ReadOptions) -> Handle<Vec<IoBufsMut>> {
        match self {
            Self::File(file, _) => file.start_read_many(ranges, options).boxed().await,
            Self::Simulated(blob) => blob.start_read_many(ranges, options).boxed().await,
        }
    }

    fn write_at(
        &self,
        offset: u64,
        bufs: impl Into<IoBufs> + Send,
        options: WriteOptions,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        self.write(offset, bufs.into(), options)
    }

    fn resize(&self, len: u64) -> impl Future<Output = Result<(), Error>> + Send {
        match self {
            Self::File(file, room) => room.until_there_is(move || file.resize(len)).boxed(),
            Self::Simulated(blob) => blob.resize(len).boxed(),
        }
    }

    fn sync(&self) -> impl Future<Output = Result<(), Error>> + Send {
        match self {
            Self::File(file, _) => file.sync().boxed(),
            Self::Simulated(blob) => blob.sync().boxed(),
        }
    }

    fn start_sync(&self) -> impl Future<Output = Handle<()>> + Send {
        match self {
            Self::File(file, _) => file.start_sync().boxed(),
            Self::Simulated(blob) => blob.start_sync().boxed(),
        }
    }
}
