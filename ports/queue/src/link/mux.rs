//! Streams over one session, each with a flow of its own: yamux, driven by the session's one task.
//!
//! Only the controller opens streams. A provider that opens one breaks the protocol, so it cannot flood them; a controller
//! may open as many as the provider has slots, and some.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use yamux::{Config, Connection, ConnectionError, DEFAULT_CREDIT, Mode, Stream};

use super::{
    Clock, DEAD_AFTER, LinkFailure,
    pipe::{Line, Pipe},
    secure::{Receiver, Sender},
};

/// Streams beside those of jobs: one for control, bundles that are pulled, deliveries that are fetched.
const STREAMS_BESIDE_JOBS: usize = 32;
/// Jobs at once over one link, whatever a provider says of its slots.
const JOBS_MAX: usize = 10_000;
/// By how much the windows of all streams together may grow beyond 256 KiB each, which yamux gives. So one large transfer
/// at a time may have 1.25 MiB under way: 12 MB/s at 100 ms there and back. More would make others wait behind it on a slow
/// line.
const WINDOWS_BEYOND_BYTES: usize = 1 << 20;
/// Streams that wait to be opened; whoever comes on top waits for room.
const OPENS_WAITING: usize = 64;

/// Opens streams of a session.
#[derive(Clone)]
pub(super) struct Opener {
    requests: mpsc::Sender<oneshot::Sender<Stream>>,
    places: Arc<Semaphore>,
}

/// A stream that counts as one of its session's while it lives.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) place: OwnedSemaphorePermit,
}

impl Opener {
    /// `None` where as many streams as there may be are open, or the session has ended.
    pub(super) async fn open(&self) -> Option<Opened> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let (reply, stream) = oneshot::channel();
        self.requests.send(reply).await.ok()?;
        let stream = stream.await.ok()?;
        Some(Opened { stream, place })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }
}

/// What an [`Opener`] asks for.
pub(super) struct Requests {
    requests: mpsc::Receiver<oneshot::Sender<Stream>>,
    places: usize,
}

/// Opens streams of a session that is not begun yet, with a provider that takes so many jobs at once.
pub(super) fn opener(slots: u32) -> (Opener, Requests) {
    let places = usize::try_from(slots).unwrap_or(JOBS_MAX).min(JOBS_MAX) + STREAMS_BESIDE_JOBS;
    let (send, requests) = mpsc::channel(OPENS_WAITING);
    let opener = Opener {
        requests: send,
        places: Arc::new(Semaphore::new(places)),
    };
    (opener, Requests { requests, places })
}

/// One session's streams.
pub(super) struct Mux {
    /// First, so that whoever finds a stream cut finds that no other can be opened.
    requests: mpsc::Receiver<oneshot::Sender<Stream>>,
    connection: Connection<Pipe>,
    line: Arc<Mutex<Line>>,
    /// A stream that cannot be opened until the other end has answered some of the 256 before it.
    opening: Option<oneshot::Sender<Stream>>,
    clock: Clock,
    alarm: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Mux {
    pub(super) fn new((sender, receiver): (Sender, Receiver), mode: Mode, requests: Requests) -> Self {
        let line = Line::new(sender, receiver);
        let clock = line.lock().clock.clone();
        // Twice as many: the two ends do not close a stream at the same moment.
        let streams = 2 * requests.places;
        let mut config = Config::default();
        config
            .set_max_connection_receive_window(None)
            .set_max_num_streams(streams)
            .set_max_connection_receive_window(Some(streams * DEFAULT_CREDIT as usize + WINDOWS_BEYOND_BYTES));
        Self {
            requests: requests.requests,
            connection: Connection::new(Pipe(line.clone()), config, mode),
            line,
            opening: None,
            alarm: alarm(&clock, DEAD_AFTER),
            clock,
        }
    }

    /// Carries everything until the session ends. `accept` is given each stream that the other end opens.
    pub(super) async fn drive(mut self, mut accept: impl FnMut(Stream) -> Result<(), LinkFailure>) -> LinkFailure {
        poll_fn(|context| self.poll(context, &mut accept)).await
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        accept: &mut impl FnMut(Stream) -> Result<(), LinkFailure>,
    ) -> Poll<LinkFailure> {
        loop {
            if let Poll::Ready(failure) = self.poll_open(context) {
                return Poll::Ready(failure);
            }
            match self.connection.poll_next_inbound(context) {
                Poll::Ready(Some(Ok(stream))) => match accept(stream) {
                    Ok(()) => continue,
                    Err(failure) => return Poll::Ready(failure),
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.ended(Some(error))),
                Poll::Ready(None) => return Poll::Ready(self.ended(None)),
                Poll::Pending => {}
            }
            let mut line = self.line.lock();
            let had = line.has_gathered();
            let sent = line.poll_send(context);
            if line.has_sent_away() {
                return Poll::Ready(LinkFailure::Protocol("a stream's rules were broken"));
            }
            match sent {
                Poll::Ready(Ok(())) if had => {}
                Poll::Ready(Err(failure)) => return Poll::Ready(failure),
                Poll::Ready(Ok(())) | Poll::Pending => break,
            }
        }
        self.poll_silence(context)
    }

    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<LinkFailure> {
        loop {
            if self.opening.is_none() {
                match self.requests.poll_recv(context) {
                    Poll::Ready(Some(request)) => self.opening = Some(request),
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                }
            }
            if self.opening.as_ref().is_some_and(oneshot::Sender::is_closed) {
                self.opening = None;
                continue;
            }
            match self.connection.poll_new_outbound(context) {
                Poll::Ready(Ok(stream)) => {
                    if let Some(request) = self.opening.take() {
                        // Whoever asked may be gone: then the stream is, too.
                        let _ = request.send(stream);
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(self.ended(Some(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn ended(&self, error: Option<ConnectionError>) -> LinkFailure {
        if let Some(failure) = self.line.lock().take_failure() {
            return failure;
        }
        match error {
            None | Some(ConnectionError::Closed) => LinkFailure::Broken("the other end closed it".into()),
            Some(ConnectionError::Io(error)) => LinkFailure::Broken(error.to_string()),
            Some(_) => LinkFailure::Protocol("what it sends are no streams"),
        }
    }

    /// Ends a session in which nothing was heard, or nothing taken, for too long.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<LinkFailure> {
        loop {
            if self.alarm.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            let (heard, stuck) = self.line.lock().signs_of_life();
            let since = stuck.map_or(heard, |stuck| stuck.min(heard));
            let silent = self.clock.now().saturating_duration_since(since);
            if silent >= DEAD_AFTER {
                return Poll::Ready(LinkFailure::Silent);
            }
            self.alarm = alarm(&self.clock, DEAD_AFTER - silent);
        }
    }
}

fn alarm(clock: &Clock, after: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let clock = clock.clone();
    Box::pin(async move { clock.sleep(after).await })
}
