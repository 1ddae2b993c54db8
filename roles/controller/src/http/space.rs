//! Refuses what would grow while the disk is nearly full: what is left is for the ledger, the journal and settlement.

use axum::{
    extract::{Request, State},
    http::Method,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use piecework_api::routes;
use piecework_disk::{Level, Reading};
use piecework_model::Code;

use super::{HttpError, HttpResult, Shared};
use crate::{Controller, failure::Refusal};

/// Whoever wants to delete something has to log in; transactions of others are the ledger's; the rest takes work away.
const GO_ON: [&str; 5] = [
    routes::SESSIONS,
    routes::PORTAL_SESSION,
    "/ledger/",
    routes::HELD,
    routes::LINK,
];
const ENDS_WORK: [&str; 1] = ["/stop"];

pub(super) async fn watch(State(controller): Shared, request: Request, next: Next) -> Response {
    let reading = controller.ground.disk.reading();
    if reading.level == Level::Reserved && adds(request.method(), request.uri().path()) {
        return HttpError(low(&reading)).into_response();
    }
    next.run(request).await
}

/// The same for a request that is known to make work.
pub(super) fn check_work(controller: &Controller) -> HttpResult<()> {
    let reading = controller.ground.disk.reading();
    match reading.level == Level::Reserved {
        true => Err(HttpError(low(&reading))),
        false => Ok(()),
    }
}

/// Whether a request makes work or something to be kept.
fn adds(method: &Method, path: &str) -> bool {
    let path = path.strip_prefix(routes::PORTAL_API).unwrap_or(path);
    if path.starts_with("/fn/") || path.starts_with("/r/") {
        return true;
    }
    let reads_or_deletes = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE);
    let goes_on =
        GO_ON.iter().any(|allowed| path.starts_with(allowed)) || ENDS_WORK.iter().any(|end| path.ends_with(end));
    !reads_or_deletes && !goes_on
}

fn low(reading: &Reading) -> Box<Refusal> {
    let message = format!(
        "the server's disk is nearly full ({} MiB are free): new work and data are refused until there is room",
        reading.free_bytes >> 20
    );
    Refusal::new(Code::DiskLow, message)
        .hint("retry later; what was accepted and what is owed is kept")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_adds_is_refused_and_what_frees_or_settles_goes_on() {
        let added = [
            (Method::POST, "/execute/f"),
            (Method::POST, "/functions"),
            (Method::PUT, "/functions/f"),
            (Method::GET, "/fn/ada/f/"),
            (Method::GET, "/r/ada/api"),
            (Method::POST, "/tokens"),
            (Method::POST, "/accounts"),
            (Method::POST, "/transfers"),
            (Method::POST, "/portal/api/functions"),
        ];
        let goes_on = [
            (Method::GET, "/jobs"),
            (Method::DELETE, "/functions/f"),
            (Method::DELETE, "/jobs/j"),
            (Method::POST, "/sessions"),
            (Method::POST, "/sessions/challenges"),
            (Method::POST, "/portal/session"),
            (Method::POST, "/portal/api/functions/f/stop"),
            (Method::POST, "/ledger/transactions"),
            (Method::POST, "/functions/f/stop"),
            (Method::POST, "/held/j"),
            (Method::GET, "/healthz"),
        ];
        assert!(added.iter().all(|(method, path)| adds(method, path)));
        assert!(goes_on.iter().all(|(method, path)| !adds(method, path)));
        let reading = Reading {
            free_bytes: 3 << 20,
            ..Reading::default()
        };
        let refusal = low(&reading);
        assert_eq!(refusal.code, Code::DiskLow);
        assert!(refusal.message.contains("3 MiB"), "{}", refusal.message);
    }
}
