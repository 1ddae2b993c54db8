//! Behind nginx and Caddy, configured as docs/installing.md says.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use piecework_loopback::free_addresses;
use serde_json::{Value, json};

use crate::machine::{Machine, skipped};

const WITHIN: Duration = Duration::from_secs(60);
/// More than nginx takes by default.
const LARGE: usize = 3 << 20;

/// The only block of this language in the guide.
fn snippet(language: &str) -> String {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/installing.md");
    let text = fs::read_to_string(guide).expect("the guide");
    let (_, rest) = text.split_once(&format!("```{language}\n")).expect("a block");
    rest.split_once("```").expect("it ends").0.to_owned()
}

/// Ends with the test.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let told = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        assert!(told.expect("kill is there").success());
        self.0.wait().expect("it ends");
    }
}

impl Proxy {
    fn start(mut command: Command, port: u16) -> Self {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut proxy = Self(child);
        let deadline = Instant::now() + WITHIN;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(proxy.0.try_wait().expect("asked").is_none(), "it ended by itself");
            assert!(Instant::now() < deadline, "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        proxy
    }
}

fn program(names: &[&'static str]) -> Option<&'static str> {
    names
        .iter()
        .copied()
        .find(|name| Command::new(name).arg("-v").output().is_ok())
}

fn nginx(folder: &Path, machine: &str, port: u16) -> Option<Proxy> {
    let program = program(&["nginx", "/usr/sbin/nginx"])?;
    let server = snippet("nginx")
        .replace("listen 443 ssl;", &format!("listen 127.0.0.1:{port};"))
        .replace(
            "server_name piecework.example.org *.fn.piecework.example.org;",
            "server_name _;",
        )
        .replace("127.0.0.1:7433", machine);
    let server: String = server
        .lines()
        .filter(|line| !line.trim().starts_with("ssl_"))
        .map(|line| format!("{line}\n"))
        .collect();
    let at = |name: &str| folder.join(name).display().to_string();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", at(kind)))
        .concat();
    let text = format!(
        "user root;\npid {};\nerror_log {};\ndaemon off;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{server}}}\n",
        at("pid"),
        at("errors")
    );
    let config = folder.join("nginx.conf");
    fs::write(&config, text).expect("written");
    let mut command = Command::new(program);
    command.arg("-c").arg(&config).arg("-e").arg(at("errors"));
    Some(Proxy::start(command, port))
}

fn caddy(folder: &Path, machine: &str, port: u16) -> Option<Proxy> {
    let program = Command::new("caddy").arg("version").output().ok().map(|_| "caddy")?;
    let site = snippet("caddy")
        .replace("piecework.example.org", &format!("http://127.0.0.1:{port}"))
        .replace("127.0.0.1:7433", machine);
    let config = folder.join("Caddyfile");
    fs::write(&config, format!("{{\n    admin off\n    grace_period 1s\n}}\n{site}")).expect("written");
    let mut command = Command::new(program);
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&config);
    command
        .env("HOME", folder)
        .env("XDG_DATA_HOME", folder)
        .env("XDG_CONFIG_HOME", folder);
    Some(Proxy::start(command, port))
}

const ECHO: &str = "def handler(event, context):\n    \
                    return {'client': event.get('client'), 'path': event.get('path'), 'size': len(event.get('body') or '')}\n";

struct Through {
    base: String,
    token: String,
    client: reqwest::Client,
}

impl Through {
    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token)
    }

    /// Of a caller at an address of its own, however it calls.
    async fn event(&self) -> Value {
        let body = "x".repeat(LARGE);
        let sent = self
            .request(reqwest::Method::POST, "/fn/operator/echo/a%2Fb")
            .body(body)
            .send()
            .await;
        let answer = sent.expect("it answers");
        let status = answer.status();
        let text = answer.text().await.expect("text");
        assert!(status.is_success(), "{status}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// An event comes through while the stream is open.
    async fn streams(&self, machine: &Machine) {
        let mut events = self
            .request(reqwest::Method::GET, "/events")
            .send()
            .await
            .expect("a stream");
        machine.call("echo", json!({})).await.ok();
        let mut text = String::new();
        while !text.contains("data:") {
            let part = tokio::time::timeout(WITHIN, events.chunk())
                .await
                .expect("it comes as it is sent");
            text += &String::from_utf8_lossy(&part.expect("it goes on").expect("it does not end"));
        }
    }
}

/// What a provider's link begins with.
fn upgrades(port: u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(WITHIN)).expect("set");
    let request = format!(
        "GET /link HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 101");
}

async fn behind(name: &str, start: impl FnOnce(&Path, &str, u16) -> Option<Proxy>) {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_addresses(1).expect("a port")[0].port();
    let machine = Machine::start_with(&folder.path().join("data"), &["--proxy", "127.0.0.1"]);
    let Some(_proxy) = start(folder.path(), machine.url.trim_start_matches("http://"), port) else {
        assert!(std::env::var_os("CI").is_none(), "in CI {name} is installed");
        return skipped(&format!("{name} is missing"));
    };
    machine.deploy("echo", "python", ECHO).await;
    let builder = reqwest::Client::builder().local_address(Some([127, 0, 0, 2].into()));
    let through = Through {
        base: format!("http://127.0.0.1:{port}"),
        token: machine.token.clone(),
        client: builder.build().expect("a client"),
    };
    let event = through.event().await;
    assert_eq!(event["client"]["address"], "127.0.0.2", "{event}");
    assert_eq!(event["size"], LARGE, "{event}");
    through.streams(&machine).await;
    upgrades(port);
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_as_in_the_guide_passes_everything_on() {
    behind("nginx", nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_as_in_the_guide_passes_everything_on() {
    behind("caddy", caddy).await;
}
