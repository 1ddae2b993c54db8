//! A connection that closes where its client neither sends a request's head in time nor reads the answer.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::{
    Limits,
    head::Scanner,
    seats::{Phase, Place},
    tls::Stream,
};

/// Fails a read of a head, or a write, that takes too long, and a head that is no good. How long a body may take is told
/// where it is read.
pub(crate) struct Patient {
    stream: Stream,
    place: Arc<Place>,
    limits: Limits,
    scanner: Scanner,
    /// Runs while a head is awaited; since when that phase lasts.
    awaited: Option<(u64, Pin<Box<Sleep>>)>,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// What is sent before a connection closes on a head that is no good.
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

impl Patient {
    pub(crate) fn new(stream: Stream, place: Arc<Place>, limits: Limits) -> Self {
        Self {
            stream,
            place,
            limits,
            scanner: Scanner::default(),
            awaited: None,
            stalled: None,
        }
    }

    /// How long a phase may last in which a head is awaited.
    fn within(&self, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Fresh | Phase::Head => Some(self.limits.head_within),
            Phase::Idle => Some(self.limits.idle_within),
            Phase::Body | Phase::Deaf | Phase::Busy | Phase::Upgraded | Phase::Kept => None,
        }
    }

    /// Nothing has come: fails once it should have.
    fn wait(&mut self, context: &mut Context<'_>, within: Duration) -> Poll<io::Result<()>> {
        let (since, due) = (self.place.since_us(), Instant::now() + within);
        let (of, timer) = self.awaited.get_or_insert_with(|| (since, Box::pin(sleep_until(due))));
        if *of != since {
            *of = since;
            timer.as_mut().reset(due);
        }
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request came in time")))
    }

    fn look_at(&mut self, context: &mut Context<'_>, phase: Phase, bytes: &[u8]) -> io::Result<()> {
        match phase {
            Phase::Fresh | Phase::Idle => {
                self.place.enter(Phase::Head);
                self.scanner.begin();
            }
            Phase::Head => {}
            Phase::Body | Phase::Deaf | Phase::Busy | Phase::Upgraded | Phase::Kept => {
                self.scanner.pass(bytes);
                return Ok(());
            }
        }
        let Err(fault) = self.scanner.scan(bytes) else {
            return Ok(());
        };
        // As far as the socket takes it: the connection closes.
        let _ = Pin::new(&mut self.stream).poll_write(context, BAD_REQUEST);
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a bad head: {fault:?}"),
        ))
    }

    fn written(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.place.sent(*bytes as u64);
        }
        self.judge(context, written)
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stalled.take().is_some() && self.place.phase() == Phase::Deaf {
                self.place.enter(Phase::Busy);
            }
            return written;
        }
        if self.stalled.is_none() && self.place.phase() == Phase::Busy {
            self.place.enter(Phase::Deaf);
        }
        if self.stalled.is_none() {
            self.place.stalls();
        }
        let patience = self.limits.write_within;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the reader does not read")))
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let phase = self.place.phase();
        let before = into.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, into) {
            Poll::Ready(Ok(())) => Poll::Ready(match into.filled() {
                bytes if bytes.len() > before => self.look_at(context, phase, &bytes[before..]),
                _ => Ok(()),
            }),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => match self.within(phase) {
                Some(within) => self.wait(context, within),
                None => Poll::Pending,
            },
        }
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
