//! Serves a router to strangers, with bounded connections and bounded time for request headers and slow readers.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service as _;

use super::{extract::Caller, slow::Patient};

/// What one server spends on its callers. A connection serves one request at a time, so these bound the requests too.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections_max: usize,
    pub connections_per_caller_max: usize,
    /// For the head of a request to arrive whole, and for an idle connection to stay.
    pub head_within: Duration,
    /// For a reader to take the next part of an answer.
    pub write_within: Duration,
    /// For running requests to end once the server is told to stop.
    pub drain_within: Duration,
}

impl Default for Limits {
    /// 1,024 connections of some 20 KiB each; 128 of one caller, for a controller's pool behind one address; half a
    /// minute for everything slow.
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            connections_per_caller_max: 128,
            head_within: Duration::from_secs(30),
            write_within: Duration::from_secs(30),
            drain_within: Duration::from_secs(10),
        }
    }
}

/// The head of a request: a path, a query, a few headers.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// After the machine has run out of descriptors or memory for a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until `shutdown` resolves, then lets running requests end. A connection above a limit is closed unanswered:
/// an answer would cost what the limit saves. HTTP/1.1 only.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (connections, tasks, closing) = (Connections::default(), TaskTracker::new(), CancellationToken::new());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (stream, address) = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            },
        };
        let Some(place) = connections.take(address, &limits) else {
            tracing::debug!(%address, "too many connections");
            continue;
        };
        let served = connection(stream, address, app.clone(), limits, closing.clone());
        tasks.spawn(async move {
            served.await;
            drop(place);
        });
    }
    drop(listener);
    // Whoever holds an event stream open is cut off.
    closing.cancel();
    tasks.close();
    let _ = tokio::time::timeout(limits.drain_within, tasks.wait()).await;
    Ok(())
}

/// Serves one connection to its end; once `closing`, to the end of the request that runs.
async fn connection(stream: TcpStream, address: SocketAddr, app: Router, limits: Limits, closing: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection went before it began");
    }
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        // A router is always ready.
        app.clone().call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_within)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream, limits.write_within)), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = closing.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    // The caller's doing: it went, it was too slow, or it does not speak HTTP.
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "a connection ended");
    }
}

/// Open connections, counted.
#[derive(Clone, Default)]
struct Connections(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    all: usize,
    by_caller: HashMap<Caller, usize>,
}

/// One connection's place; given back when dropped.
struct Place {
    connections: Connections,
    caller: Caller,
}

impl Connections {
    fn take(&self, address: SocketAddr, limits: &Limits) -> Option<Place> {
        let caller = Caller::from(address.ip());
        let mut counts = self.0.lock();
        let theirs = counts.by_caller.get(&caller).copied().unwrap_or(0);
        if counts.all >= limits.connections_max || theirs >= limits.connections_per_caller_max {
            return None;
        }
        counts.all += 1;
        counts.by_caller.insert(caller, theirs + 1);
        Some(Place {
            connections: self.clone(),
            caller,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.connections.0.lock();
        counts.all -= 1;
        if let Some(theirs) = counts.by_caller.get_mut(&self.caller) {
            *theirs -= 1;
            if *theirs == 0 {
                counts.by_caller.remove(&self.caller);
            }
        }
    }
}
