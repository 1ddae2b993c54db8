//! The link's packets as the binary messages of a WebSocket.

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, future};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{PACKET_BYTES_MAX, READ_BYTES, Wire, gate::Gate};

pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .max_message_size(Some(PACKET_BYTES_MAX))
        .max_frame_size(Some(PACKET_BYTES_MAX))
}

/// The controller's end of a connection that HTTP was upgraded on. Until the other end proves its key, what it says takes a
/// few KiB: more ends the connection.
pub async fn accepted<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(connection: S) -> Wire {
    let (gate, opener) = Gate::new(connection);
    let socket = WebSocketStream::from_raw_socket(gate, Role::Server, Some(config())).await;
    wire(socket).behind(opener)
}

/// What `Sec-WebSocket-Accept` says to a `Sec-WebSocket-Key`.
pub fn accept_key(key: &[u8]) -> String {
    derive_accept_key(key)
}

pub(super) fn wire<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(socket: WebSocketStream<S>) -> Wire {
    let (outgoing, incoming) = socket.split();
    let incoming = incoming.filter_map(|message| {
        future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(Message::Text(_)) => Some(Err("a text where bytes were expected".to_owned())),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_) | Message::Close(_)) => None,
            Err(error) => Some(Err(error.to_string())),
        })
    });
    let outgoing = outgoing
        .sink_map_err(|error| error.to_string())
        .with(|bytes: Bytes| future::ok::<_, String>(Message::Binary(bytes)));
    Wire::new(incoming, outgoing)
}
