//! A server with a certificate, and with the next one.

use std::{fs, path::Path, sync::Arc};

use axum::{Router, routing::get};
use piecework_serve::{Door, Limits, Proxies, Tls, TlsError, serve};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

fn kept(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/serve/certificates")
        .join(name)
}

fn put(folder: &Path, which: &str) {
    fs::copy(kept(&format!("{which}.pem")), folder.join("cert.pem")).expect("copied");
    fs::copy(kept(&format!("{which}.key.pem")), folder.join("key.pem")).expect("copied");
}

fn read(folder: &Path) -> Result<Arc<Tls>, TlsError> {
    Tls::read(&folder.join("cert.pem"), &folder.join("key.pem"))
}

fn connector() -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(kept("authority.pem")).expect("a certificate"))
        .expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// The answer, and the certificate that it came by.
async fn ask(address: std::net::SocketAddr) -> (String, CertificateDer<'static>) {
    let stream = TcpStream::connect(address).await.expect("it listens");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = connector().connect(name, stream).await.expect("a handshake");
    let shown = stream.get_ref().1.peer_certificates().expect("shown")[0]
        .clone()
        .into_owned();
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("written");
    let mut text = String::new();
    // The server closes without a farewell.
    let _ = stream.read_to_string(&mut text).await;
    (text, shown)
}

#[tokio::test]
async fn a_certificate_is_served_and_its_successor_takes_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    put(folder.path(), "first");
    let tls = read(folder.path()).expect("a pair");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let app = Router::new().route("/", get(|| async { "hello" }));
    let stop = CancellationToken::new();
    let door = Door::new(listener, Some(tls.clone()));
    let stopped = stop.clone();
    let serving =
        tokio::spawn(
            async move { serve(door, app, (Limits::default(), Proxies::default()), stopped.cancelled()).await },
        );
    let certificate = |which: &str| CertificateDer::from_pem_file(kept(which)).expect("a certificate");
    let (text, shown) = ask(address).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("hello"), "{text}");
    assert_eq!(shown, certificate("first.pem"));

    put(folder.path(), "second");
    tls.read_again().expect("a pair");
    assert_eq!(ask(address).await.1, certificate("second.pem"));

    // One half is new: the pair in force stays.
    fs::copy(kept("first.pem"), folder.path().join("cert.pem")).expect("copied");
    assert!(matches!(tls.read_again(), Err(TlsError::Pair(_))));
    assert_eq!(ask(address).await.1, certificate("second.pem"));

    // In the clear there is no answer, and nobody else is held up.
    let mut clear = TcpStream::connect(address).await.expect("it listens");
    clear
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .expect("written");
    let mut answer = Vec::new();
    let _ = clear.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert!(ask(address).await.0.ends_with("hello"));
    stop.cancel();
    serving.await.expect("no panic").expect("served");
}

#[test]
fn files_that_are_no_certificate_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = |error: TlsError| error.to_string();
    let missing = said(read(folder.path()).err().expect("missing"));
    assert!(missing.contains("cert.pem"), "{missing}");
    put(folder.path(), "first");
    fs::write(folder.path().join("key.pem"), "no key").expect("written");
    let no_key = said(read(folder.path()).err().expect("no key"));
    assert!(no_key.contains("key.pem"), "{no_key}");
    fs::write(folder.path().join("cert.pem"), "no certificate").expect("written");
    let empty = said(read(folder.path()).err().expect("no certificate"));
    assert!(empty.contains("cert.pem"), "{empty}");
}
