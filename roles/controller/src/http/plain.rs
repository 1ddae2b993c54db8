//! `/fn/{owner}/{name}/...`, or all paths of the function's own origin: a function as a plain URL.

use std::sync::Arc;

use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequestParts as _, Request, State},
    http::{Method, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use piecework_api::{
    accounts::Scope,
    errors::Refusal,
    server::{aside, read_bytes},
};
use piecework_model::{Code, FunctionName, Language, OwnerName};
use piecework_serve::requests::RouteClass;

use super::{
    Anyone, HttpError, HttpResult, INPUT_BYTES_MAX, Shared, cors,
    event::{self, EventBody, Target},
    execute, origin, site, streaming,
};
use crate::{
    Controller,
    accounts::{
        auth::Caller,
        rates::{self, Counted},
    },
    calls::{
        passing,
        streams::{Answering, Streams},
        upload::{self, Upload},
    },
    failure::{failed, refusal},
    functions::{self, Live},
    telemetry::OF_A_FUNCTION,
};

/// An event as JSON: a body as base64 with all headers fits. A text of control characters grows sixfold, and would be more
/// than a link carries.
const EVENT_BYTES_MAX: usize = 24 << 20;
/// Twice what servers and proxies usually take as a whole URL.
const QUERY_BYTES_MAX: usize = 16 << 10;
const PARAMETERS_MAX: usize = 1_000;

/// At the platform's own origin.
pub(super) async fn call(State(controller): Shared, anyone: Anyone, request: Request) -> HttpResult<Response> {
    let path = request.uri().path().to_owned();
    let Some(target) = event::target(&path) else {
        return Err(refusal(Code::PathNotFound, "the path names no function").into());
    };
    at_shared_origin(&controller, &anyone, target, request).await
}

/// At the platform's own origin, which all functions share.
pub(super) async fn at_shared_origin(
    controller: &Arc<Controller>,
    anyone: &Anyone,
    target: Target<'_>,
    mut request: Request,
) -> HttpResult<Response> {
    // They are the platform's.
    request.headers_mut().remove(header::COOKIE);
    if request.headers().contains_key("service-worker") {
        let message = "a service worker would stay in the browser for the platform; use the function's own origin";
        return Err(refusal(Code::PathNotFound, message).into());
    }
    let mut response = respond(controller, anyone, target, request).await.into_response();
    origin::share(response.headers_mut());
    Ok(response)
}

/// At the function's own origin, where all paths are the function's.
pub(super) async fn at_own_origin(
    controller: Arc<Controller>,
    (owner, name): (OwnerName, FunctionName),
    request: Request,
) -> Response {
    let path = request.uri().path().to_owned();
    let target = Target {
        owner: owner.to_string(),
        name: name.to_string(),
        raw_path: &path,
        base_path: String::new(),
    };
    let (mut parts, body) = request.into_parts();
    match Anyone::from_request_parts(&mut parts, &controller).await {
        Ok(anyone) => at_an_origin(&controller, &anyone, target, Request::from_parts(parts, body)).await,
        Err(refused) => refused.into_response(),
    }
}

/// At an origin that is the function's, or its owner's.
pub(super) async fn at_an_origin(
    controller: &Arc<Controller>,
    anyone: &Anyone,
    target: Target<'_>,
    request: Request,
) -> Response {
    let mut response = respond(controller, anyone, target, request).await.into_response();
    origin::keep_apart(response.headers_mut());
    response.extensions_mut().insert(RouteClass(OF_A_FUNCTION));
    response
}

fn missing(target: &Target<'_>) -> Box<piecework_api::errors::Refusal> {
    let (owner, name) = (&target.owner, &target.name);
    refusal(
        Code::FunctionNotFound,
        format!("there is no function {owner}/{name} that you may call"),
    )
}

async fn respond(
    controller: &Arc<Controller>,
    anyone: &Anyone,
    target: Target<'_>,
    request: Request,
) -> HttpResult<Response> {
    let missing = || missing(&target);
    let (Ok(owner_name), Ok(function_name)) = (target.owner.parse(), target.name.parse()) else {
        return Err(missing().into());
    };
    let live = functions::named(&controller.functions, &owner_name, &function_name).await;
    let live = match live {
        Ok(live) => Some(live).filter(|live| is_visible(anyone, live)),
        Err(refused) if refused.code == Code::FunctionNotFound => None,
        Err(other) => return Err(other.into()),
    };
    let is_preflight = cors::is_preflight(request.method(), request.headers());
    let Some(live) = live else {
        return match is_preflight {
            true => Ok(cors::anyones_preflight(request.headers()).into_response()),
            false => Err(unknown(anyone, missing())),
        };
    };
    let cors = live.function.policy.cors.clone();
    let Some(cors) = cors else {
        return run(controller, anyone, (target, live), request).await;
    };
    if is_preflight {
        rates::count(&controller.accounts, Counted::Public(live.function.owner), &live.limits)?;
        return Ok(cors::preflight(&cors, request.headers()).into_response());
    }
    let asked = request.headers().clone();
    let mut response = run(controller, anyone, (target, live), request).await.into_response();
    cors::permit(&cors, &asked, response.headers_mut());
    Ok(response)
}

/// Whether the function is there for whoever asks. One that is not is answered as if it did not exist, its settings for pages of
/// other sites included.
fn is_visible(anyone: &Anyone, live: &Live) -> bool {
    let is_owner = anyone
        .0
        .as_ref()
        .is_some_and(|caller| caller.account == live.function.owner);
    live.function.public || is_owner
}

/// Of a function that is there for this caller.
async fn run(
    controller: &Arc<Controller>,
    anyone: &Anyone,
    (target, live): (Target<'_>, Arc<Live>),
    request: Request,
) -> HttpResult<Response> {
    let (parts, body) = request.into_parts();
    if let (false, Some(caller)) = (live.function.public, &anyone.0) {
        caller.needs(Scope::Invoke)?;
    }
    if anyone.0.is_none() {
        rates::count(&controller.accounts, Counted::Public(live.function.owner), &live.limits)?;
    }
    check_query(parts.uri.query().unwrap_or_default())?;
    let is_bare = target.raw_path == "/" && !parts.uri.path().ends_with('/');
    if let Some(page) = site::respond(controller, &live, &parts, (target.raw_path, is_bare)).await? {
        return Ok(page);
    }
    let is_asked_for = parts.headers.contains_key(header::EXPECT);
    let is_head = parts.method == Method::HEAD;
    let body = take_body(body, live.version.stream_bytes, is_asked_for).await?;
    let at = At {
        base_path: target.base_path,
        raw_path: target.raw_path.to_owned(),
        scheme: scheme_of(controller),
        is_raw: live.contract().is_some() || live.version.language == Language::Image,
    };
    let (event, body) = event_of(at, parts, body).await?;
    let is_the_owners = |caller: &Arc<Caller>| caller.account == live.function.owner;
    let is_owner = anyone.0.as_ref().is_some_and(is_the_owners);
    let caller = anyone.0.as_ref().map(|caller| caller.account);
    let (passing, passed) = passing::channel(is_head);
    let passing = passing.at_a_url();
    let mut invocation = execute::plain_invocation(live, event, caller);
    invocation.streams = Streams {
        answer: Answering::Pass(passing),
        body: body.into_upload(),
    };
    let unary = |done| streaming::whole(done, is_head);
    let responded = streaming::respond(controller.clone(), invocation, (passed, is_head), unary).await;
    match responded {
        Ok(responded) => Ok(responded.response),
        Err(HttpError(refusal)) if !is_owner => Err(HttpError(for_strangers(refusal))),
        Err(refused) => Err(refused),
    }
}

/// What somebody who does not own a function may know of its failure: that it failed, and the job by which its owner finds out
/// why. Messages and stacks tell of its inside.
pub(super) fn for_strangers(refusal: Box<Refusal>) -> Box<Refusal> {
    let is_inside = matches!(
        refusal.code.known(),
        Some(
            Code::FunctionRaised
                | Code::FunctionCrashed
                | Code::FunctionDiskFull
                | Code::FunctionTooManyFiles
                | Code::FunctionTooManyProcesses
                | Code::FunctionOutOfMemory
                | Code::FunctionTimedOut
                | Code::FunctionOutputTooLarge
                | Code::FunctionOutputInvalid
                | Code::FunctionLoadFailed
                | Code::FunctionNoHandler
                | Code::FunctionSyntaxError
                | Code::SandboxFellShort
                | Code::SandboxUnsupported
        )
    );
    if !is_inside {
        return refusal;
    }
    Box::new(Refusal {
        job_id: refusal.job_id,
        ..Refusal::new(
            refusal.code,
            "the function failed; its owner finds the reason under this job",
        )
    })
}

/// Where a request came in, as far as its event says so.
struct At {
    base_path: String,
    raw_path: String,
    scheme: &'static str,
    is_raw: bool,
}

/// As in the URLs of functions: what is between the client and here may speak TLS for us.
fn scheme_of(controller: &Controller) -> &'static str {
    match controller.ground.base_url.starts_with("https:") {
        true => "https",
        false => "http",
    }
}

/// The event as JSON text, and the body if it is not in it.
async fn event_of(at: At, parts: Parts, body: Taken) -> HttpResult<(Bytes, Taken)> {
    let written = aside(body.len(), move || {
        let door = event::Door {
            base_path: &at.base_path,
            scheme: at.scheme,
            is_raw: at.is_raw,
        };
        let event = event::event(&door, &at.raw_path, &parts, body.for_event());
        (serde_json::to_vec(&event), body)
    });
    let (event, body) = written.await?;
    let event = event.map_err(|error| failed("write an event", &error))?;
    match event.len() <= EVENT_BYTES_MAX {
        true => Ok((event.into(), body)),
        false => Err(refusal(Code::BodyTooLarge, "the request is too large for an event").into()),
    }
}

/// A query is in an event three times, and each parameter is a text of its own in the guest: it costs a hundred times what its
/// bytes say.
fn check_query(query: &str) -> HttpResult<()> {
    let parameters = query.bytes().filter(|byte| *byte == b'&').count() + 1;
    if query.len() <= QUERY_BYTES_MAX && parameters <= PARAMETERS_MAX {
        return Ok(());
    }
    let message = format!("the query has more than {QUERY_BYTES_MAX} bytes or {PARAMETERS_MAX} parameters");
    let mut refused = refusal(Code::BodyTooLarge, message);
    refused.hint = Some("send what is larger as the request's body".into());
    Err(refused.into())
}

/// Whoever has no token is told to bring one, whether the function exists or not.
fn unknown(anyone: &Anyone, missing: Box<Refusal>) -> HttpError {
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
    /// Of what is in memory.
    fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Streamed(_) => 0,
        }
    }

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

    #[test]
    fn a_query_has_a_bounded_length_and_number_of_parameters() {
        let refused = |query: &str| check_query(query).expect_err("too much").0.code;
        check_query("").expect("none");
        check_query(&"x".repeat(QUERY_BYTES_MAX)).expect("one long one");
        assert_eq!(refused(&"x".repeat(QUERY_BYTES_MAX + 1)), Code::BodyTooLarge);
        let many = |count: usize| vec!["a=1"; count].join("&");
        check_query(&many(PARAMETERS_MAX)).expect("as many as that");
        assert_eq!(refused(&many(PARAMETERS_MAX + 1)), Code::BodyTooLarge);
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
