//! One connection, from its first byte to its end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo};
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::{
    Guest, Limits, Proxies,
    arriving::Arriving,
    leaving::leaving,
    patient::Patient,
    seats::{Phase, Place},
    tls::{Stream, Tls, greet},
};

/// The head of a request: a path, a query, a few headers. The buffer grows with what comes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// What a server's connections have in common.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) app: Router,
    pub(crate) limits: Limits,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) proxies: Proxies,
    /// The request that runs is the last.
    pub(crate) closing: CancellationToken,
    /// Not even that one is waited for.
    pub(crate) cut: CancellationToken,
}

/// Serves it until it ends, has to make room, or is cut; once `closing`, to the end of the request that runs.
pub(crate) async fn connection(stream: TcpStream, address: SocketAddr, place: Place, served: Served) {
    // Nothing is set up for somebody who says nothing.
    tokio::select! {
        readable = tokio::time::timeout(served.limits.head_within, stream.readable()) => {
            if !matches!(readable, Ok(Ok(()))) {
                return;
            }
        }
        () = place.evicted() => return,
        () = served.closing.cancelled() => return,
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection went before it began");
    }
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(served.limits.head_within, greet(served.tls.as_deref(), stream)) => greeted,
        () = place.evicted() => return,
        () = served.closing.cancelled() => return,
    };
    match greeted {
        Ok(Ok(stream)) => Box::pin(requests(stream, address, Arc::new(place), served)).await,
        Ok(Err(error)) => tracing::debug!(%address, %error, "no handshake"),
        Err(_) => tracing::debug!(%address, "no handshake in time"),
    }
}

async fn requests(stream: Stream, address: SocketAddr, place: Arc<Place>, served: Served) {
    let Served {
        app,
        limits,
        tls: _,
        proxies,
        closing,
        cut,
    } = served;
    let seat = place.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let address = proxies.caller(request.headers(), address);
        answer(app.clone(), request, address, (seat.clone(), limits))
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None::<Duration>)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream, place.clone(), limits)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut is_closing = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = place.evicted() => return,
            () = cut.cancelled() => return,
            () = closing.cancelled(), if !is_closing => {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    // The caller's doing: it went, it was too slow, or it does not speak HTTP.
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "a connection ended");
    }
}

async fn answer(
    mut app: Router,
    request: Request<Incoming>,
    address: SocketAddr,
    (place, limits): (Arc<Place>, Limits),
) -> Result<Response<super::leaving::Leaving>, std::convert::Infallible> {
    place.enter(Phase::Busy);
    if let Some((status, why)) = fault(&request) {
        let mut response = Response::new(Body::from(why));
        *response.status_mut() = status;
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        return Ok(leaving(response, place, limits.answers_bytes_max));
    }
    let body_within = limits.body_within;
    let mut request = request.map(|body| Arriving::new(body, place.clone(), body_within));
    let extensions = request.extensions_mut();
    extensions.insert(ConnectInfo(address));
    extensions.insert(Guest(place.clone()));
    // A router is always ready, and never fails.
    let response = app.call(request).await?;
    Ok(leaving(response, place, limits.answers_bytes_max))
}

/// What makes the request one that others may take for another one: it does not name its host, or names two, or its body is
/// in an encoding that not everybody takes off. And a head that came in so few parts that it was read whole although it is too large.
fn fault(request: &Request<Incoming>) -> Option<(StatusCode, &'static str)> {
    let fields = request.headers().iter();
    let bytes: usize = fields.map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes + request.uri().path().len() > HEAD_BYTES_MAX {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Some((status, "the head of the request is larger than 64 KiB\n"));
    }
    let mut encodings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |encoding: &HeaderValue| encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if encodings.next().is_some_and(|encoding| !is_chunked(encoding)) || encodings.next().is_some() {
        let why = "the request has a Transfer-Encoding other than chunked\n";
        return Some((StatusCode::NOT_IMPLEMENTED, why));
    }
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let why = match (request.version(), hosts) {
        (_, 1) | (Version::HTTP_09 | Version::HTTP_10, 0) => return None,
        (_, 0) => "the request has no Host header\n",
        (_, _) => "the request has more than one Host header\n",
    };
    Some((StatusCode::BAD_REQUEST, why))
}
