//! `/events`: a live stream of events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::stream;
use piecework_api::{accounts::Scope, errors::ErrorBody, metrics::StreamEvent, routes};
use tokio::sync::broadcast::error::RecvError;

use super::{Authenticated, HttpResult, Shared};

/// Streams server-sent events: blocks with transactions, providers that connect or leave, and the caller's jobs (for
/// operators, everybody's). A reader that is too slow loses the oldest events.
#[utoipa::path(get, path = routes::EVENTS, tag = "metrics", responses(
    (status = 200, body = StreamEvent, content_type = "text/event-stream"), (status = "default", body = ErrorBody)))]
pub(super) async fn stream(State(controller): Shared, authenticated: Authenticated) -> HttpResult<Response> {
    const KEEP_ALIVE: Duration = Duration::from_secs(15);
    authenticated.with(Scope::View)?;
    let caller = authenticated.0;
    let state = (controller.events.subscribe(), controller.shutdown.clone());
    let events = stream::unfold(state, move |(mut inbox, shutdown)| {
        let caller = caller.clone();
        async move {
            loop {
                let received = tokio::select! {
                    () = shutdown.cancelled() => return None,
                    received = inbox.recv() => received,
                };
                match received {
                    Ok(announced) => {
                        let mine = announced
                            .audience
                            .is_none_or(|account| crate::functions::sees(&caller, account));
                        if mine {
                            let data = serde_json::to_string(&announced.event).unwrap_or_default();
                            let event = Event::default().event(&announced.event.kind).data(data);
                            return Some((Ok::<_, Infallible>(event), (inbox, shutdown)));
                        }
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        }
    });
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}
