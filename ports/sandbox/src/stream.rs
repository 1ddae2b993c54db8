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
use piecework_model::{Digest, DigestStream};
use tokio::sync::mpsc;

/// One chunk's largest size. Larger writes are cut into several.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Chunks that wait between a writer and its reader: enough that neither waits for the other at each one, few enough that a
/// slow reader costs at most 256 KiB at each seam.
pub const CHUNKS_WAITING_MAX: usize = 4;

/// Headers of one answer: more than servers and browsers take of any site.
pub const HEADERS_MAX: usize = 128;
/// Names and values of one answer's headers together. Proxies refuse more than 8 to 32 KiB.
pub const HEADER_BYTES_MAX: usize = 32 << 10;

/// Status and headers of an answer, before its first byte.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Head {
    /// HTTP status; 0 where the function gave none (a generator).
    pub status: u16,
    /// In the function's order; names may repeat.
    pub headers: Vec<(String, Bytes)>,
}

impl Head {
    /// What a function said, unless it is no head: then a sentence. Names become lower case.
    pub fn checked(status: u16, headers: Vec<(String, Bytes)>) -> Result<Self, String> {
        if status != 0 && !(200..600).contains(&status) {
            return Err(format!("the status of a streamed answer is 200 to 599, not {status}"));
        }
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
            return Err(format!(
                "a streamed answer has at most {HEADERS_MAX} headers of {HEADER_BYTES_MAX} bytes together"
            ));
        }
        for (name, value) in &headers {
            let told = || name.chars().take(100).collect::<String>();
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(format!("`{}` is not the name of a header", told()));
            }
            if !value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)) {
                return Err(format!(
                    "the value of the header `{}` has a line break or another control character",
                    told()
                ));
            }
        }
        let lower = |(name, value): (String, Bytes)| (name.to_ascii_lowercase(), value);
        let headers = headers.into_iter().map(lower).collect();
        Ok(Self { status, headers })
    }
}

/// Of RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Sent {
    /// Exactly one, before the first chunk. Its presence says that the answer is a stream.
    Head(Head),
    /// At most [`CHUNK_BYTES_MAX`] bytes, never empty.
    Chunk(Bytes),
}

/// Where a function's answer goes while it runs.
#[derive(Clone, Debug)]
pub struct Outlet {
    parts: mpsc::Sender<Sent>,
    meter: Option<StreamMeter>,
}

/// Nobody reads any more: the caller went away, or the run has streamed all that it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody reads the answer any more")]
pub struct ReaderGone;

impl Outlet {
    pub fn channel() -> (Self, mpsc::Receiver<Sent>) {
        let (parts, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
        (Self { parts, meter: None }, receiver)
    }

    /// For answers that nobody reads as they come: a function that streams is stopped at its first part.
    pub fn nowhere() -> Self {
        Self::channel().0
    }

    /// The same outlet, which `meter` counts from now on.
    pub fn metered(&self, meter: &StreamMeter) -> Self {
        Self {
            parts: self.parts.clone(),
            meter: Some(meter.clone()),
        }
    }

    /// Waits for room. Cancel safe: a part that was not sent is lost whole, and not counted.
    pub async fn send(&self, part: Sent) -> Result<(), ReaderGone> {
        self.room().await?.send(part);
        Ok(())
    }

    /// Waits for room for one part. Cancel safe: what is to be sent stays with the caller until there is room.
    pub async fn room(&self) -> Result<Room<'_>, ReaderGone> {
        let permit = self.parts.reserve().await.map_err(|_| ReaderGone)?;
        match &self.meter {
            Some(meter) if meter.is_shut() => Err(ReaderGone),
            meter => Ok(Room {
                permit,
                meter: meter.as_ref(),
            }),
        }
    }

    /// Resolves once nobody reads any more.
    pub async fn closed(&self) {
        self.parts.closed().await;
    }
}

/// Room for one part of an answer.
#[derive(Debug)]
pub struct Room<'a> {
    permit: mpsc::Permit<'a, Sent>,
    meter: Option<&'a StreamMeter>,
}

impl Room<'_> {
    /// A part that is more than the run may stream is dropped, and there is no room for another.
    pub fn send(self, part: Sent) {
        let Some(meter) = self.meter else {
            return self.permit.send(part);
        };
        // Counted and sent under one lock: the digest has the order of the stream, whoever else sends.
        let mut metered = meter.0.lock();
        if metered.take_part(&part) {
            self.permit.send(part);
        }
    }
}

/// Counts and hashes what one run streams, on its way; clones count together.
#[derive(Clone, Debug)]
pub struct StreamMeter(Arc<Mutex<Metered>>);

#[derive(Debug)]
struct Metered {
    /// What may still be streamed.
    left: u64,
    is_over: bool,
    /// Nothing passes any more: the run has ended.
    is_closed: bool,
    so_far: Streamed,
    /// Made with the first chunk: most runs stream nothing, and it is large.
    digest: Option<Box<DigestStream>>,
}

/// What a run streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streamed {
    /// Whether its answer was a stream, if an empty one.
    pub begun: bool,
    /// Over all chunks of the answer, in order.
    pub digest: Digest,
    /// Of the answer.
    pub bytes: u64,
    /// Of the body of its request.
    pub body_bytes: u64,
}

impl Streamed {
    /// What is billed.
    pub fn both_ways(&self) -> u64 {
        self.bytes.saturating_add(self.body_bytes)
    }
}

impl Default for Streamed {
    /// Of a run that streamed nothing.
    fn default() -> Self {
        Self {
            begun: false,
            digest: Digest::of(b""),
            bytes: 0,
            body_bytes: 0,
        }
    }
}

impl StreamMeter {
    /// Lets `allowed_bytes` pass, both ways together.
    pub fn new(allowed_bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(Metered {
            left: allowed_bytes,
            is_over: false,
            is_closed: false,
            so_far: Streamed::default(),
            digest: None,
        })))
    }

    /// Counts a part of the answer that does not go through a metered [`Outlet`]; whether it may pass.
    pub fn take_part(&self, part: &Sent) -> bool {
        self.0.lock().take_part(part)
    }

    /// Counts a part of the request's body; whether it may pass.
    pub fn take_body(&self, part: &[u8]) -> bool {
        let mut metered = self.0.lock();
        let passes = metered.take(part.len());
        if passes {
            metered.so_far.body_bytes += part.len() as u64;
        }
        passes
    }

    /// Whether something was kept back, as it was more than the run may stream.
    pub fn is_over(&self) -> bool {
        self.0.lock().is_over
    }

    fn is_shut(&self) -> bool {
        let metered = self.0.lock();
        metered.is_over || metered.is_closed
    }

    /// What passed so far.
    pub fn streamed(&self) -> Streamed {
        self.0.lock().streamed()
    }

    /// What passed in all: nothing does from now on, whoever still holds an outlet.
    pub fn close(&self) -> Streamed {
        let mut metered = self.0.lock();
        metered.is_closed = true;
        metered.streamed()
    }
}

impl Metered {
    fn streamed(&self) -> Streamed {
        Streamed {
            digest: self
                .digest
                .as_ref()
                .map_or(self.so_far.digest, |digest| digest.digest()),
            ..self.so_far
        }
    }

    fn take_part(&mut self, part: &Sent) -> bool {
        if self.is_closed {
            return false;
        }
        self.so_far.begun = true;
        let Sent::Chunk(chunk) = part else { return true };
        if !self.take(chunk.len()) {
            return false;
        }
        self.digest.get_or_insert_default().update(chunk);
        self.so_far.bytes += chunk.len() as u64;
        true
    }

    /// Once something was too much nothing passes, so that no part is missing in the middle.
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes as u64).filter(|_| !self.is_over);
        self.is_over = left.is_none();
        self.left = left.unwrap_or(self.left);
        !self.is_over
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

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(text: &'static str) -> Sent {
        Sent::Chunk(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn what_passes_is_hashed_in_its_order_and_what_is_too_much_ends_it() {
        let (plain, mut parts) = Outlet::channel();
        let meter = StreamMeter::new(7);
        let outlet = plain.metered(&meter);
        assert_eq!(meter.streamed(), Streamed::default());
        outlet.send(Sent::Head(Head::default())).await.expect("read");
        outlet.send(chunk("abc")).await.expect("read");
        assert!(meter.take_body(b"12"), "both ways count together");
        assert_eq!(outlet.send(chunk("def")).await, Ok(()), "it is dropped");
        assert_eq!(
            outlet.send(chunk("g")).await,
            Err(ReaderGone),
            "no part is missing in the middle"
        );
        assert!(meter.is_over() && !meter.take_body(b"3"));
        let streamed = Streamed {
            begun: true,
            digest: Digest::of(b"abc"),
            bytes: 3,
            body_bytes: 2,
        };
        assert_eq!((meter.close(), streamed.both_ways()), (streamed, 5));
        assert_eq!(
            outlet.send(Sent::Head(Head::default())).await,
            Err(ReaderGone),
            "it is closed"
        );
        drop((plain, outlet));
        assert_eq!(parts.recv().await, Some(Sent::Head(Head::default())));
        assert_eq!((parts.recv().await, parts.recv().await), (Some(chunk("abc")), None));
    }

    #[tokio::test]
    async fn what_nobody_reads_is_not_counted() {
        let meter = StreamMeter::new(7);
        let outlet = Outlet::nowhere().metered(&meter);
        assert_eq!(outlet.send(chunk("abc")).await, Err(ReaderGone));
        assert_eq!(meter.streamed(), Streamed::default());
    }

    #[tokio::test]
    async fn a_slow_reader_holds_up_the_writer() {
        let (outlet, mut parts) = Outlet::channel();
        for _ in 0..CHUNKS_WAITING_MAX {
            outlet.send(chunk("a")).await.expect("there is room");
        }
        let mut next = std::pin::pin!(outlet.send(chunk("b")));
        let waits = tokio::time::timeout(std::time::Duration::from_millis(5), &mut next).await;
        assert!(waits.is_err(), "there is no room");
        parts.recv().await.expect("a part");
        assert_eq!(next.await, Ok(()));
    }

    fn head(status: u16, name: &str, value: &'static str) -> Result<Head, String> {
        Head::checked(status, vec![(name.to_owned(), Bytes::from_static(value.as_bytes()))])
    }

    #[test]
    fn a_head_is_checked() {
        let good = head(200, "Set-Cookie", "a=\u{e9}; b\t").expect("a head");
        assert_eq!(good.headers[0].0, "set-cookie");
        assert!(head(0, "x", "").is_ok(), "a generator has no status");
        for (status, name, value) in [
            (199, "x", ""),
            (600, "x", ""),
            (200, "", ""),
            (200, "a b", ""),
            (200, "a:", ""),
            (200, "x", "a\r\nset-cookie: b"),
            (200, "x", "\0"),
            (200, "x", "\u{7f}"),
        ] {
            assert!(head(status, name, value).is_err(), "{status} {name:?} {value:?}");
        }
        let many = vec![("x".to_owned(), Bytes::new()); HEADERS_MAX + 1];
        assert!(Head::checked(200, many).is_err());
        let long = vec![("x".to_owned(), Bytes::from(vec![b'a'; HEADER_BYTES_MAX]))];
        assert!(Head::checked(200, long).is_err());
    }
}
