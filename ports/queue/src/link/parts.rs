//! Messages and bare bytes on one stream, within bounds.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::{Bytes, BytesMut};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::LinkFailure;

/// One message on the control stream: 10,000 receipts to be sealed, as many as a settlement has at the most.
pub(super) const CONTROL_BYTES_MAX: usize = 8 << 20;
/// One message on another stream: what a delivery says beside its output (logs above all, of which a controller refuses too
/// many by their own rule), or an order without its event (a function's environment).
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// An event, its parameters or an output.
pub(super) const BYTES_MAX: usize = 32 << 20;
/// An event with its parameters: what is left of a message is for the rest of an order.
pub(super) const EVENT_BYTES_MAX: usize = BYTES_MAX - (1 << 20);
/// What is this small is kept without a place in the [`Budget`].
const SMALL_BYTES: usize = 64 << 10;
/// How much is read at once: what comes may be less than what was told.
const STEP_BYTES: usize = 64 << 10;

/// How much one session holds of large messages and bytes that are on their way, whole ones at a time. Two sums: who has read
/// a message and waits to read the bytes that follow it never waits for somebody who waits for messages.
pub(super) struct Budget {
    messages: Semaphore,
    bytes: Semaphore,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            messages: Semaphore::new(MESSAGE_BYTES_MAX),
            bytes: Semaphore::new(BYTES_MAX),
        }
    }
}

async fn hold(sum: &Semaphore, count: usize) -> Result<Option<SemaphorePermit<'_>>, LinkFailure> {
    if count <= SMALL_BYTES {
        return Ok(None);
    }
    let count = u32::try_from(count).map_err(|_| LinkFailure::Protocol("too many bytes"))?;
    let held = sum.acquire_many(count).await;
    Ok(Some(held.expect("a budget is never closed")))
}

/// Reads one stream. Not cancel safe: a dropped read may lose part of a message.
pub(super) struct Reader<'a, R> {
    pub(super) from: R,
    pub(super) budget: &'a Budget,
}

impl<'a, R: AsyncRead + Unpin> Reader<'a, R> {
    /// The next message, of at most `bytes_max`.
    pub(super) async fn message<T: BorshDeserialize>(&mut self, bytes_max: usize) -> Result<T, LinkFailure> {
        let message = self.chunk(bytes_max).await?;
        borsh::from_slice(&message).map_err(|_| LinkFailure::Protocol("a message does not decode"))
    }

    /// The bytes of the next message.
    pub(super) async fn chunk(&mut self, bytes_max: usize) -> Result<Bytes, LinkFailure> {
        let mut length = [0; 4];
        self.from.read_exact(&mut length).await.map_err(cut)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > bytes_max {
            return Err(LinkFailure::Protocol("a message is too large"));
        }
        let _held = hold(&self.budget.messages, length).await?;
        self.exactly(length).await
    }

    /// Bare bytes of a length that was told, and their place in the budget until it is dropped.
    pub(super) async fn bytes(&mut self, count: usize) -> Result<(Bytes, Option<SemaphorePermit<'a>>), LinkFailure> {
        if count > BYTES_MAX {
            return Err(LinkFailure::Protocol("too many bytes"));
        }
        let held = hold(&self.budget.bytes, count).await?;
        Ok((self.exactly(count).await?, held))
    }

    /// As many as that, whatever they are: not counted.
    pub(super) async fn exactly(&mut self, count: usize) -> Result<Bytes, LinkFailure> {
        let mut bytes = BytesMut::with_capacity(count.min(STEP_BYTES));
        while bytes.len() < count {
            let had = bytes.len();
            bytes.resize(count.min(had + STEP_BYTES), 0);
            self.from.read_exact(&mut bytes[had..]).await.map_err(cut)?;
        }
        Ok(bytes.freeze())
    }
}

/// Writes a message behind its length.
pub(super) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    message: &impl BorshSerialize,
) -> Result<(), LinkFailure> {
    let mut bytes = vec![0; 4];
    message.serialize(&mut bytes).expect("a vector accepts every byte");
    let length = u32::try_from(bytes.len() - 4).map_err(|_| LinkFailure::Protocol("a message is too large to send"))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    to.write_all(&bytes).await.map_err(cut)
}

/// Writes bytes behind their length; none at all are the end of a body.
pub(super) async fn write_chunk(to: &mut (impl AsyncWrite + Unpin), chunk: &[u8]) -> Result<(), LinkFailure> {
    let length = u32::try_from(chunk.len()).map_err(|_| LinkFailure::Protocol("a chunk is too large to send"))?;
    let mut bytes = Vec::with_capacity(4 + chunk.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(chunk);
    to.write_all(&bytes).await.map_err(cut)
}

/// A stream ended before its time: its session did, or whoever was at its other end went away.
pub(super) fn cut(error: std::io::Error) -> LinkFailure {
    LinkFailure::Broken(format!("a stream was cut: {error}"))
}
