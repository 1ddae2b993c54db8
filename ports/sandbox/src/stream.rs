//! Bytes that a call takes in and gives out while it runs, in order and with back-pressure.
//!
//! ```text
//! begun -> [Head] -> Chunk* -> Finished       what a function gives out
//!          Chunk*                             what it takes in: the body of its request
//! ```
//! Both ways are bounded channels: whoever writes waits for whoever reads. A reader that goes away ends the writing.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// One chunk's largest size. Larger writes are cut into several.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Chunks that wait between a writer and its reader: enough that neither waits for the other at each one, few enough that a
/// slow reader costs at most 256 KiB at each seam.
pub const CHUNKS_WAITING_MAX: usize = 4;

/// Status and headers of an answer, before its first byte.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Head {
    /// HTTP status; 0 where the function gave none (a generator).
    pub status: u16,
    /// In the function's order; names may repeat.
    pub headers: Vec<(String, Bytes)>,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Sent {
    /// At most one, before the first chunk. Its presence says that the answer is a stream.
    Head(Head),
    /// At most [`CHUNK_BYTES_MAX`] bytes, never empty.
    Chunk(Bytes),
}

/// Where a function's answer goes while it runs.
#[derive(Clone, Debug)]
pub struct Outlet(mpsc::Sender<Sent>);

/// Nobody reads any more: the caller went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody reads the answer any more")]
pub struct ReaderGone;

impl Outlet {
    pub fn channel() -> (Self, mpsc::Receiver<Sent>) {
        let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
        (Self(sender), receiver)
    }

    /// For answers that nobody reads as they come: a function that streams is stopped at its first part.
    pub fn nowhere() -> Self {
        Self::channel().0
    }

    /// Waits for room. Cancel safe: a part that was not sent is lost whole.
    pub async fn send(&self, part: Sent) -> Result<(), ReaderGone> {
        self.0.send(part).await.map_err(|_| ReaderGone)
    }

    /// Resolves once nobody reads any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// The body of a request, taken in while the call runs. Clones share one stream: only the first [`Self::take`] gets it.
#[derive(Clone, Debug)]
pub struct Inlet(Arc<Mutex<Option<mpsc::Receiver<Bytes>>>>);

impl Inlet {
    pub fn channel() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
        (sender, Self(Arc::new(Mutex::new(Some(receiver)))))
    }

    /// `None` where the stream was taken before: its bytes cannot be read twice, and the run not be repeated.
    pub fn take(&self) -> Option<mpsc::Receiver<Bytes>> {
        self.0.lock().take()
    }
}
