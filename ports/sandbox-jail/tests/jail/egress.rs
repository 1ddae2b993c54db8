//! The way out of a jail: only what the allow list names, only while a call runs, and every byte counted.
use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use piecework_egress::{Egress, Resolver};
use piecework_model::{AccountId, Digest, EgressList, EgressPolicy, JobId, Language, Limits};
use piecework_sandbox::{Backend, Call, EgressMeter, Finished, Instance, LoadError, Outcome, Program};
use piecework_sandbox_jail::Jail;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::subject;

/// Names of this test's world; `moving.example.com` is elsewhere at each question.
#[derive(Default)]
struct World(AtomicUsize);

#[async_trait]
impl Resolver for World {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let asked = self.0.fetch_add(1, Ordering::Relaxed);
        let here = "127.0.0.1".parse().unwrap();
        match name {
            "api.example.com" | "deep.api.example.org" | "evil.example.net" => Ok(vec![here]),
            "inner.example.com" => Ok(vec!["127.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap()]),
            "metadata.example.com" => Ok(vec!["169.254.169.254".parse().unwrap()]),
            "moving.example.com" if asked == 0 => Ok(vec![here]),
            "moving.example.com" => Ok(vec!["127.0.0.2".parse().unwrap()]),
            _ => Err(io::Error::other("no such name")),
        }
    }
}

/// A provider that lets functions reach 127.0.0.1 and no other address of its own.
fn jail(rootless: bool) -> Jail {
    let policy = EgressPolicy {
        private: vec!["127.0.0.1".parse().unwrap()],
    };
    let egress = Egress::with_resolver(policy, Arc::new(World::default()), Duration::ZERO);
    subject::jail_that_reaches(rootless, Some(egress))
}

struct Function {
    instance: Box<dyn Instance>,
    limits: Limits,
    _bundle: tempfile::TempDir,
}

async fn load(
    jail: &Jail,
    language: Language,
    source: &str,
    allow: &[String],
    limits: Limits,
) -> Result<Function, LoadError> {
    let bundle = tempfile::Builder::new().prefix("bundle-").tempdir().unwrap();
    std::fs::write(bundle.path().join(language.entry_file()), source).unwrap();
    open_to_all(bundle.path());
    let program = Program {
        owner: AccountId([0; 20]),
        language,
        code: Digest::of(source.as_bytes()),
        directory: bundle.path().to_owned(),
        handler: None,
        image: None,
        env: BTreeMap::new(),
        limits,
        egress: EgressList::parse(allow).unwrap(),
        function_name: "out".to_owned(),
        version: 1,
    };
    let instance = jail.load(Arc::new(program)).await?.start().await?;
    Ok(Function {
        instance,
        limits,
        _bundle: bundle,
    })
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

impl Function {
    async fn new(jail: &Jail, language: Language, source: &str, allow: &[String]) -> Self {
        load(jail, language, source, allow, limits()).await.unwrap()
    }

    async fn call(&mut self, event: Value) -> Finished {
        self.instance.call(call(event, &self.limits)).await
    }

    /// What it returned, and its logs.
    async fn output(&mut self, event: Value) -> (Value, String) {
        let finished = self.call(event).await;
        let Outcome::Returned(json) = &finished.outcome else {
            panic!("{:?}, logs {}", finished.outcome, finished.logs.text);
        };
        (serde_json::from_slice(json).unwrap(), finished.logs.text)
    }
}

fn limits() -> Limits {
    Limits {
        timeout_ms: 20_000,
        egress_bytes: 1 << 20,
        ..Limits::DEFAULT
    }
}

fn call(event: Value, limits: &Limits) -> Call {
    Call {
        job: JobId([7; 16]),
        event: event.to_string().into_bytes().into(),
        parameters: "null".into(),
        deadline_ms: 0,
        time_left: Duration::from_millis(limits.timeout_ms.into()),
        egress: EgressMeter::default(),
        stop: piecework_sandbox::CancellationToken::new(),
        body: None,
        outlet: piecework_sandbox::Outlet::nowhere(),
    }
}

/// What a server does with a connection.
#[derive(Clone, Copy)]
enum Manner {
    Http,
    /// Sends without end.
    Endless,
    /// Takes the connection and says nothing until the other side ends.
    Silent,
}

/// A server on 127.0.0.1 that counts who came.
struct Server {
    port: u16,
    came: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

const BODY: &str = "hello from outside";

impl Server {
    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (came, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (came.clone(), open.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counters.0.fetch_add(1, Ordering::SeqCst);
                counters.1.fetch_add(1, Ordering::SeqCst);
                let open = counters.1.clone();
                tokio::spawn(async move {
                    let _ = serve(stream, manner, port).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { port, came, open }
    }

    fn at(&self, host: &str) -> String {
        format!("{host}:{}", self.port)
    }

    async fn wait_until_nobody_is_connected(&self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while self.open.load(Ordering::SeqCst) > 0 {
            assert!(tokio::time::Instant::now() < deadline, "a connection outlived its call");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn serve(mut stream: TcpStream, manner: Manner, port: u16) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    match manner {
        Manner::Endless => loop {
            stream.write_all(&buffer).await?;
        },
        Manner::Silent => while stream.read(&mut buffer).await? > 0 {},
        Manner::Http => {
            let mut seen = Vec::new();
            loop {
                let got = stream.read(&mut buffer).await?;
                if got == 0 {
                    return Ok(());
                }
                seen.extend_from_slice(&buffer[..got]);
                if !seen.ends_with(b"\r\n\r\n") {
                    continue;
                }
                let answer = if seen.starts_with(b"GET /away") {
                    format!(
                        "HTTP/1.1 302 Found\r\nlocation: http://evil.example.net:{port}/\r\ncontent-length: 0\r\n\r\n"
                    )
                } else {
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len())
                };
                seen.clear();
                stream.write_all(answer.as_bytes()).await?;
            }
        }
    }
    Ok(())
}

/// Fetches each URL of the event by the language's plain means; a failure is its name.
const FETCH_PY: &str = r#"
import urllib.request
def handler(urls, context):
    said = []
    for url in urls:
        try:
            with urllib.request.urlopen(url, timeout=15) as answer:
                said.append(answer.read().decode())
        except OSError as error:
            said.append(type(getattr(error, 'reason', error)).__name__)
    return said
"#;
const FETCH_JS: &str = r#"
export default async (urls) => {
    const said = [];
    for (const url of urls) {
        try { said.push(await (await fetch(url)).text()); } catch (error) { said.push(error.cause?.code ?? String(error)); }
    }
    return said;
};
"#;

/// Connects to each [host, port]; `reached` only if something comes back for a request.
const KNOCK_PY: &str = r#"
import socket
def handler(targets, context):
    reached = []
    for host, port in targets:
        try:
            with socket.create_connection((host, port), timeout=5) as sock:
                sock.sendall(b'GET / HTTP/1.1\r\n\r\n')
                if sock.recv(1):
                    reached.append([host, port])
        except OSError:
            pass
    return reached
"#;
const KNOCK_JS: &str = r#"
import net from 'node:net';
const knock = (host, port) => new Promise((done) => {
    const socket = net.connect(port, host, () => socket.write('GET / HTTP/1.1\r\n\r\n'));
    socket.on('data', () => { done(true); socket.destroy(); });
    socket.on('error', () => done(false));
    socket.on('close', () => done(false));
    socket.setTimeout(5000, () => { done(false); socket.destroy(); });
});
export default async (targets) => {
    const reached = [];
    for (const [host, port] of targets) if (await knock(host, port)) reached.push([host, port]);
    return reached;
};
"#;

fn in_both(python: &'static str, javascript: &'static str) -> [(Language, &'static str); 2] {
    [(Language::Python, python), (Language::JavaScript, javascript)]
}

/// Interpreters that this machine lacks are skipped, as in the conformance suite.
fn runs(jail: &Jail, language: Language) -> bool {
    let runs = jail.languages().contains(&language);
    if !runs {
        eprintln!("SKIPPED: no interpreter of {language} here");
    }
    runs
}

async fn names_on_the_list_are_reached(rootless: bool) {
    let jail = jail(rootless);
    for (language, source) in in_both(FETCH_PY, FETCH_JS) {
        if !runs(&jail, language) {
            continue;
        }
        let server = Server::start(Manner::Http).await;
        let allow = [
            server.at("api.example.com"),
            server.at("*.api.example.org"),
            server.at("127.0.0.1"),
        ];
        let mut function = Function::new(&jail, language, source, &allow).await;
        let urls =
            ["api.example.com", "deep.api.example.org", "127.0.0.1"].map(|host| format!("http://{}/", server.at(host)));
        let (said, logs) = function.output(serde_json::json!(urls)).await;
        assert_eq!(said, serde_json::json!([BODY, BODY, BODY]), "{language}: {logs}");
        assert!(logs.contains(&format!("[network] {}: allowed", allow[0])), "{logs}");
        // Once more, warm: what was pooled is gone, and nobody notices.
        let (said, _) = function.output(serde_json::json!(urls)).await;
        assert_eq!(said, serde_json::json!([BODY, BODY, BODY]), "{language}, warm");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_is_reached_and_kept_connections_are_renewed() {
    names_on_the_list_are_reached(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_is_reached_without_root() {
    names_on_the_list_are_reached(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_else_is_reached() {
    let jail = jail(false);
    for (language, source) in in_both(KNOCK_PY, KNOCK_JS) {
        if !runs(&jail, language) {
            continue;
        }
        let server = Server::start(Manner::Http).await;
        let other = Server::start(Manner::Http).await;
        let allow = [
            server.at("api.example.com"),
            server.at("inner.example.com"),
            server.at("metadata.example.com"),
        ];
        let mut function = Function::new(&jail, language, source, &allow).await;
        let targets = serde_json::json!([
            ["evil.example.net", server.port],
            ["example.com", server.port],
            ["inner.example.com", server.port],
            ["metadata.example.com", server.port],
            ["127.0.0.1", server.port],
            ["localhost", server.port],
            ["169.254.169.254", server.port],
            ["1.1.1.1", server.port],
            ["198.18.0.77", server.port],
            ["::1", server.port],
            ["api.example.com", other.port],
            ["127.0.0.1", other.port],
            ["127.0.0.1", 22],
        ]);
        let (reached, logs) = function.output(targets).await;
        assert_eq!(reached, serde_json::json!([]), "{language}: {logs}");
        assert_eq!(
            server.came.load(Ordering::SeqCst) + other.came.load(Ordering::SeqCst),
            0,
            "{logs}"
        );
        for line in [
            "evil.example.net: refused",
            "inner.example.com: refused",
            &format!("{}: refused", server.at("127.0.0.1")),
        ] {
            assert!(logs.contains(line), "{line} is missing in {logs}");
        }
        let (reached, _) = function
            .output(serde_json::json!([["api.example.com", server.port]]))
            .await;
        assert_eq!(
            reached,
            serde_json::json!([["api.example.com", server.port]]),
            "the listed one is"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_leads_nowhere_else() {
    let jail = jail(false);
    for (language, source) in in_both(FETCH_PY, FETCH_JS) {
        if !runs(&jail, language) {
            continue;
        }
        let server = Server::start(Manner::Http).await;
        let mut function = Function::new(&jail, language, source, &[server.at("api.example.com")]).await;
        let url = format!("http://{}/away", server.at("api.example.com"));
        let (said, logs) = function.output(serde_json::json!([url])).await;
        assert!(said[0] == "gaierror" || said[0] == "ENOTFOUND", "{said}: {logs}");
        assert!(logs.contains("evil.example.net: refused"), "{logs}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_moves_inside_is_refused_when_it_is_connected_to() {
    let jail = jail(false);
    let server = Server::start(Manner::Http).await;
    let allow = [server.at("moving.example.com")];
    let mut function = Function::new(&jail, Language::Python, KNOCK_PY, &allow).await;
    let (reached, logs) = function
        .output(serde_json::json!([["moving.example.com", server.port]]))
        .await;
    assert_eq!(reached, serde_json::json!([]), "{logs}");
    assert!(logs.contains(&format!("{}: refused", allow[0])), "{logs}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_its_call_and_none_is_made_between_calls() {
    let jail = jail(false);
    let server = Server::start(Manner::Silent).await;
    let source = r#"
import socket, threading, time
kept, ports = [], []
def again():
    for _ in range(400):
        for port in ports:
            try:
                socket.create_connection(('127.0.0.1', port), timeout=1)
            except OSError:
                pass
        time.sleep(0.005)
# From the module's import on: one that a call leaves behind would end its instance.
threading.Thread(target=again, daemon=True).start()
def handler(event, context):
    if event['open']:
        kept.append(socket.create_connection(('127.0.0.1', event['port'])))
        kept[0].sendall(b'held')
        ports.append(event['port'])
        return 'opened'
    try:
        kept[0].settimeout(5)
        return kept[0].recv(1).decode() or 'dead'
    except OSError:
        return 'dead'
"#;
    let mut function = Function::new(&jail, Language::Python, source, &[server.at("127.0.0.1")]).await;
    let event = |open: bool| serde_json::json!({"open": open, "port": server.port});
    assert_eq!(function.output(event(true)).await.0, "opened");
    server.wait_until_nobody_is_connected().await;
    let came = server.came.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        server.came.load(Ordering::SeqCst),
        came,
        "a thread got out between calls"
    );
    assert_eq!(function.output(event(false)).await.0, "dead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_counted_both_ways() {
    let jail = jail(false);
    let server = Server::start(Manner::Http).await;
    let source = r#"
import socket
def handler(port, context):
    with socket.create_connection(('127.0.0.1', port)) as sock:
        sock.sendall(b'GET /' + b'x' * 5000 + b'\r\n\r\n')
        return len(sock.recv(10000))
"#;
    let mut function = Function::new(&jail, Language::Python, source, &[server.at("127.0.0.1")]).await;
    let finished = function.call(serde_json::json!(server.port)).await;
    let Outcome::Returned(got) = &finished.outcome else {
        panic!("{finished:?}")
    };
    let got: u64 = serde_json::from_slice(got).unwrap();
    assert_eq!(finished.counters.egress_bytes, 5_009 + got, "{}", finished.logs.text);
    let quiet = function.call(serde_json::json!(1)).await;
    assert_eq!(quiet.counters.egress_bytes, 0, "a call counts for itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_peer_is_cut_at_the_limit_and_a_slow_one_by_the_timeout() {
    let jail = jail(false);
    let endless = Server::start(Manner::Endless).await;
    let source = r#"
import socket
def handler(port, context):
    got = 0
    with socket.create_connection(('127.0.0.1', port)) as sock:
        try:
            while chunk := sock.recv(65536):
                got += len(chunk)
        except OSError:
            pass
    return got
"#;
    let mut function = Function::new(&jail, Language::Python, source, &[endless.at("127.0.0.1")]).await;
    let finished = function.call(serde_json::json!(endless.port)).await;
    assert!(matches!(finished.outcome, Outcome::Returned(_)), "{finished:?}");
    let limit = function.limits.egress_bytes;
    let moved = finished.counters.egress_bytes;
    assert!(moved <= limit && moved > limit / 2, "{moved} of {limit}");
    assert!(
        finished.logs.text.contains("limit of network bytes is used up"),
        "{}",
        finished.logs.text
    );

    let silent = Server::start(Manner::Silent).await;
    let short = Limits {
        timeout_ms: 1_000,
        ..limits()
    };
    let mut function = load(&jail, Language::Python, source, &[silent.at("127.0.0.1")], short)
        .await
        .unwrap();
    let finished = function.call(serde_json::json!(silent.port)).await;
    assert_eq!(finished.outcome, Outcome::TimedOut, "{}", finished.logs.text);
    silent.wait_until_nobody_is_connected().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_bounded() {
    let jail = jail(false);
    let server = Server::start(Manner::Silent).await;
    let source = r#"
import socket
def handler(port, context):
    kept = []
    for _ in range(900):
        try:
            kept.append(socket.create_connection(('127.0.0.1', port), timeout=5))
        except OSError:
            pass
    return len(kept)
"#;
    let mut function = Function::new(&jail, Language::Python, source, &[server.at("127.0.0.1")]).await;
    let (_, logs) = function.output(serde_json::json!(server.port)).await;
    let came = server.came.load(Ordering::SeqCst);
    assert!((1..=64).contains(&came), "{came} connections got out: {logs}");
    assert!(logs.contains("too many connections"), "{logs}");
    server.wait_until_nobody_is_connected().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn module_level_code_reaches_nothing() {
    let jail = jail(false);
    let server = Server::start(Manner::Http).await;
    let source = format!(
        "import socket\ntry:\n    sock = socket.create_connection(('127.0.0.1', {}), timeout=5)\n    sock.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n')\n    said = sock.recv(1) != b''\nexcept OSError:\n    said = False\ndef handler(event, context):\n    return said\n",
        server.port
    );
    let mut function = Function::new(&jail, Language::Python, &source, &[server.at("127.0.0.1")]).await;
    assert_eq!(function.output(Value::Null).await.0, false);
    assert_eq!(server.came.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_plain_tcp_and_udp_sockets_are_made() {
    let jail = jail(false);
    let source = r#"
import socket
def handler(event, context):
    made = []
    for family, kind, protocol in event:
        try:
            socket.socket(family, kind, protocol).close()
            made.append([family, kind, protocol])
        except OSError:
            pass
    return made
"#;
    let mut function = Function::new(&jail, Language::Python, source, &["127.0.0.1:9".to_owned()]).await;
    let refused = [
        [2, 3, 1],
        [2, 3, 255],
        [2, 1, 132],
        [2, 5, 132],
        [2, 1, 262],
        [2, 2, 1],
        [10, 1, 0],
        [16, 3, 0],
        [17, 3, 0],
        [40, 1, 0],
    ];
    let (made, _) = function.output(serde_json::json!(refused)).await;
    assert_eq!(made, serde_json::json!([]));
    let plain = [[1, 1, 0], [2, 1, 0], [2, 1, 6], [2, 2, 0], [2, 2, 17]];
    let (made, _) = function.output(serde_json::json!(plain)).await;
    assert_eq!(made, serde_json::json!(plain));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_lets_nobody_out_says_so() {
    let shut = subject::jail(false);
    let source = "def handler(event, context):\n    return 1\n";
    let entry = |text: &str| [text.to_owned()];
    let refused = load(&shut, Language::Python, source, &entry("api.example.com:443"), limits()).await;
    assert!(matches!(refused, Err(LoadError::Unsupported { reason }) if reason.contains("no function that reaches")));
    let refused = load(&jail(false), Language::Python, source, &entry("10.0.0.1:443"), limits()).await;
    assert!(matches!(refused, Err(LoadError::Unsupported { reason }) if reason.contains("10.0.0.1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_of_the_machine_are_known_inside() {
    if !Path::new("/etc/ssl/certs/ca-certificates.crt").is_file() {
        eprintln!("SKIPPED: this machine has no certificates of authorities");
        return;
    }
    let jail = jail(false);
    let source = "import ssl\ndef handler(event, context):\n    return ssl.create_default_context().cert_store_stats()['x509_ca']\n";
    let mut function = Function::new(&jail, Language::Python, source, &["api.example.com:443".to_owned()]).await;
    assert!(function.output(Value::Null).await.0.as_u64().unwrap() > 10);
}
