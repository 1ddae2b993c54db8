//! Where a role listens.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    path::Path,
};

use anyhow::Result;
use piecework_model::{Code, Rejection};
use piecework_serve::{Door, Tls};
use tokio::net::{TcpListener, TcpSocket};

use super::acme::Renewal;
use crate::settings::{AcmeSettings, TlsSettings};

/// Connections that the kernel keeps until they are accepted, if the machine allows so many. Beyond it a caller's first packet is
/// dropped, and it tries again a second later: with the usual 128, a burst of strangers slows everybody down.
const BACKLOG: u32 = 4_096;

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A port whose last connections have ended a moment ago is free.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// `option` is what the address was given with.
pub(super) async fn listen(address: SocketAddr, option: &str) -> Result<TcpListener> {
    bind(address).map_err(|error| {
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

/// The same for a role that may obtain its certificate by itself; what keeps it good, too. The URL is then of the first name.
pub(super) fn front_door(
    listener: TcpListener,
    directory: &Path,
    (tls, acme): (Option<&TlsSettings>, Option<&AcmeSettings>),
) -> Result<(Door, String, Option<Renewal>)> {
    let Some(acme) = acme else {
        let (door, url) = door(listener, tls)?;
        return Ok((door, url, None));
    };
    let renewal = Renewal::new(directory, acme)?;
    // The authority looks at port 443, whatever leads from there to here.
    let url = format!("https://{}", acme.domains[0]);
    Ok((Door::new(listener, Some(renewal.tls.clone())), url, Some(renewal)))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpStream, time::Duration};

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

    #[tokio::test]
    async fn a_burst_of_connections_keeps_nobody_waiting() {
        let listener = listen(([127, 0, 0, 1], 0).into(), "`listen`").await.expect("a port");
        let address = listener.local_addr().expect("it listens");
        // Nobody accepts meanwhile.
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(900));
        let open: Vec<_> = (0..400).map(|_| connect().expect("there is room")).collect();
        drop(open);
    }
}
