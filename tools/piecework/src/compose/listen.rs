//! Where a role listens.

use std::{io::ErrorKind, net::SocketAddr};

use anyhow::Result;
use piecework_model::{Code, Rejection};
use tokio::net::TcpListener;

/// `option` is what the address was given with.
pub(super) async fn listen(address: SocketAddr, option: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AddrInUse => {
                "another program listens there; stop it, or choose another port (0 picks a free one)"
            }
            _ => "choose an address of this machine and a port that you are allowed to use",
        };
        Rejection::new(
            Code::ListenRefused,
            format!("cannot listen on {address} ({option}): {error}"),
        )
        .hint(hint)
        .into()
    })
}
