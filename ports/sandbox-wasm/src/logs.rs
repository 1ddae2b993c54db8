//! What a function prints, from WASI's streams and the JavaScript runner.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use piecework_sandbox::{LogLevel, Printed};
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

/// What one write may bring at once. CPython's standard output has no buffer that would repeat what a short write leaves, so
/// no write is short; the guest's own memory limit bounds what is copied.
const WRITE_BYTES_MAX: usize = 1 << 30;

/// One of an instance's streams; all of them share what was printed, and stay for its whole life.
#[derive(Clone)]
pub(crate) struct Logs {
    printed: Arc<Mutex<Printed>>,
    level: LogLevel,
}

impl Logs {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self {
            printed: Arc::new(Mutex::new(Printed::new(bytes_max))),
            level: LogLevel::Info,
        }
    }

    /// The same logs for a stream of another level.
    pub(crate) fn at(&self, level: LogLevel) -> Self {
        Self {
            printed: self.printed.clone(),
            level,
        }
    }

    pub(crate) fn append(&self, text: &[u8]) {
        self.printed.lock().append(self.level, text);
    }

    /// Everything since the last time.
    pub(crate) fn take(&self) -> piecework_sandbox::Logs {
        self.printed.lock().take()
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
