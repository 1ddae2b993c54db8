//! Accepts connections, as many as there may be.

use std::{io, time::Duration};

use axum::Router;
use rustix::process::{Resource, getrlimit};
use tokio::{net::TcpListener, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Caller, Proxies,
    connection::{Served, connection},
    seats::{Room, Seats},
    tls::Door,
};

/// What one server spends on its callers. A connection serves one request at a time, so these bound the requests too.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At most; and never more than [`DESCRIPTORS_SHARE`] leaves.
    pub connections_max: usize,
    pub connections_per_caller_max: usize,
    /// For the head of a request to arrive whole, from its first byte, and for that byte on a new connection.
    pub head_within: Duration,
    /// For the next request on a connection.
    pub idle_within: Duration,
    /// For the next part of a body that a handler asks for.
    pub body_within: Duration,
    /// For a reader to take the next part of an answer.
    pub write_within: Duration,
    /// Of answers above 64 KiB that wait for their readers, in all: beyond it readers that have stalled are cut off.
    pub answers_bytes_max: u64,
    /// For running requests to end once the server is told to stop.
    pub drain_within: Duration,
}

impl Default for Limits {
    /// 1,024 connections of some 20 KiB each at the most; 128 of one caller, for a controller's pool behind one address;
    /// half a minute for everything slow.
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            connections_per_caller_max: 128,
            head_within: Duration::from_secs(15),
            idle_within: Duration::from_secs(60),
            body_within: Duration::from_secs(30),
            write_within: Duration::from_secs(30),
            answers_bytes_max: 64 << 20,
            drain_within: Duration::from_secs(5),
        }
    }
}

/// Connections have at most every second descriptor that the process may open; the others are for its ledger, its store
/// and its sandboxes, which must not fail because strangers came. The limit is looked at with each connection: it may be
/// changed from outside.
const DESCRIPTORS_SHARE: u64 = 2;

/// After the machine has run out of descriptors or memory for a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How many then make room.
const SHED: usize = 32;
/// Connections that were told to go and are not gone yet, beyond which no other is accepted: their descriptors are not
/// free yet.
const LEAVING_MAX: usize = 128;
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// The log says at most so often that connections cannot be accepted.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// From the end of the time for running requests to the end of the tasks that are cut.
const CUT_WITHIN: Duration = Duration::from_millis(500);

impl Limits {
    fn room(&self) -> Room {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let share = usize::try_from(descriptors / DESCRIPTORS_SHARE).unwrap_or(usize::MAX);
        let all = self.connections_max.min(share).max(1);
        Room {
            all,
            // One address alone never takes them all.
            per_caller: self.connections_per_caller_max.min(all.div_ceil(2)),
        }
    }
}

/// Serves until `shutdown` resolves, then lets running requests end, for a while. A connection for which there is no room is
/// closed unanswered: an answer would cost what the limit saves. HTTP/1.1 only.
pub async fn serve(
    door: impl Into<Door>,
    app: Router,
    (limits, proxies): (Limits, Proxies),
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let Door { listener, tls } = door.into();
    let renewed = async {
        match &tls {
            Some(tls) => tls.watch().await,
            None => std::future::pending().await,
        }
    };
    let (seats, tasks) = (Seats::default(), TaskTracker::new());
    let served = Served {
        app,
        limits,
        tls: tls.clone(),
        proxies,
        closing: CancellationToken::new(),
        cut: CancellationToken::new(),
    };
    tokio::select! {
        () = shutdown => {}
        () = renewed => {}
        () = accept(&listener, &seats, &served, &tasks) => {}
    }
    drop(listener);
    served.closing.cancel();
    tasks.close();
    if tokio::time::timeout(limits.drain_within, tasks.wait()).await.is_err() {
        tracing::info!(
            connections = tasks.len(),
            "stopped without waiting for requests that still run"
        );
        served.cut.cancel();
        let _ = tokio::time::timeout(CUT_WITHIN, tasks.wait()).await;
    }
    Ok(())
}

/// For ever. No failure ends it: whatever is the matter with one connection, or with the machine for a moment, the next one may
/// be fine.
async fn accept(listener: &TcpListener, seats: &Seats, served: &Served, tasks: &TaskTracker) {
    let mut said: Option<Instant> = None;
    loop {
        while seats.leaving() > LEAVING_MAX {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_its_own(&error) => continue,
            Err(error) => {
                if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                    said = Some(Instant::now());
                    tracing::warn!(%error, "connections cannot be accepted; those that wait for their clients make room");
                }
                seats.shed(SHED);
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let room = served.limits.room();
        let room = match served.proxies.has(address.ip()) {
            // For many callers, whom nothing tells apart before a request is read.
            true => Room {
                per_caller: room.all,
                ..room
            },
            false => room,
        };
        match seats.take(Caller::from(address.ip()), room) {
            Some(place) => drop(tasks.spawn(connection(stream, address, place, served.clone()))),
            None => tracing::debug!(%address, "too many connections"),
        }
    }
}

/// Whether only the connection that was to be accepted is concerned.
fn is_its_own(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
