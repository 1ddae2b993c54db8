//! What a function printed, in order, up to a limit.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

/// What one write may bring at once. CPython's standard output has no buffer that would repeat what a short write leaves, so
/// no write is short; the guest's own memory limit bounds what is copied.
const WRITE_BYTES_MAX: usize = 1 << 30;

/// Shared by an instance's standard output and error, which stay for its whole life; emptied after each call.
#[derive(Clone)]
pub(crate) struct Logs(Arc<Mutex<Inner>>);

struct Inner {
    bytes: Vec<u8>,
    bytes_max: usize,
    cut: bool,
}

impl Logs {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self(Arc::new(Mutex::new(Inner {
            bytes: Vec::new(),
            bytes_max,
            cut: false,
        })))
    }

    pub(crate) fn append(&self, text: &[u8]) {
        let mut inner = self.0.lock();
        let room = inner.bytes_max - inner.bytes.len();
        inner.bytes.extend_from_slice(&text[..room.min(text.len())]);
        inner.cut |= text.len() > room;
    }

    /// Everything since the last time; what is not UTF-8 becomes U+FFFD.
    pub(crate) fn take(&self) -> String {
        let mut inner = self.0.lock();
        let cut = std::mem::take(&mut inner.cut);
        let mut bytes = std::mem::take(&mut inner.bytes);
        if cut {
            bytes.truncate(end_of_last_character(&bytes));
        }
        let mut text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        if cut {
            // The same words as the other backends use.
            text.push_str(&piecework_sandbox::logs_cut(inner.bytes_max));
        }
        text
    }
}

/// Where the last character ends that was not cut in two.
fn end_of_last_character(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

impl IsTerminal for Logs {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Logs {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for it, which no component here imports.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Logs {
    async fn ready(&mut self) {}
}

impl OutputStream for Logs {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.append(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_cut_between_characters_with_a_marker() {
        let logs = Logs::new(5);
        logs.append("abcd".as_bytes());
        logs.append("é!".as_bytes());
        assert_eq!(logs.take(), "abcd\n[the logs were cut at 5 bytes]\n");
        assert_eq!(logs.take(), "");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let logs = Logs::new(100);
        logs.append(b"a\xffb");
        assert_eq!(logs.take(), "a\u{fffd}b");
    }
}
