//! `/events`: a live stream of events.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures::stream;
use piecework_api::{accounts::Scope, errors::ErrorBody, ledger::ProviderState, metrics::StreamEvent, routes};
use piecework_model::AccountId;
use tokio::sync::broadcast::error::RecvError;

use super::{Authenticated, HttpResult, Shared, ledger::provider_view};
use crate::Controller;

/// Streams server-sent events: blocks with transactions, providers that connect or leave, and the caller's jobs (for
/// operators, everybody's). A reader that is too slow loses the oldest events. Every second there is at least a comment: a reader that
/// hears nothing for longer has lost its connection.
#[utoipa::path(get, path = routes::EVENTS, tag = "metrics", responses(
    (status = 200, body = StreamEvent, content_type = "text/event-stream"), (status = "default", body = ErrorBody)))]
pub(super) async fn stream(State(controller): Shared, authenticated: Authenticated) -> HttpResult<Response> {
    authenticated.with(Scope::View)?;
    let caller = authenticated.0;
    let told = &controller.ground.events;
    let place = told.place(caller.account)?;
    let state = (told.subscribe(), controller.ground.shutdown.clone(), place);
    let events = stream::unfold(state, move |(mut inbox, shutdown, place)| {
        let caller = caller.clone();
        async move {
            loop {
                let received = tokio::select! {
                    () = shutdown.cancelled() => return None,
                    received = inbox.recv() => received,
                };
                match received {
                    Ok(announced) if announced.is_beat() => {
                        let event = Event::default().comment("");
                        return Some((Ok::<_, Infallible>(event), (inbox, shutdown, place)));
                    }
                    Ok(announced) => {
                        let mine = announced
                            .audience
                            .is_none_or(|account| crate::functions::sees(&caller, account));
                        if mine {
                            let data = serde_json::to_string(&announced.event).unwrap_or_default();
                            let event = Event::default().event(&announced.event.kind).data(data);
                            return Some((Ok(event), (inbox, shutdown, place)));
                        }
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        }
    });
    Ok(Sse::new(events).into_response())
}

/// A page says within three that it hears nothing.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Lets all readers of `/events` know that the server is there, by one timer for all of them, until the controller stops.
pub(crate) async fn beat(controller: Arc<Controller>) {
    loop {
        tokio::select! {
            () = controller.ground.shutdown.cancelled() => return,
            () = tokio::time::sleep(BEAT_EVERY) => controller.ground.events.beat(),
        }
    }
}

/// Often enough for people who watch.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Tells the readers of `/events` of each provider that comes, goes, or takes nothing new, until the controller stops.
pub(crate) async fn tell_of_providers(controller: Arc<Controller>) {
    let mut known: HashMap<AccountId, ProviderState> = HashMap::new();
    loop {
        tokio::select! {
            () = controller.ground.shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        for seen in controller.providers.all().iter() {
            let (account, state) = (seen.link.profile().account, seen.state());
            if known.insert(account, state) != Some(state) && controller.ground.events.has_listeners() {
                match provider_view(&controller, seen).await {
                    Ok(view) => {
                        let body = serde_json::to_value(view).unwrap_or_default();
                        controller.ground.events.send("provider", None, body);
                    }
                    Err(refusal) => {
                        tracing::debug!(%refusal, "nobody is told of a provider: the ledger does not answer")
                    }
                }
            }
        }
    }
}
