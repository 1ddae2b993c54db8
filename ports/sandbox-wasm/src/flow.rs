//! What a call gives out and takes in while it runs: a streamed answer, and the body of its request.
//!
//! The guest calls, and waits inside the host for whoever reads or sends; its thread goes on to other work meanwhile. The
//! order of parts is held here, whatever the runner does: foreign Python can call these imports by itself.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use piecework_sandbox::{
    CHUNK_BYTES_MAX, Call, CancellationToken, EgressMeter, HEADER_BYTES_MAX, Head, Inlet, Outlet, Sent,
};
use serde::Deserialize;
use tokio::sync::mpsc::Receiver;
use wasmtime::{
    StoreContextMut,
    component::{LinkerInstance, WasmList, WasmStr},
};

use crate::{host::Host, meter::Deadline, ticker::Ticker};

/// Names and values as JSON: each byte may be an escape of six.
const HEAD_TEXT_BYTES_MAX: usize = 8 * HEADER_BYTES_MAX;

/// Ends the instance in the middle of its call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    #[error("nobody reads the answer any more")]
    ReaderGone,
    #[error("the answer is longer than a stream may be")]
    TooMuch,
    #[error("{0}")]
    Invalid(String),
}

/// The streams of one call. None of them outside of a call.
#[derive(Default)]
pub(crate) struct Flow {
    outlet: Option<Outlet>,
    meter: EgressMeter,
    stream_bytes_max: u64,
    /// None where there is no body, or no more of it.
    body: Option<Receiver<Bytes>>,
    /// What is left of a part that was larger than a chunk.
    rest: Bytes,
    pub(crate) signs: Arc<Signs>,
}

/// What whoever polls the call has to know of its streams.
#[derive(Default)]
pub(crate) struct Signs {
    /// The head was sent.
    streams: AtomicBool,
    /// The guest has waited inside the host, where no tick wakes it at its deadline.
    waits: AtomicBool,
}

impl Signs {
    pub(crate) fn streams(&self) -> bool {
        self.streams.load(Ordering::Relaxed)
    }
}

impl Flow {
    pub(crate) fn begin(&mut self, call: &Call, stream_bytes_max: u64) {
        let signs = std::mem::take(&mut self.signs);
        signs.streams.store(false, Ordering::Relaxed);
        signs.waits.store(false, Ordering::Relaxed);
        *self = Self {
            outlet: Some(call.outlet.clone()),
            meter: call.egress.clone(),
            stream_bytes_max,
            body: call.body.as_ref().and_then(Inlet::take),
            rest: Bytes::new(),
            signs,
        };
    }

    /// Whoever reads finds the end of the answer; whoever sends the body, that nobody takes it.
    pub(crate) fn end(&mut self) {
        self.outlet = None;
        self.body = None;
    }

    async fn head(&mut self, text: Result<String, Cut>) -> Result<(), Cut> {
        let said: HeadSaid = serde_json::from_str(&text?).map_err(|_| invalid("the function forged a head"))?;
        let bytes = |(name, value): (String, String)| (name, Bytes::from(value));
        let headers = said.headers.into_iter().map(bytes).collect();
        let head = Head::checked(said.status, headers).map_err(Cut::Invalid)?;
        if self.signs.streams.swap(true, Ordering::Relaxed) {
            return Err(invalid("the function sent a second head"));
        }
        self.send(Sent::Head(head)).await
    }

    async fn chunk(&mut self, chunk: Result<Bytes, Cut>) -> Result<(), Cut> {
        let chunk = chunk?;
        if !self.signs.streams() {
            return Err(invalid("the function sent a chunk before a head"));
        }
        if chunk.is_empty() {
            return Err(invalid("the function sent an empty chunk"));
        }
        if !self.meter.take_streamed(chunk.len() as u64, self.stream_bytes_max) {
            return Err(Cut::TooMuch);
        }
        self.send(Sent::Chunk(chunk)).await
    }

    async fn send(&mut self, part: Sent) -> Result<(), Cut> {
        let outlet = self.outlet.as_ref().ok_or_else(|| invalid("nothing is called"))?;
        self.signs.waits.store(true, Ordering::Relaxed);
        outlet.room().await.map_err(|_| Cut::ReaderGone)?.send(part);
        Ok(())
    }

    /// Empty at the end.
    async fn next_part(&mut self) -> Bytes {
        self.signs.waits.store(true, Ordering::Relaxed);
        while self.rest.is_empty() {
            let Some(body) = &mut self.body else {
                return Bytes::new();
            };
            match body.recv().await {
                Some(part) => self.rest = part,
                None => self.body = None,
            }
        }
        let length = self.rest.len().min(CHUNK_BYTES_MAX);
        self.rest.split_to(length)
    }
}

#[derive(Deserialize)]
struct HeadSaid {
    status: u16,
    headers: Vec<(String, String)>,
}

fn invalid(what: &str) -> Cut {
    Cut::Invalid(what.to_owned())
}

/// Resolves when the call is to end early: by its caller, or because nobody reads what it streams. Polled together with the
/// call, after it; sees to it that both are polled at the deadline.
pub(crate) async fn cut_short(
    (stop, outlet): (&CancellationToken, &Outlet),
    signs: &Signs,
    (ticker, deadline): (&Arc<Ticker>, Deadline),
) {
    let mut stopped = pin!(stop.cancelled());
    let mut closed = pin!(outlet.closed());
    let mut alarm = pin!(ticker.sleep_within(None, deadline));
    let mut rang = false;
    std::future::poll_fn(|cx| {
        let gone = signs.streams() && closed.as_mut().poll(cx).is_ready();
        if gone || stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !rang && signs.waits.load(Ordering::Relaxed) {
            rang = alarm.as_mut().poll(cx).is_ready();
        }
        Poll::Pending
    })
    .await;
}

pub(crate) fn link_head(root: &mut LinkerInstance<'_, Host>, name: &str) -> wasmtime::Result<()> {
    root.func_wrap_async(name, |mut store: StoreContextMut<'_, Host>, (text,): (WasmStr,)| {
        Box::new(async move {
            let text = text_of(&store, &text, HEAD_TEXT_BYTES_MAX)?;
            store.data_mut().flow.head(text).await.map_err(wasmtime::Error::new)
        })
    })
}

pub(crate) fn link_chunk(root: &mut LinkerInstance<'_, Host>, name: &str) -> wasmtime::Result<()> {
    root.func_wrap_async(
        name,
        |mut store: StoreContextMut<'_, Host>, (chunk,): (WasmList<u8>,)| {
            Box::new(async move {
                let chunk = match chunk.len() {
                    ..=CHUNK_BYTES_MAX => Ok(Bytes::copy_from_slice(chunk.as_le_slice(&store))),
                    _ => Err(invalid("the function sent a chunk that is too long")),
                };
                store.data_mut().flow.chunk(chunk).await.map_err(wasmtime::Error::new)
            })
        },
    )
}

pub(crate) fn link_text(root: &mut LinkerInstance<'_, Host>, name: &str) -> wasmtime::Result<()> {
    root.func_wrap_async(name, |mut store: StoreContextMut<'_, Host>, (text,): (WasmStr,)| {
        Box::new(async move {
            let text = text_of(&store, &text, CHUNK_BYTES_MAX)?;
            let chunk = text.map(Bytes::from);
            store.data_mut().flow.chunk(chunk).await.map_err(wasmtime::Error::new)
        })
    })
}

pub(crate) fn link_body(root: &mut LinkerInstance<'_, Host>, name: &str) -> wasmtime::Result<()> {
    root.func_wrap_async(name, |mut store: StoreContextMut<'_, Host>, (): ()| {
        Box::new(async move { Ok((store.data_mut().flow.next_part().await.to_vec(),)) })
    })
}

/// A copy, unless it is too long: its length is looked at in the guest's memory.
fn text_of(
    store: &StoreContextMut<'_, Host>,
    text: &WasmStr,
    bytes_max: usize,
) -> wasmtime::Result<Result<String, Cut>> {
    let text = text.to_str(store)?;
    Ok(match text.len() <= bytes_max {
        true => Ok(text.into_owned()),
        false => Err(invalid("the function sent a part that is too long")),
    })
}
