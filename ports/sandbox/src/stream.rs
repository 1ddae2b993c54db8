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

    /// Waits for room for one part. Cancel safe: what is to be sent stays with the caller until there is room.
    pub async fn room(&self) -> Result<Room<'_>, ReaderGone> {
        self.0.reserve().await.map(Room).map_err(|_| ReaderGone)
    }

    /// Resolves once nobody reads any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// Room for one part of an answer.
#[derive(Debug)]
pub struct Room<'a>(mpsc::Permit<'a, Sent>);

impl Room<'_> {
    pub fn send(self, part: Sent) {
        self.0.send(part);
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
