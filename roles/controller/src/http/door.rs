//! Where every request comes in: functions' own origins are told from the platform's, and strangers are counted.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use piecework_model::Code;
use piecework_serve::{Caller as Address, Crowd};

use super::{HttpError, bearer, origin::Origins, plain, portal::Gate, routing, space};
use crate::{Controller, accounts::rates, failure::refusal};

/// What the door knows.
pub(super) struct Door {
    pub(super) controller: Arc<Controller>,
    pub(super) origins: Origins,
    /// Of the portal, whose cookies are tokens too.
    gate: Arc<Gate>,
    /// Strangers' requests that run now: a quarter of the connections in all, a quarter of one address's own. The others are
    /// for those who have a token.
    strangers: Crowd,
}

const STRANGERS_MAX: usize = 4_096;
const STRANGERS_OF_AN_ADDRESS_MAX: usize = 512;

impl Door {
    pub(super) fn new(controller: Arc<Controller>) -> Arc<Self> {
        Arc::new(Self {
            origins: Origins::of(&controller.ground.base_url),
            gate: Gate::new(&controller),
            controller,
            strangers: Crowd::new(STRANGERS_MAX, STRANGERS_OF_AN_ADDRESS_MAX),
        })
    }
}

/// Passes a request on, to the function whose origin it is for or to the platform's own routes.
pub(super) async fn pass(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let mut place = None;
    // With a token that nobody has seen yet, too: it may be none.
    let token = match Gate::is_before(request.uri().path()) {
        true => door.gate.token(request.headers()),
        false => bearer(request.headers()),
    };
    if !token.is_some_and(|token| door.controller.accounts.auth.knows(token)) {
        let from = Address::of(request.extensions());
        place = door.strangers.enter(from);
        if place.is_none() {
            let refused = refusal(
                Code::ServerBusy,
                "too many requests without a token run at once; retry in a second",
            );
            return HttpError(refused).into_response();
        }
        if let Err(refused) = rates::count_stranger(&door.controller.accounts, from) {
            return HttpError(refused).into_response();
        }
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if let Some((owner, name)) = host.and_then(|host| door.origins.function(host)) {
        if let Err(refused) = space::check_work(&door.controller) {
            return refused.into_response();
        }
        return plain::at_own_origin(door.controller.clone(), (owner, name), request).await;
    }
    let assigned = host.and_then(|host| door.controller.functions.routes.host(host));
    if let Some(host) = assigned {
        if let Err(refused) = space::check_work(&door.controller) {
            return refused.into_response();
        }
        return routing::at_host(door.controller.clone(), &host, request).await;
    }
    let mut response = next.run(request).await;
    drop(place);
    // An answer of the platform is what it says it is.
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}
