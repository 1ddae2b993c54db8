//! `GET /link`: where providers come in. No token: both ends prove their keys inside (see `piecework_queue::link`).

use std::net::SocketAddr;

use axum::{
    body::Body,
    extract::{ConnectInfo, FromRequestParts as _, Request, State, ws::WebSocketUpgrade},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use piecework_queue::link::{accept_key, accepted};
use piecework_serve::{Guest, Upgrade};

use super::Shared;
use crate::providers::hub::{self, Visitor};

/// Not by the framework's own WebSocket: its buffers cannot be kept small for those who have proved no key.
pub(super) async fn upgrade(State(controller): Shared, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let upgrade = Upgrade::of(&parts.extensions);
    if let Err(refused) = WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        return refused.into_response();
    }
    let (Some(upgrade), Some(answer)) = (upgrade, switching(&parts.headers)) else {
        return StatusCode::UPGRADE_REQUIRED.into_response();
    };
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let visitor = Visitor {
        address: address.map(|ConnectInfo(address)| address.ip()),
        guest: parts.extensions.get::<Guest>().cloned(),
    };
    let providers = controller.providers.clone();
    controller.ground.tasks.spawn(async move {
        // A client that has gone before it was answered was never here.
        if let Ok(connection) = upgrade.connection().await {
            hub::serve(providers, accepted(connection).await, visitor).await;
        }
    });
    answer
}

/// RFC 6455, 4.2.2; `None` where the client sent no key.
fn switching(headers: &HeaderMap) -> Option<Response> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::try_from(accept_key(key.as_bytes())).expect("base64 is a header's value");
    answer.headers_mut().extend([
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ]);
    Some(answer)
}
