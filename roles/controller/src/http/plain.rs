//! `/fn/{owner}/{name}/...`: a function as a plain URL.

use axum::{
    body::{Body, HttpBody as _},
    extract::{Request, State},
    http::{Method, header},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use piecework_api::{accounts::Scope, server::read_bytes};
use piecework_model::Code;

use super::{
    Anyone, HttpError, HttpResult, INPUT_BYTES_MAX, Shared,
    event::{self, EventBody},
    execute, streaming,
};
use crate::{
    accounts::rates::{self, Counted},
    calls::{
        passing,
        streams::{Answering, Streams},
        upload::{self, Upload},
    },
    failure::{failed, refusal},
    functions,
};

/// An event as JSON: a body as base64 with all headers fits. A text of control characters grows sixfold, and would be more
/// than a link carries.
const EVENT_BYTES_MAX: usize = 24 << 20;

pub(super) async fn call(State(controller): Shared, anyone: Anyone, request: Request) -> HttpResult<Response> {
    let (parts, body) = request.into_parts();
    let Some(target) = event::target(parts.uri.path()) else {
        return Err(refusal(Code::PathNotFound, "the path names no function").into());
    };
    let missing = || {
        let (owner, name) = (&target.owner, &target.name);
        refusal(
            Code::FunctionNotFound,
            format!("there is no function {owner}/{name} that you may call"),
        )
    };
    let (Ok(owner_name), Ok(function_name)) = (target.owner.parse(), target.name.parse()) else {
        return Err(missing().into());
    };
    let live = functions::named(&controller.functions, &owner_name, &function_name).await;
    let live = match live {
        Ok(live) => live,
        Err(refused) if refused.code == Code::FunctionNotFound => return Err(unknown(&anyone, missing())),
        Err(other) => return Err(other.into()),
    };
    if !live.function.public {
        match &anyone.0 {
            Some(caller) if caller.account == live.function.owner => caller.needs(Scope::Invoke)?,
            _ => return Err(unknown(&anyone, missing())),
        }
    }
    if anyone.0.is_none() {
        rates::count(&controller.accounts, Counted::Public(live.function.owner), &live.limits)?;
    }
    let is_asked_for = parts.headers.contains_key(header::EXPECT);
    let body = take_body(body, live.version.stream_bytes, is_asked_for).await?;
    let event = event::event(target.raw_path, &parts, body.for_event());
    let event = serde_json::to_vec(&event).map_err(|error| failed("write an event", &error))?;
    if event.len() > EVENT_BYTES_MAX {
        return Err(refusal(Code::BodyTooLarge, "the request is too large for an event").into());
    }
    let is_head = parts.method == Method::HEAD;
    let caller = anyone.0.as_ref().map(|caller| caller.account);
    let (passing, passed) = passing::channel(is_head);
    let mut invocation = execute::plain_invocation(live, event.into(), caller);
    invocation.streams = Streams {
        answer: Answering::Pass(passing),
        body: body.into_upload(),
    };
    let unary = |done| streaming::whole(done, is_head);
    let responded = streaming::respond(controller, invocation, (passed, is_head), unary).await?;
    Ok(responded.response)
}

/// Whoever has no token is told to bring one, whether the function exists or not.
fn unknown(anyone: &Anyone, missing: Box<piecework_api::errors::Refusal>) -> HttpError {
    match anyone.0 {
        Some(_) => HttpError(missing),
        None => HttpError(refusal(
            Code::AuthMissingToken,
            "the function is not public: send `Authorization: Bearer ...`",
        )),
    }
}

/// The body of a request, as far as it was read.
enum Taken {
    Whole(Bytes),
    Streamed(Upload),
}

impl Taken {
    fn for_event(&self) -> EventBody<'_> {
        match self {
            Self::Whole(bytes) => EventBody::Whole(bytes),
            Self::Streamed(_) => EventBody::Streamed,
        }
    }

    fn into_upload(self) -> Option<Upload> {
        match self {
            Self::Whole(_) => None,
            Self::Streamed(upload) => Some(upload),
        }
    }
}

/// What fits into an event is read; of what is longer the beginning at the most. Refuses with `body.too_large` what is
/// longer than the function may stream, as soon as that is known.
async fn take_body(body: Body, streamed_max: u64, is_asked_for: bool) -> HttpResult<Taken> {
    let declared = body.size_hint().exact();
    if streamed_max <= INPUT_BYTES_MAX as u64 || declared.is_some_and(|bytes| bytes <= INPUT_BYTES_MAX as u64) {
        return read_bytes(body, INPUT_BYTES_MAX).await.map(Taken::Whole);
    }
    if declared.is_some_and(|bytes| bytes > streamed_max) {
        // A client that sends without being asked sees a reset and no answer unless its body is read; a little of it is.
        if !is_asked_for {
            // Whatever comes of it, the request is refused below.
            let _ = read_bytes(body, 0).await;
        }
        return Err(upload::too_large(streamed_max).into());
    }
    let broken = |error: axum::Error| refusal(Code::BodyMalformed, format!("the body did not arrive whole: {error}"));
    let mut parts = body.into_data_stream().map(move |part| part.map_err(broken)).boxed();
    if let Some(bytes) = declared {
        return Ok(Taken::Streamed(Upload::new(parts, bytes)));
    }
    let mut beginning = BytesMut::new();
    while beginning.len() <= INPUT_BYTES_MAX {
        match parts.next().await {
            Some(part) => beginning.extend_from_slice(&part?),
            None => return Ok(Taken::Whole(beginning.freeze())),
        }
    }
    let beginning = futures::stream::iter([Ok(beginning.freeze())]);
    Ok(Taken::Streamed(Upload::new(
        beginning.chain(parts).boxed(),
        streamed_max,
    )))
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use piecework_model::AnyCode;

    use super::*;

    const EVENT: usize = INPUT_BYTES_MAX;

    /// Of unknown length.
    fn chunked(bytes: usize) -> Body {
        let parts = (0..bytes.div_ceil(1 << 20)).map(move |nth| {
            let part = vec![b'x'; (bytes - (nth << 20)).min(1 << 20)];
            Ok::<_, std::io::Error>(Bytes::from(part))
        });
        Body::from_stream(stream::iter(parts))
    }

    #[tokio::test]
    async fn what_is_too_large_for_an_event_is_streamed_up_to_the_functions_limit() {
        let limit = 2 * EVENT as u64;
        let table = [
            (Body::from(vec![b'x'; EVENT]), limit, Ok(None)),
            (chunked(EVENT), limit, Ok(None)),
            (Body::from(vec![b'x'; EVENT + 1]), limit, Ok(Some(EVENT as u64 + 1))),
            (chunked(EVENT + 1), limit, Ok(Some(limit))),
            (Body::from(vec![b'x'; 2 * EVENT + 1]), limit, Err(Code::BodyTooLarge)),
            (chunked(2 * EVENT + 1), limit, Ok(Some(limit))),
            (Body::from(vec![b'x'; EVENT + 1]), 0, Err(Code::BodyTooLarge)),
            (chunked(EVENT + 1), 0, Err(Code::BodyTooLarge)),
        ];
        for (nth, (body, limit, due)) in table.into_iter().enumerate() {
            let taken = match take_body(body, limit, true).await {
                Ok(Taken::Whole(_)) => Ok(None),
                Ok(Taken::Streamed(upload)) => Ok(Some(upload.bytes_max())),
                Err(HttpError(refusal)) => Err(refusal.code),
            };
            assert_eq!(taken, due.map_err(AnyCode::from), "{nth}");
        }
    }
}
