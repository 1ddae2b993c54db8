//! `/metrics` of a peer.

use std::{sync::atomic::AtomicU64, time::Instant};

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use super::{Explorer, Shared};

/// As Prometheus text; it shows nothing that the ledger does not show.
pub(super) async fn prometheus(State(explorer): Shared, headers: HeaderMap) -> Response {
    let (kind, text) = piecework_serve::metrics::exposition(&registry(&explorer), &headers);
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

fn registry(explorer: &Explorer) -> Registry {
    let mut root = Registry::default();
    piecework_serve::metrics::process(&mut root, env!("CARGO_PKG_VERSION"), "peer");
    explorer.requests.register(root.sub_registry_with_prefix("piecework"));
    let registry = root.sub_registry_with_prefix("piecework_ledger");
    let (status, now) = (explorer.chain.status(), Instant::now());
    let pulse = &explorer.pulse;
    for (name, help, value) in [
        ("height", "Height of the last final block", status.height),
        ("peers", "Peers that vote", u64::from(status.peers)),
        ("queued", "Transactions that wait for a block", u64::from(status.queued)),
        (
            "last_block_timestamp_seconds",
            "Time of the last final block by its proposer's clock, since 1970",
            status.last_block_at_ms / 1_000,
        ),
        (
            "last_block_age_seconds",
            "Time since a block became final here",
            pulse.silent_for(now).as_secs(),
        ),
        (
            "stalled",
            "1 while no block becomes final, else 0",
            u64::from(pulse.stalled_for(now).is_some()),
        ),
        (
            "stalls",
            "How often the ledger has stalled since this process began",
            pulse.stalls(),
        ),
        (
            "ready",
            "1 while /readyz says so, else 0",
            u64::from(explorer.is_ready()),
        ),
    ] {
        let gauge = Gauge::<u64, AtomicU64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
    root
}
