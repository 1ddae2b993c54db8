//! `GET /link`: where providers come in. No token: both ends prove their keys inside (see `piecework_queue::link`).

use std::net::SocketAddr;

use axum::{
    Extension,
    extract::{
        ConnectInfo, State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    response::Response,
};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, future};
use piecework_queue::link::{PACKET_BYTES_MAX, READ_BYTES, Wire};

use super::Shared;
use crate::providers::hub;

pub(super) async fn upgrade(
    State(controller): Shared,
    address: Option<Extension<ConnectInfo<SocketAddr>>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let tasks = controller.ground.tasks.clone();
    let address = address.map(|Extension(ConnectInfo(address))| address.ip());
    upgrade
        .read_buffer_size(READ_BYTES)
        .max_message_size(PACKET_BYTES_MAX)
        .max_frame_size(PACKET_BYTES_MAX)
        .on_upgrade(move |socket| tasks.track_future(hub::serve(controller.providers.clone(), wire(socket), address)))
}

fn wire(socket: WebSocket) -> Wire {
    let (outgoing, incoming) = socket.split();
    let incoming = incoming.filter_map(|message| {
        future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(Message::Text(_)) => Some(Err("a text where bytes were expected".to_owned())),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_)) => None,
            Err(error) => Some(Err(error.to_string())),
        })
    });
    let outgoing = outgoing
        .sink_map_err(|error| error.to_string())
        .with(|bytes: Bytes| future::ok::<_, String>(Message::Binary(bytes)));
    Wire::new(incoming, outgoing)
}
