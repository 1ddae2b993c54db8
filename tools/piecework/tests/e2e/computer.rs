//! A computer that joins from elsewhere for a test: `piecework provide` as a process; and a wire that can be cut.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
};

use crate::machine::{self, Machine};

pub struct Computer {
    child: Child,
    pub name: String,
}

/// `piecework provide`, as it is typed.
pub fn provide(directory: &Path, controller: &str, name: &str, more: &[&str]) -> Command {
    let mut command = machine::piecework();
    command
        .args(["provide", "--controller", controller, "--name", name, "--data"])
        .arg(directory)
        .args(more);
    command
}

impl Computer {
    /// Starts it and waits until jobs may come.
    pub fn start(directory: &Path, controller: &str, name: &str, more: &[&str]) -> Self {
        Self::ready(provide(directory, controller, name, more))
    }

    /// Waits for the line `ready NAME`.
    pub fn ready(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines
            .next()
            .and_then(Result::ok)
            .unwrap_or_else(|| panic!("`provide` ended: {:?}", child.wait()));
        let name = line
            .strip_prefix("ready ")
            .unwrap_or_else(|| panic!("not a ready line: {line}"))
            .to_owned();
        Self { child, name }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; whether it ended cleanly.
    pub fn stop(mut self) -> bool {
        self.signal("-TERM");
        self.child.wait().expect("it ends").success()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("kill is there").success());
    }
}

impl Drop for Computer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs it until it says this on standard error; the line in which it does.
pub async fn says(mut command: Command, what: &'static str) -> String {
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let said = tokio::task::spawn_blocking(move || lines.map_while(Result::ok).find(|line| line.contains(what)));
    let said = tokio::time::timeout(machine::SETTLED_WITHIN, said).await;
    let _ = child.kill();
    let _ = child.wait();
    let line = said.expect("in time").expect("no panic");
    line.unwrap_or_else(|| panic!("it never says: {what}"))
}

/// An invite with which one computer joins.
pub async fn invite(machine: &Machine) -> String {
    let body = json!({"roles": ["provider"]});
    let invite = machine.ask(Method::POST, "/invites", Some(body)).await.ok();
    invite["code"].as_str().expect("a code").to_owned()
}

/// What `GET /providers` says of one.
pub async fn provider(machine: &Machine, name: &str) -> Value {
    let list = machine.get("/providers").await.ok();
    let mut items = list["items"].as_array().expect("a list").iter();
    items
        .find(|provider| provider["name"] == name)
        .cloned()
        .unwrap_or_default()
}

/// A relay between a computer and its controller.
pub struct Cable {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    to: Mutex<SocketAddr>,
    /// Nothing passes, and nobody is told.
    cut: AtomicBool,
    /// Bytes that will be flipped, one in each chunk that passes.
    flips: AtomicU64,
}

impl Cable {
    pub async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let state = Arc::new(State {
            to: Mutex::new(address_of(url)),
            cut: AtomicBool::new(false),
            flips: AtomicU64::new(0),
        });
        let address = listener.local_addr().expect("bound");
        tokio::spawn(relay(listener, state.clone()));
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where the controller is now.
    pub fn lead_to(&self, url: &str) {
        *self.state.to.lock().expect("no panics") = address_of(url);
    }

    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
    }

    pub fn mend(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
    }

    /// Alters what passes next, in as many chunks.
    pub fn flip(&self, chunks: u64) {
        self.state.flips.store(chunks, Ordering::SeqCst);
    }
}

fn address_of(url: &str) -> SocketAddr {
    let address = url.strip_prefix("http://").expect("plain HTTP");
    address.parse().expect("an address and a port")
}

async fn relay(listener: TcpListener, state: Arc<State>) {
    while let Ok((near, _)) = listener.accept().await {
        let state = state.clone();
        tokio::spawn(async move {
            whole(&state).await;
            let to = *state.to.lock().expect("no panics");
            let Ok(far) = TcpStream::connect(to).await else { return };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::select! {
                () = pass(near_in, far_out, &state) => {}
                () = pass(far_in, near_out, &state) => {}
            }
        });
    }
}

/// Returns when the cable is whole.
async fn whole(state: &State) {
    while state.cut.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn pass(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, state: &State) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        whole(state).await;
        let flips = state
            .flips
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if flips.is_ok() {
            buffer[read - 1] ^= 0x10;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
