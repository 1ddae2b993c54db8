//! Where a role listens.

use std::{io::ErrorKind, net::SocketAddr};

use anyhow::Result;
use piecework_model::{Code, Rejection};
use piecework_serve::{Door, Tls};
use tokio::net::TcpListener;

use crate::settings::TlsSettings;

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

/// A listener, with TLS if there is a certificate; and the URL that leads there from this machine.
pub(super) fn door(listener: TcpListener, tls: Option<&TlsSettings>) -> Result<(Door, String)> {
    let address = listener.local_addr()?;
    let Some(files) = tls else {
        return Ok((listener.into(), format!("http://{address}")));
    };
    let tls = Tls::read(&files.certificate, &files.key).map_err(|error| {
        Rejection::new(Code::ListenBadCertificate, error.to_string())
            .hint("give a certificate chain in PEM, the server's own first, and its key in PEM without a password")
    })?;
    Ok((Door::new(listener, Some(tls)), format!("https://{address}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_certificate_that_cannot_be_read_is_refused_by_code() {
        let listener = listen(([127, 0, 0, 1], 0).into(), "--listen").await.expect("a port");
        let files = TlsSettings {
            certificate: "/missing/cert.pem".into(),
            key: "/missing/key.pem".into(),
        };
        let error = door(listener, Some(&files)).err().expect("refused");
        let rejection: &Rejection = error.downcast_ref().expect("a rejection");
        assert_eq!(rejection.code, Code::ListenBadCertificate);
        assert!(rejection.message.contains("/missing/cert.pem"), "{rejection}");
    }
}
