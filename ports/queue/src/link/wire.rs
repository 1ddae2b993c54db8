//! Whole messages over whatever carries them.

use std::pin::Pin;

use bytes::Bytes;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};

use super::{LinkFailure, PACKET_BYTES_MAX};

pub(super) type Incoming = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;
pub(super) type Outgoing = Pin<Box<dyn Sink<Bytes, Error = String> + Send>>;

/// A connection that keeps messages whole and in order, such as a WebSocket's binary messages.
pub struct Wire {
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
}

impl Wire {
    pub fn new(
        incoming: impl Stream<Item = Result<Bytes, String>> + Send + 'static,
        outgoing: impl Sink<Bytes, Error = String> + Send + 'static,
    ) -> Self {
        Self {
            incoming: Box::pin(incoming),
            outgoing: Box::pin(outgoing),
        }
    }

    pub(super) async fn receive(&mut self) -> Result<Bytes, LinkFailure> {
        next(&mut self.incoming).await
    }

    pub(super) async fn send(&mut self, message: Bytes) -> Result<(), LinkFailure> {
        self.outgoing.send(message).await.map_err(LinkFailure::Broken)
    }
}

pub(super) async fn next(incoming: &mut Incoming) -> Result<Bytes, LinkFailure> {
    match incoming.next().await {
        Some(Ok(message)) if message.len() > PACKET_BYTES_MAX => Err(LinkFailure::Protocol("a message is too large")),
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(LinkFailure::Broken(error)),
        None => Err(LinkFailure::Broken("the other end closed it".into())),
    }
}
