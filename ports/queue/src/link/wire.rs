//! Whole messages over whatever carries them.

use std::pin::Pin;

use bytes::Bytes;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};

use super::{Clock, LinkFailure, PACKET_BYTES_MAX, gate::Opener};

pub(super) type Incoming = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;
pub(super) type Outgoing = Pin<Box<dyn Sink<Bytes, Error = String> + Send>>;

/// A connection that keeps messages whole and in order, such as a WebSocket's binary messages.
pub struct Wire {
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    pub(super) clock: Clock,
    /// Opened once the other end has proved its key; without effect on wires that have no gate.
    pub(super) opener: Opener,
}

impl Wire {
    pub fn new(
        incoming: impl Stream<Item = Result<Bytes, String>> + Send + 'static,
        outgoing: impl Sink<Bytes, Error = String> + Send + 'static,
    ) -> Self {
        Self {
            incoming: Box::pin(incoming),
            outgoing: Box::pin(outgoing),
            clock: Clock::default(),
            opener: Opener::default(),
        }
    }

    /// Everything that is done over this connection goes by this clock.
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    pub(super) fn behind(self, opener: Opener) -> Self {
        Self { opener, ..self }
    }

    pub(super) async fn receive(&mut self, bytes_max: usize) -> Result<Bytes, LinkFailure> {
        next(&mut self.incoming, bytes_max).await
    }

    pub(super) async fn send(&mut self, message: Bytes) -> Result<(), LinkFailure> {
        self.outgoing.send(message).await.map_err(LinkFailure::Broken)
    }
}

pub(super) async fn next(incoming: &mut Incoming, bytes_max: usize) -> Result<Bytes, LinkFailure> {
    checked(incoming.next().await, bytes_max)
}

/// A packet that came, if it is one of at most this size.
pub(super) fn checked(came: Option<Result<Bytes, String>>, bytes_max: usize) -> Result<Bytes, LinkFailure> {
    debug_assert!(bytes_max <= PACKET_BYTES_MAX);
    match came {
        Some(Ok(message)) if message.len() > bytes_max => Err(LinkFailure::Protocol("a message is too large")),
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(LinkFailure::Broken(error)),
        None => Err(LinkFailure::Broken("the other end closed it".into())),
    }
}
