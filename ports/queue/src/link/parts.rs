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
/// Answers whose reader has stalled, each with some 400 KiB in the windows and buffers of its stream: those of one provider, and
/// of all together.
const STALLED_EACH_MAX: usize = 64;
const STALLED_ALL_MAX: usize = 8 * STALLED_EACH_MAX;
/// What is this small is kept without a place in the [`Budget`].
const SMALL_BYTES: usize = 64 << 10;
/// How much is read at once: what comes may be less than what was told.
const STEP_BYTES: usize = 64 << 10;

/// How many sessions may hold as much as that at one time; what comes on top waits. Whoever keeps it from others by stopping in
/// the middle is given up when its job should have ended.
const SESSIONS_FULL_MAX: usize = 8;

/// How much one session holds of large messages and bytes that are on their way, whole ones at a time. Two sums: who has read
/// a message and waits to read the bytes that follow it never waits for somebody who waits for messages.
pub(super) struct Budget {
    messages: Semaphore,
    bytes: Semaphore,
    stalled: Semaphore,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            messages: Semaphore::new(MESSAGE_BYTES_MAX),
            bytes: Semaphore::new(BYTES_MAX),
            stalled: Semaphore::new(STALLED_EACH_MAX),
        }
    }
}

impl Budget {
    /// A place for an answer whose reader has stalled, until it is dropped; `None` where there are too many.
    pub(super) fn stall(&self) -> Held<'_> {
        let own = self.stalled.try_acquire().ok()?;
        Some([own, ALL_STALLED.try_acquire().ok()?])
    }
}

/// Of all sessions together.
static ALL_MESSAGES: Semaphore = Semaphore::const_new(SESSIONS_FULL_MAX * MESSAGE_BYTES_MAX);
static ALL_STALLED: Semaphore = Semaphore::const_new(STALLED_ALL_MAX);
static ALL_BYTES: Semaphore = Semaphore::const_new(SESSIONS_FULL_MAX * BYTES_MAX);

/// A place in a session's budget, and in that of all; none is needed for what is small.
pub(super) type Held<'a> = Option<[SemaphorePermit<'a>; 2]>;

async fn hold<'a>(sum: &'a Semaphore, all: &'static Semaphore, count: usize) -> Result<Held<'a>, LinkFailure> {
    if count <= SMALL_BYTES {
        return Ok(None);
    }
    let count = u32::try_from(count).map_err(|_| LinkFailure::Protocol("too many bytes"))?;
    let own = sum.acquire_many(count).await.expect("a budget is never closed");
    let shared = all.acquire_many(count).await.expect("a budget is never closed");
    Ok(Some([own, shared]))
}

/// Reads one stream. Not cancel safe: a dropped read may lose part of a message.
pub(super) struct Reader<'a, R> {
    pub(super) from: R,
    pub(super) budget: &'a Budget,
}

impl<'a, R: AsyncRead + Unpin> Reader<'a, R> {
    /// The next message, of at most `bytes_max`.
    pub(super) async fn message<T: BorshDeserialize>(&mut self, bytes_max: usize) -> Result<T, LinkFailure> {
        self.held_message(bytes_max).await.map(|(message, _)| message)
    }

    /// The next message, of at most `bytes_max`, and its place in the budget until it is dropped.
    pub(super) async fn held_message<T: BorshDeserialize>(
        &mut self,
        bytes_max: usize,
    ) -> Result<(T, Held<'a>), LinkFailure> {
        let (message, held) = self.held_chunk(bytes_max).await?;
        let message = borsh::from_slice(&message).map_err(|_| LinkFailure::Protocol("a message does not decode"))?;
        Ok((message, held))
    }

    /// The bytes of the next message.
    pub(super) async fn chunk(&mut self, bytes_max: usize) -> Result<Bytes, LinkFailure> {
        self.held_chunk(bytes_max).await.map(|(message, _)| message)
    }

    async fn held_chunk(&mut self, bytes_max: usize) -> Result<(Bytes, Held<'a>), LinkFailure> {
        let mut length = [0; 4];
        self.from.read_exact(&mut length).await.map_err(cut)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > bytes_max {
            return Err(LinkFailure::Protocol("a message is too large"));
        }
        let held = hold(&self.budget.messages, &ALL_MESSAGES, length).await?;
        Ok((self.exactly(length).await?, held))
    }

    /// Bare bytes of a length that was told, and their place in the budget until it is dropped.
    pub(super) async fn bytes(&mut self, count: usize) -> Result<(Bytes, Held<'a>), LinkFailure> {
        if count > BYTES_MAX {
            return Err(LinkFailure::Protocol("too many bytes"));
        }
        let held = hold(&self.budget.bytes, &ALL_BYTES, count).await?;
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

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    #[test]
    fn readers_that_stall_are_few() {
        let budget = Budget::default();
        let held: Vec<_> = std::iter::from_fn(|| budget.stall()).collect();
        assert_eq!(held.len(), STALLED_EACH_MAX);
        assert!(
            Budget::default().stall().is_some(),
            "another provider has places of its own"
        );
        drop(held);
        assert!(budget.stall().is_some());
    }

    #[tokio::test]
    async fn a_large_message_is_counted_until_what_follows_it_is_here() {
        let budget = Budget::default();
        let count = MESSAGE_BYTES_MAX / 2 + 1;
        let mut bytes = u32::try_from(count).expect("small").to_le_bytes().to_vec();
        bytes.resize(4 + count, 0);
        let reader = || Reader {
            from: Cursor::new(bytes.clone()),
            budget: &budget,
        };
        let (mut one, mut other) = (reader(), reader());
        let first = one.held_chunk(MESSAGE_BYTES_MAX).await.expect("it fits");
        let mut second = Box::pin(other.held_chunk(MESSAGE_BYTES_MAX));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.is_ok());
    }
}
