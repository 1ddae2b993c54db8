//! Answers of functions: in one piece, or as they come.

use std::{io, sync::Arc};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures::stream;
use piecework_api::routes;
use piecework_model::JobId;
use tokio::sync::mpsc;

use super::{HttpError, HttpResult, execute::job_header};
use crate::{
    Controller,
    calls::{
        answer::{self, AnswerHead},
        invoke::{self, Done, Invocation},
        passing::Passed,
    },
};

/// An answer, and whether it is a stream.
pub(super) struct Responded {
    pub(super) response: Response,
    pub(super) is_stream: bool,
}

/// Runs it; answers with the stream once its head is there, and its first chunk where only that says what it is; else by `unary`. `passed` is the other end of what the
/// invocation passes on, and whether the request is a HEAD.
pub(super) async fn respond(
    controller: Arc<Controller>,
    invocation: Invocation,
    (mut passed, is_head): (mpsc::Receiver<Passed>, bool),
    unary: impl FnOnce(Done) -> HttpResult<Response>,
) -> HttpResult<Responded> {
    let unary = |done| {
        unary(done).map(|response| Responded {
            response,
            is_stream: false,
        })
    };
    let id = invocation.id;
    let mut running = invoke::run(controller.calls.clone(), invocation);
    let mut has_ended = false;
    let first = tokio::select! {
        biased;
        first = passed.recv() => first,
        done = &mut running => match passed.try_recv() {
            // An error can still be told in full.
            Ok(first) if done.as_ref().is_ok_and(|done| done.error.is_none()) => {
                has_ended = true;
                Some(first)
            }
            Ok(_) | Err(_) => return unary(done?),
        },
    };
    let Some(Passed::Head(mut head)) = first else {
        // The job dropped its end.
        return unary(running.await?);
    };
    // The stream is read by the connection from now on, so somebody else has to drive the job.
    let running = running.detach();
    let has_body = !is_head && !head.is_bodyless();
    let mut next = None;
    if has_body && !head.headers.contains_key(header::CONTENT_TYPE) {
        next = passed.recv().await;
        match &next {
            Some(Passed::Chunk(chunk)) => head.guess_kind(chunk),
            // It broke off, and nothing was sent of it yet.
            None if !has_ended => return unary(running.await?),
            Some(Passed::Head(_) | Passed::End) | None => head.guess_kind(b""),
        }
    }
    let body = match has_body {
        true => Body::from_stream(frames(next, passed)),
        false => no_body(),
    };
    Ok(Responded {
        response: with_head(id, head, body, true),
        is_stream: true,
    })
}

/// None, and nothing said about its length.
fn no_body() -> Body {
    Body::from_stream(stream::empty::<io::Result<Bytes>>())
}

/// Each chunk is a frame of its own and is flushed as soon as nothing else waits. Without the end the connection is broken
/// off, so that nobody takes a part for the whole.
fn frames(
    first: Option<Passed>,
    passed: mpsc::Receiver<Passed>,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(Some((first, passed)), |state| async move {
        let (first, mut passed) = state?;
        let next = match first {
            Some(first) => Some(first),
            None => passed.recv().await,
        };
        match next {
            Some(Passed::Chunk(chunk)) => Some((Ok(chunk), Some((None, passed)))),
            Some(Passed::End) => None,
            Some(Passed::Head(_)) | None => Some((Err(io::Error::other("the job ended in the middle")), None)),
        }
    })
}

/// The answer of a job that did not stream.
pub(super) fn whole(done: Done, is_head: bool) -> HttpResult<Response> {
    if let Some(error) = done.error {
        return Err(HttpError(error));
    }
    let answer = answer::of_output(&done.output.unwrap_or_default())?;
    let body = match answer.head.is_bodyless() {
        true => no_body(),
        false => Body::from(answer.body),
    };
    // Its length is that of the body, but for a HEAD: there the function's word is all there is.
    Ok(with_head(done.id, answer.head, body, is_head))
}

fn with_head(id: JobId, head: AnswerHead, body: Body, with_length: bool) -> Response {
    let is_bodyless = head.is_bodyless();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(head.status).expect("a checked head has a status from 200 to 599");
    *response.headers_mut() = head.headers;
    if let Some(length) = head.length
        && with_length
        && !is_bodyless
    {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response.headers_mut().insert(routes::JOB_ID_HEADER, job_header(id));
    response
}
