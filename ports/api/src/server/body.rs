//! Bodies of requests: read whole within bounds, and parsed where nobody waits for the thread.

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use piecework_model::Code;
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Mutex, Semaphore, SemaphorePermit, TryAcquireError},
    task::spawn_blocking,
    time::{Duration, Instant, timeout_at},
};

use super::{HttpError, HttpResult, refusal, refuse};
use crate::errors::{Refusal, parse_body};

/// What is read of a body that is too large, so that its sender gets to see the refusal.
const DRAINED_BYTES_MAX: usize = 64 << 20;

/// A body has this long, and as long as its bytes take at the slowest rate: who trickles a large one holds its memory.
const SLOW_WITHIN: Duration = Duration::from_secs(20);
const SLOWEST_BYTES_PER_S: usize = 4 << 10;

/// Large bodies that are in memory at one time, in blocks: 256 MiB of them in all.
static ROOM: Semaphore = Semaphore::const_new(4_096);
/// The first block costs nothing: nearly every body fits into it, and connections are counted.
const BLOCK_BYTES: usize = 64 << 10;

/// Work on the bytes of requests and answers that is done at one time outside the request threads. One core is left to
/// everybody else even where there are two.
static ASIDE: Semaphore = Semaphore::const_new(1);
/// Up to this size it takes a fraction of a millisecond, and a change of threads costs more.
const HERE_BYTES_MAX: usize = 64 << 10;

/// Large bodies are read at this rate, all of them together, one piece after the other: reading costs the processor whether anything
/// comes of it or not, and a megabyte is sent in no time.
const READ_BYTES_PER_S: u64 = 64 << 20;
/// So much of one body is read as it comes, and so much of all of them before any has to wait.
const UNPACED_BYTES: usize = 1 << 20;
const BURST_BYTES: u64 = 16 << 20;
/// By when what was read is paid off. Those who wait get their turns in order.
static PACE: Mutex<Option<Instant>> = Mutex::const_new(None);

/// Waits until a piece of a large body may be read.
async fn pace(bytes: usize) {
    let time_of = |bytes: u64| Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / READ_BYTES_PER_S);
    let mut paid_at = PACE.lock().await;
    let now = Instant::now();
    let due = paid_at.map_or(now, |at| at.max(now)) + time_of(bytes as u64);
    *paid_at = Some(due);
    // Held meanwhile: whoever comes next waits behind.
    tokio::time::sleep_until(due.checked_sub(time_of(BURST_BYTES)).unwrap_or(now)).await;
}

/// The blocks of one body, given back when dropped.
#[derive(Debug, Default)]
struct Blocks(Vec<SemaphorePermit<'static>>);

impl Blocks {
    /// Refuses with `server.busy`: who waited for room would hold what it has.
    fn hold(&mut self, bytes: usize) -> HttpResult<()> {
        while bytes > (self.0.len() + 1) * BLOCK_BYTES {
            match ROOM.try_acquire() {
                Ok(block) => self.0.push(block),
                Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                    return Ok(refuse(
                        Code::ServerBusy,
                        "too many large requests are being read; retry in a second",
                    )?);
                }
            }
        }
        Ok(())
    }
}

/// The whole body. Refuses with `body.too_large`, `body.too_slow`, `body.malformed` and `server.busy`.
pub async fn read_bytes(body: Body, bytes_max: usize) -> HttpResult<Bytes> {
    read(body, bytes_max).await.map(|(bytes, _)| bytes)
}

/// How long a body may take of which so much has come.
fn allowance(read: usize) -> Duration {
    SLOW_WITHIN + Duration::from_secs((read / SLOWEST_BYTES_PER_S) as u64)
}

async fn read(body: Body, bytes_max: usize) -> HttpResult<(Bytes, Blocks)> {
    read_since(Instant::now(), body, bytes_max).await
}

async fn read_since(began: Instant, body: Body, bytes_max: usize) -> HttpResult<(Bytes, Blocks)> {
    let declared = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let mut parts = body.into_data_stream();
    let (mut read, mut bytes, mut blocks) = (0, BytesMut::new(), Blocks::default());
    loop {
        let Ok(next) = timeout_at(began + allowance(read), parts.next()).await else {
            return Ok(refuse(Code::BodyTooSlow, "the body did not arrive in time")?);
        };
        let Some(part) = next else { break };
        let part = part.map_err(|error| {
            refusal(
                Code::BodyMalformed,
                format!("the body did not arrive completely: {error}"),
            )
        })?;
        read += part.len();
        if read > UNPACED_BYTES {
            pace(part.len()).await;
        }
        if read <= bytes_max {
            blocks.hold(read)?;
            if let Some(whole) = declared.filter(|whole| *whole <= bytes_max && read > UNPACED_BYTES) {
                // Once: growing by doubling would copy it again and again, and hold twice as much.
                bytes.reserve(whole.saturating_sub(bytes.len()));
            }
            bytes.extend_from_slice(&part);
        } else if read > DRAINED_BYTES_MAX {
            break;
        }
    }
    if read > bytes_max {
        return Err(HttpError(refusal(
            Code::BodyTooLarge,
            format!("the body is larger than the limit of {bytes_max} bytes"),
        )));
    }
    Ok((bytes.freeze(), blocks))
}

/// The body as JSON of this form; refused with the path of what does not fit. A large one is parsed aside.
pub async fn read_body<T: DeserializeOwned + Send + 'static>(body: Body, bytes_max: usize) -> HttpResult<T> {
    read_as(body, bytes_max, |bytes| {
        parse_body(&bytes).map_err(|refusal| HttpError(Box::new(refusal)))
    })
    .await
}

/// The whole body, made into something as [`read_body`] does: aside where it is large, and counted as in memory until then.
pub async fn read_as<T: Send + 'static>(
    body: Body,
    bytes_max: usize,
    parse: impl FnOnce(Bytes) -> HttpResult<T> + Send + 'static,
) -> HttpResult<T> {
    let (bytes, _blocks) = read(body, bytes_max).await?;
    aside(bytes.len(), move || parse(bytes)).await?
}

/// Does work that takes as long as its bytes are many: here where they are few, else on a thread that no request waits for,
/// after whatever else is done so.
pub async fn aside<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> HttpResult<T> {
    if bytes <= HERE_BYTES_MAX {
        return Ok(work());
    }
    let turn = ASIDE.acquire().await.expect("it is never closed");
    let work = move || {
        // Held by the work itself: a caller that went away does not end it.
        let _turn = turn;
        work()
    };
    spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "work on a request's bytes ended");
        HttpError(Box::new(
            Refusal::new(Code::ServerFailed, "something failed on the server; its log says what").hint("retry later"),
        ))
    })
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn small_work_is_done_here_and_large_work_one_after_the_other() {
        let here = std::thread::current().id();
        let thread = || std::thread::current().id();
        assert_eq!(aside(HERE_BYTES_MAX, thread).await.expect("done"), here);
        assert_ne!(aside(HERE_BYTES_MAX + 1, thread).await.expect("done"), here);
        let turn = ASIDE.acquire().await.expect("open");
        let waiting = aside(usize::MAX, thread);
        let waited = tokio::time::timeout(Duration::from_millis(50), waiting).await;
        assert!(waited.is_err(), "another one is at work");
        drop(turn);
    }

    #[test]
    fn a_body_that_trickles_has_less_time_than_one_that_is_only_large() {
        assert_eq!(allowance(0), Duration::from_secs(20));
        assert_eq!(
            allowance(1_000),
            Duration::from_secs(20),
            "a few bytes a second earn nothing"
        );
        assert_eq!(allowance(48 << 20), Duration::from_secs(20 + (48 << 20) / 4_096));
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_refused_in_time() {
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let late = Instant::now() - SLOW_WITHIN;
        let refused = read_since(late, never, 10).await.expect_err("too slow");
        assert_eq!(refused.0.code, Code::BodyTooSlow);
    }

    #[tokio::test]
    async fn large_bodies_are_read_at_a_bounded_rate_and_small_ones_at_once() {
        let body = |bytes: usize| {
            let piece = Bytes::from(vec![b' '; 64 << 10]);
            let pieces = std::iter::repeat_n(piece, bytes >> 16);
            Body::from_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)))
        };
        let began = Instant::now();
        let read = async |bytes: usize| read_bytes(body(bytes), 64 << 20).await.expect("read").len();
        // Together 96 MiB: at 64 MiB a second, but for the first of each and the burst.
        let both = tokio::join!(read(48 << 20), read(48 << 20));
        assert_eq!(both, (48 << 20, 48 << 20));
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(1_150), "{took:?}");
        let _others = PACE.lock().await;
        assert_eq!(read(UNPACED_BYTES).await, UNPACED_BYTES, "it waits for nobody");
    }

    #[tokio::test]
    async fn large_bodies_share_a_bounded_room() {
        let all = ROOM.acquire_many(4_096).await.expect("open");
        let small = read_bytes(Body::from(vec![b' '; BLOCK_BYTES]), 1 << 20).await;
        assert!(small.is_ok(), "a small one needs none");
        let large = read_bytes(Body::from(vec![b' '; BLOCK_BYTES + 1]), 1 << 20).await;
        assert_eq!(large.expect_err("no room").0.code, Code::ServerBusy);
        drop(all);
        let large = read_bytes(Body::from(vec![b' '; BLOCK_BYTES + 1]), 1 << 20).await;
        assert!(large.is_ok());
    }
}
