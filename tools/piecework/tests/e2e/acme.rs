//! Certificates that the server obtains by itself, from a real ACME authority: pebble, of Let's Encrypt.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use piecework_loopback::free_addresses;
use reqwest::tls::TlsInfo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde_json::{Value, json};

use crate::machine::{piecework, skipped};

const NAME: &str = "faas.example.test";
const OTHER: &str = "www.example.test";
/// An order takes a second, and a start a few, on a machine that does nothing else.
const WITHIN: Duration = Duration::from_secs(120);

/// What serves the authority's own HTTPS: a certificate of the tests for `localhost`.
fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../ports/serve/tests/serve/certificates")
        .join(name)
}

fn free_port() -> u16 {
    free_addresses(1).expect("a port")[0].port()
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(command: &mut Command, port: u16) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut running = Self(child.expect("it starts"));
        let deadline = Instant::now() + WITHIN;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(running.0.try_wait().expect("asked").is_none(), "it ended by itself");
            assert!(Instant::now() < deadline, "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }
}

/// Where the authority is, and where it looks for the proofs of all names.
struct Ports {
    api: u16,
    management: u16,
    proofs: u16,
    names: u16,
}

impl Ports {
    fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.api)
    }
}

/// An authority without a memory, whose certificates live for so long.
fn authority(folder: &Path, ports: &Ports, life_s: u64) -> Running {
    let config = json!({"pebble": {
        "listenAddress": format!("127.0.0.1:{}", ports.api),
        "managementListenAddress": format!("127.0.0.1:{}", ports.management),
        "certificate": certificate("first.pem"),
        "privateKey": certificate("first.key.pem"),
        "httpPort": 1,
        "tlsPort": ports.proofs,
        "certificateValidityPeriod": life_s,
    }});
    let file = folder.join("pebble.json");
    fs::write(&file, config.to_string()).expect("written");
    let mut command = Command::new("pebble");
    command.arg("-config").arg(&file);
    command.args(["-strict", "-dnsserver", &format!("127.0.0.1:{}", ports.names)]);
    // It waits for up to 15 s before each look otherwise.
    command.env("PEBBLE_VA_NOSLEEP", "1");
    Running::start(&mut command, ports.management)
}

/// Every name is an address of this machine.
fn names(ports: &Ports) -> Running {
    let (dns, management) = (
        format!("127.0.0.1:{}", ports.names),
        format!("127.0.0.1:{}", free_port()),
    );
    let mut command = Command::new("pebble-challtestsrv");
    command.args([
        "-defaultIPv4",
        "127.0.0.1",
        "-defaultIPv6",
        "",
        "-dns01",
        &dns,
        "-management",
        &management,
    ]);
    command.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
    // It answers by TCP as well.
    Running::start(&mut command, ports.names)
}

/// `piecework up`, and what it writes to standard error.
struct Up {
    running: Running,
    address: SocketAddr,
}

impl Up {
    fn start(data: &Path, listen: u16, (directory, domains): (&str, &[&str])) -> Self {
        let mut command = piecework();
        command
            .args([
                "up",
                "--no-provider",
                "--listen",
                &format!("127.0.0.1:{listen}"),
                "--data",
            ])
            .arg(data)
            .args(["--acme-directory", directory, "--acme-contact", "ops@example.test"])
            .args(domains.iter().flat_map(|domain| ["--acme", domain]))
            .env("SSL_CERT_FILE", certificate("authority.pem"))
            .env_remove("SSL_CERT_DIR")
            .stdout(Stdio::piped())
            .stderr(Stdio::from(
                fs::File::create(data.with_extension("log")).expect("a file"),
            ));
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        let said = child.stdout.take().expect("piped");
        BufReader::new(said).read_line(&mut line).expect("it says something");
        assert_eq!(line.trim_end(), format!("ready https://{}", domains[0]));
        Self {
            running: Running(child),
            address: ([127, 0, 0, 1], listen).into(),
        }
    }

    fn stop(mut self) {
        let told = Command::new("kill")
            .args(["-TERM", &self.running.0.id().to_string()])
            .status();
        assert!(told.expect("kill is there").success());
        assert!(self.running.0.wait().expect("it ends").success());
    }
}

fn client(roots: RootCertStore, to: SocketAddr) -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .tls_info(true);
    // Each request is a handshake.
    let builder = builder.pool_max_idle_per_host(0).timeout(Duration::from_secs(20));
    builder.resolve(NAME, to).resolve(OTHER, to).build().expect("a client")
}

/// Trusts the authority, as its own interface tells.
async fn trusting(ports: &Ports, to: SocketAddr) -> reqwest::Client {
    let mut own = RootCertStore::empty();
    own.add(CertificateDer::from_pem_file(certificate("authority.pem")).expect("a certificate"))
        .expect("an authority");
    let url = format!("https://localhost:{}/roots/0", ports.management);
    let pem = client(own, to).get(url).send().await.expect("it answers");
    let pem = pem.bytes().await.expect("a body");
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&pem).expect("a certificate"))
        .expect("an authority");
    client(roots, to)
}

/// The certificate by which a name answers; none while it is not trusted.
async fn shown(client: &reqwest::Client, name: &str, port: u16) -> Option<Vec<u8>> {
    let answer = client.get(format!("https://{name}:{port}/healthz")).send().await.ok()?;
    assert!(answer.status().is_success(), "{}", answer.status());
    let tls: &TlsInfo = answer.extensions().get().expect("told");
    Some(tls.peer_certificate().expect("shown").to_vec())
}

/// Waits for a certificate other than this one.
async fn obtained(client: &reqwest::Client, name: &str, port: u16, other_than: &[u8]) -> Vec<u8> {
    let deadline = Instant::now() + WITHIN;
    loop {
        match shown(client, name, port).await {
            Some(found) if found != other_than => return found,
            Some(_) | None => assert!(Instant::now() < deadline, "no certificate for {name}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn log_of(data: &Path) -> String {
    let mut text = String::new();
    let mut file = fs::File::open(data.with_extension("log")).expect("there");
    file.read_to_string(&mut text).expect("text");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_obtained_kept_renewed_and_a_refusal_is_told() {
    if Command::new("pebble").arg("-version").output().is_err() {
        return skipped("pebble is missing");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let ports = Ports {
        api: free_port(),
        management: free_port(),
        proofs: free_port(),
        names: free_port(),
    };
    let (data, port) = (folder.path().join("data"), ports.proofs);
    let _names = names(&ports);
    let directory = ports.directory();

    let first = authority(folder.path(), &ports, 3_600);
    let up = Up::start(&data, port, (&directory, &[NAME]));
    let trusted = trusting(&ports, up.address).await;
    let one = obtained(&trusted, NAME, port, b"").await;
    assert_eq!(shown(&trusted, OTHER, port).await, None, "it is of one name");
    for file in ["certificate.pem", "account.json"] {
        let mode = fs::metadata(data.join("acme").join(file))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    up.stop();
    // Kept: it answers by it at once.
    let up = Up::start(&data, port, (&directory, &[NAME]));
    assert_eq!(shown(&trusted, NAME, port).await, Some(one.clone()));
    up.stop();
    drop(first);

    // The authority has forgotten the account; another name is wanted; the life is short.
    let _second = authority(folder.path(), &ports, 12);
    let up = Up::start(&data, port, (&directory, &[NAME, OTHER]));
    let trusted = trusting(&ports, up.address).await;
    let two = obtained(&trusted, OTHER, port, &one).await;
    let three = obtained(&trusted, NAME, port, &two).await;
    assert!(three != one);
    up.stop();

    // Where the authority looks, nobody answers.
    refused(&folder.path().join("elsewhere"), &directory).await;
}

async fn refused(data: &Path, directory: &str) {
    let port = free_port();
    let up = Up::start(data, port, (directory, &[NAME]));
    let placeholder = CertificateDer::from_pem_file(data.join("acme/certificate.pem")).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(placeholder).expect("a certificate");
    let client = client(roots, up.address);
    let token = fs::read_to_string(data.join("token")).expect("written");
    let deadline = Instant::now() + WITHIN;
    let message = loop {
        let asked = client
            .get(format!("https://{NAME}:{port}/alerts"))
            .bearer_auth(token.trim());
        let answer = asked.send().await.expect("it serves all the same");
        let alerts: Value = answer.json().await.expect("JSON");
        let alert = alerts["items"].as_array().expect("a list").first().cloned();
        if let Some(alert) = alert {
            assert_eq!(alert["rule"], "certificate", "{alert}");
            break alert["message"].as_str().expect("a sentence").to_owned();
        }
        assert!(Instant::now() < deadline, "nothing is told");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(message.contains(NAME) && message.contains("port 443"), "{message}");
    assert!(message.contains("the authority refused"), "{message}");
    assert_eq!(log_of(data).matches("could not be obtained").count(), 1, "one line");
    up.stop();
}
