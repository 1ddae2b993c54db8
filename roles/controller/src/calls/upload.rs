//! The body of a request that is too large for the event: from the client to the run that takes it in, as it comes.
//!
//! A run that was refused before it took much of it leaves a body that can be sent again: its beginning is kept until it
//! is longer than that.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use piecework_api::errors::Refusal;
use piecework_model::Code;
use piecework_sandbox::{CHUNK_BYTES_MAX, StreamMeter};
use tokio::sync::mpsc;

/// What may be under way to a provider that has not begun: the windows and buffers of a link.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// A client that sends nothing for this long has stopped: it holds a slot of a provider.
const PART_WITHIN: Duration = Duration::from_secs(30);

/// What a client sends.
pub(crate) type Parts = Pin<Box<dyn Stream<Item = Result<Bytes, Box<Refusal>>> + Send>>;

/// One request's body.
#[derive(Clone)]
pub(crate) struct Upload(Arc<Shared>);

struct Shared {
    /// The most that it can come to.
    bytes_max: u64,
    source: tokio::sync::Mutex<Source>,
    /// Its beginning is gone: no other run can have it whole.
    is_spent: AtomicBool,
    fault: Mutex<Option<Box<Refusal>>>,
}

struct Source {
    parts: Parts,
    /// Of the last part, what is beyond one chunk.
    rest: Bytes,
    read: u64,
    /// What was sent to the runs before, as long as it is not too much.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    part_within: Duration,
}

impl Upload {
    /// `parts` come to `bytes_max` at the most, or break off there.
    pub(crate) fn new(parts: Parts, bytes_max: u64) -> Self {
        Self::with_patience(parts, bytes_max, PART_WITHIN)
    }

    fn with_patience(parts: Parts, bytes_max: u64, part_within: Duration) -> Self {
        Self(Arc::new(Shared {
            bytes_max,
            source: tokio::sync::Mutex::new(Source {
                parts,
                part_within,
                rest: Bytes::new(),
                read: 0,
                kept: Vec::new(),
                kept_bytes: 0,
            }),
            is_spent: AtomicBool::new(false),
            fault: Mutex::new(None),
        }))
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.0.bytes_max
    }

    /// Whether no other run can take it in.
    pub(crate) fn is_spent(&self) -> bool {
        self.0.is_spent.load(Ordering::Acquire)
    }

    /// Why it did not arrive whole.
    pub(crate) fn fault(&self) -> Option<Box<Refusal>> {
        self.0.fault.lock().clone()
    }

    /// Sends it to a run from its beginning, counted by `meter`; `false` where it broke off: see [`Self::fault`]. Cancel
    /// safe: what was not sent is sent to the next run.
    pub(crate) async fn pump(&self, into: &mpsc::Sender<Bytes>, meter: &StreamMeter) -> bool {
        // It broke off for an earlier run: its rest is no whole body.
        if self.fault().is_some() {
            return false;
        }
        let mut source = self.0.source.lock().await;
        for part in source.kept.clone() {
            if !self.counts(meter, &part) || into.send(part).await.is_err() {
                return self.fault().is_none();
            }
        }
        loop {
            // A run that reads no further may end well.
            let Ok(room) = into.reserve().await else { return true };
            match source.next(self.0.bytes_max).await {
                Ok(None) => return true,
                Ok(Some(part)) => {
                    self.keep(&mut source, &part);
                    if !self.counts(meter, &part) {
                        return false;
                    }
                    room.send(part);
                }
                Err(fault) => {
                    *self.0.fault.lock() = Some(fault);
                    return false;
                }
            }
        }
    }

    fn counts(&self, meter: &StreamMeter, part: &Bytes) -> bool {
        let passes = meter.take_body(part);
        if !passes {
            *self.0.fault.lock() = Some(too_large(self.0.bytes_max));
        }
        passes
    }

    fn keep(&self, source: &mut Source, part: &Bytes) {
        source.kept_bytes += part.len();
        if source.kept_bytes <= KEPT_BYTES_MAX {
            source.kept.push(part.clone());
        } else {
            source.kept = Vec::new();
            self.0.is_spent.store(true, Ordering::Release);
        }
    }
}

impl Source {
    /// The next chunk; `None` at the end.
    async fn next(&mut self, bytes_max: u64) -> Result<Option<Bytes>, Box<Refusal>> {
        while self.rest.is_empty() {
            let stalled = |_| Refusal::new(Code::BodyMalformed, "the body stopped before its end");
            let part = tokio::time::timeout(self.part_within, self.parts.next()).await;
            let Some(part) = part.map_err(stalled)? else {
                return Ok(None);
            };
            self.rest = part?;
            self.read = self.read.saturating_add(self.rest.len() as u64);
            if self.read > bytes_max {
                return Err(too_large(bytes_max));
            }
        }
        Ok(Some(self.rest.split_to(self.rest.len().min(CHUNK_BYTES_MAX))))
    }
}

pub(crate) fn too_large(bytes_max: u64) -> Box<Refusal> {
    Box::new(Refusal::new(
        Code::BodyTooLarge,
        format!("the body is over the limit of {bytes_max} bytes"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(parts: Vec<Result<Bytes, Box<Refusal>>>, bytes_max: u64) -> Upload {
        Upload::new(Box::pin(futures::stream::iter(parts)), bytes_max)
    }

    fn bytes(count: usize) -> Bytes {
        (0..count).map(|n| n as u8).collect::<Vec<u8>>().into()
    }

    /// What a run gets that reads `reads` chunks, and whether the body ended well as far as it got.
    async fn run(upload: &Upload, reads: usize) -> (Vec<u8>, bool) {
        let (into, mut from) = mpsc::channel::<Bytes>(1);
        let meter = StreamMeter::new(u64::MAX);
        let read = async move {
            let mut got = Vec::new();
            for _ in 0..reads {
                match from.recv().await {
                    Some(part) => got.extend_from_slice(&part),
                    None => break,
                }
            }
            got
        };
        let pump = async {
            let whole = upload.pump(&into, &meter).await;
            drop(into);
            whole
        };
        tokio::join!(read, pump)
    }

    #[tokio::test]
    async fn it_comes_in_chunks_and_whole() {
        let body = bytes(3 * CHUNK_BYTES_MAX + 5);
        let (got, whole) = run(&upload(vec![Ok(body.clone())], 1 << 20), usize::MAX).await;
        assert!(got == body && whole);
    }

    #[tokio::test]
    async fn a_run_that_was_refused_early_leaves_it_whole_and_a_later_one_does_not() {
        let body = bytes(2 << 20);
        let upload = upload(vec![Ok(body.clone())], 2 << 20);
        let (got, _) = run(&upload, 2).await;
        assert_eq!((got.len(), upload.is_spent()), (2 * CHUNK_BYTES_MAX, false));
        let (got, whole) = run(&upload, usize::MAX).await;
        assert!(got == body && whole);
        assert!(upload.is_spent(), "its beginning is gone");
    }

    #[tokio::test]
    async fn what_breaks_off_or_is_too_long_is_no_whole_body() {
        let broken = Box::new(Refusal::new(Code::BodyMalformed, "gone"));
        for (parts, bytes_max, code) in [
            (vec![Ok(bytes(1)), Err(broken)], 9, Code::BodyMalformed),
            (vec![Ok(bytes(9)), Ok(bytes(1))], 9, Code::BodyTooLarge),
        ] {
            let upload = upload(parts, bytes_max);
            let (_, whole) = run(&upload, usize::MAX).await;
            assert!(!whole);
            assert_eq!(upload.fault().expect("it broke").code, code);
        }
    }

    #[tokio::test]
    async fn a_client_that_stops_in_the_middle_does_not_hold_up_a_run() {
        let parts = futures::stream::iter([Ok(bytes(1))]).chain(futures::stream::pending());
        let upload = Upload::with_patience(Box::pin(parts), 9, Duration::from_millis(1));
        let (got, whole) = run(&upload, usize::MAX).await;
        assert_eq!((got.len(), whole), (1, false));
        assert_eq!(upload.fault().expect("it stalled").code, Code::BodyMalformed);
    }
}
