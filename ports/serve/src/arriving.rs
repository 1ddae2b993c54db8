//! A request's body as it comes: each part in time, and its connection known to wait for it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::seats::{Phase, Place};

/// Fails where the next part does not come in time. A handler that does not read holds nobody up: the time runs while it
/// asks for more.
pub(crate) struct Arriving {
    body: Incoming,
    place: Arc<Place>,
    within: Duration,
    /// Runs while a part is awaited.
    awaited: Option<Pin<Box<Sleep>>>,
    is_awaited: bool,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Arriving {
    pub(crate) fn new(body: Incoming, place: Arc<Place>, within: Duration) -> Self {
        Self {
            body,
            place,
            within,
            awaited: None,
            is_awaited: false,
        }
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let within = self.within;
        let timer = self.awaited.get_or_insert_with(|| Box::pin(sleep(within)));
        if !self.is_awaited {
            self.is_awaited = true;
            self.place.enter(Phase::Body);
            timer.as_mut().reset(Instant::now() + within);
        }
        timer.as_mut().poll(context)
    }

    fn goes_on(&mut self) {
        if self.is_awaited {
            self.is_awaited = false;
            // Unless the answer is out by now, and the next head is awaited.
            if self.place.phase() == Phase::Body {
                self.place.enter(Phase::Busy);
            }
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                self.goes_on();
                Poll::Ready(frame.map(|frame| frame.map_err(Failure::from)))
            }
            Poll::Pending => self
                .wait(context)
                .map(|()| Some(Err("the next part of the body did not come in time".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.goes_on();
    }
}
