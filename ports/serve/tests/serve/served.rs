//! The server, and what it is asked.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, rejection::BytesRejection},
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use piecework_serve::{Limits, Proxies, serve};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

/// Longer than anything takes on a busy machine.
pub const WITHIN: Duration = Duration::from_secs(60);

pub struct Served {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

/// Seconds, where the platform gives a quarter of a minute.
pub fn limits() -> Limits {
    Limits {
        connections_max: 16,
        connections_per_caller_max: 8,
        head_within: Duration::from_secs(2),
        idle_within: Duration::from_secs(2),
        body_within: Duration::from_secs(2),
        write_within: Duration::from_secs(2),
        answers_bytes_max: 1 << 20,
        drain_within: Duration::from_secs(1),
    }
}

async fn status(Path(status): Path<u16>) -> Response {
    let mut response = Response::new(Body::from("a body"));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

async fn length(body: Result<Bytes, BytesRejection>) -> (StatusCode, String) {
    match body {
        Ok(body) => (StatusCode::OK, body.len().to_string()),
        Err(rejection) => (StatusCode::REQUEST_TIMEOUT, rejection.to_string()),
    }
}

fn app() -> Router {
    Router::new()
        .route("/", get(async || "well"))
        .route("/never", get(async || std::future::pending::<()>().await))
        .route("/status/{status}", get(status))
        .route("/length", post(length))
}

impl Served {
    pub async fn start(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve(listener, app(), (limits, Proxies::default()), async {
            // Or dropped with the test.
            let _ = stopped.await;
        }));
        Self { address, stop, serving }
    }

    /// Tells it to stop, and waits until it has.
    pub async fn stop(self) {
        let Self { stop, serving, .. } = self;
        stop.send(()).expect("it listens");
        let ended = timeout(WITHIN, serving).await.expect("it stops");
        ended.expect("no panic").expect("no failure");
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// All that it says to these bytes, until it hangs up.
    pub async fn said_to(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // It may hang up before it has all.
        let _ = stream.write_all(bytes).await;
        until_closed(&mut stream).await
    }

    pub async fn is_well(&self) {
        let said = self
            .said_to(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
            .await;
        assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("well"), "{said}");
    }
}

/// All that the server says until it hangs up.
pub async fn until_closed(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let ended = timeout(WITHIN, stream.read_to_end(&mut said)).await;
    // A reset is a way to hang up as well.
    let _ = ended.expect("the server hangs up");
    String::from_utf8_lossy(&said).into_owned()
}
