//! An answer on its way out, and its end: from then on the connection waits for its client.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body as Inner;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};

use super::seats::{Phase, Place};

/// The body of an answer.
pub(crate) struct Leaving {
    body: Inner,
    /// An answer that has no body says nothing about a length either, be it none.
    is_bodyless: bool,
    place: Arc<Place>,
    /// What the connection does once the answer is out.
    then: Phase,
}

/// The answer with what becomes of its connection; one that never has a body has no length.
pub(crate) fn leaving(response: Response<Inner>, place: Arc<Place>, answers_bytes_max: u64) -> Response<Leaving> {
    let (mut parts, body) = response.into_parts();
    // One whose length is not known is made while it is read.
    place.answers(body.size_hint().exact().unwrap_or(0), answers_bytes_max);
    let is_bodyless = matches!(
        parts.status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    );
    if is_bodyless {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    let then = match parts.status {
        StatusCode::SWITCHING_PROTOCOLS => Phase::Upgraded,
        _ => Phase::Idle,
    };
    let body = Leaving {
        body,
        is_bodyless,
        place,
        then,
    };
    Response::from_parts(parts, body)
}

impl Body for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.is_bodyless {
            true => Poll::Ready(None),
            false => Pin::new(&mut self.body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.is_bodyless && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.is_bodyless {
            true => SizeHint::default(),
            false => self.body.size_hint(),
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        // A handler may have found out by now that its client is one to keep.
        if self.place.phase() != Phase::Kept {
            self.place.enter(self.then);
        }
    }
}
