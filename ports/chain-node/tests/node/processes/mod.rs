//! Peers as processes of their own, which can be killed: the test binary runs itself, and talks to it line by line.
//!
//! To the child: `ID COMMAND ARGUMENTS`; from it: `@ ID ANSWER`, in any order, and `@ started` or `@ failed CODE SENTENCE`.

#![allow(dead_code, clippy::unwrap_used)]

use std::{
    collections::HashMap,
    env,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use piecework_chain::{Chain, SubmitError};
use piecework_chain_node::{Options, start};
use piecework_ledger::{Genesis, GenesisPeer};
use piecework_model::Digest;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    sync::{oneshot, watch},
};

use crate::network::*;

const SETTINGS: &str = "PIECEWORK_TEST_PEER";
pub const ACCOUNTS: u8 = 8;
/// For what takes milliseconds on a quiet machine.
pub const LONG: Duration = Duration::from_secs(60);

// The child.

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n@ {line}").unwrap();
    out.flush().unwrap();
}

/// What a process is told: its directory, its key's number, whether it joins, where it listens, the genesis' addresses.
fn settings() -> Options {
    let settings = env::var(SETTINGS).expect("started by another test");
    let fields: Vec<&str> = settings.split('|').collect();
    let addresses: Vec<SocketAddr> = fields[4].split(',').map(|address| address.parse().unwrap()).collect();
    let mut genesis = genesis(ACCOUNTS, &addresses);
    genesis.params.epoch_blocks = fields[5].parse().unwrap();
    let key = peer_key(fields[1].parse().unwrap());
    let mut options = Options::new(PathBuf::from(fields[0]), genesis, key, fields[3].parse().unwrap());
    options.joins = fields[2] == "joins";
    options.heartbeat = Duration::from_millis(200);
    options.worker_threads = 1;
    options
}

#[tokio::test]
#[ignore = "a peer of the other tests"]
async fn peer_process() {
    if env::var_os("PIECEWORK_TEST_LOG").is_some() {
        tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    }
    let node = match start(settings()).await {
        Ok(node) => node,
        Err(failure) => return say(&format!("failed {} {failure}", failure.code())),
    };
    say("started");
    let chain = node.chain();
    let serve = async {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let chain = chain.clone();
            tokio::spawn(async move {
                let (id, command) = line.split_once(' ').unwrap();
                say(&format!("{id} {}", answer(&*chain, command).await));
            });
        }
    };
    tokio::select! {
        () = serve => {}
        failure = node.failed() => say(&format!("failed {} {failure}", failure.code())),
    }
}

async fn answer(chain: &dyn Chain, command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    match words[0] {
        "status" => {
            let status = chain.status();
            format!("{} {} {}", status.height, status.peers, status.queued)
        }
        "block" => match chain.block(number(1)).await {
            Ok(Some(block)) => format!("{} {} {}", block.digest, block.state_root, block.certificate.len()),
            Ok(None) => "none".to_owned(),
            Err(failure) => format!("failed {}", failure.code()),
        },
        "balance" => {
            let account = balance(chain, number(1) as u8).await;
            format!("{} {}", account.posted.0, account.nonce)
        }
        "transfer" => {
            let sent = transfer(&chain.network(), number(1) as u8, number(2), number(3) as u8, 1);
            outcome(chain.submit_and_wait(sent).await)
        }
        "transaction" => {
            let bytes: Vec<u8> = (0..words[1].len() / 2)
                .map(|at| u8::from_str_radix(&words[1][2 * at..2 * at + 2], 16).unwrap())
                .collect();
            outcome(chain.submit_and_wait(borsh::from_slice(&bytes).unwrap()).await)
        }
        "memory" => {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        }
        other => panic!("no command {other}"),
    }
}

fn outcome(result: Result<piecework_chain::Final, SubmitError>) -> String {
    match result {
        Ok(done) => format!("final {} {}", done.height, done.index),
        Err(SubmitError::Rejected(rejection)) => format!("rejected {}", rejection.code),
        Err(SubmitError::Failed(failure)) => format!("failed {}", failure.code()),
    }
}

// The parent.

/// A network of processes on this machine.
pub struct Network {
    pub genesis: Genesis,
    pub addresses: Vec<SocketAddr>,
    pub directories: Vec<TempDir>,
    pub epoch_blocks: u32,
    /// What each process is run under: `ip netns exec NAME`.
    pub wrappers: Vec<Vec<String>>,
    founders: usize,
}

/// Free addresses; all are held until all are known.
pub fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind(any_port()).unwrap()).collect();
    let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap());
    addresses.collect()
}

impl Network {
    pub fn new(founders: usize) -> Self {
        Self::at(free_addresses(founders), founders, 20)
    }

    /// The first `founders` are in the genesis, the others may join.
    pub fn at(addresses: Vec<SocketAddr>, founders: usize, epoch_blocks: u32) -> Self {
        let mut genesis = genesis(ACCOUNTS, &addresses[..founders]);
        genesis.params.epoch_blocks = epoch_blocks;
        Self {
            genesis,
            directories: addresses.iter().map(|_| tempfile::tempdir().unwrap()).collect(),
            wrappers: vec![Vec::new(); addresses.len()],
            addresses,
            epoch_blocks,
            founders,
        }
    }

    pub fn peer(&self, number: usize) -> GenesisPeer {
        GenesisPeer {
            key: peer_key(number as u8).public(),
            owner: "account-0".parse().unwrap(),
            address: self.addresses[number].to_string(),
        }
    }

    pub fn directory(&self, number: usize) -> &Path {
        self.directories[number].path()
    }

    pub async fn start(&self, number: usize) -> Peer {
        let peer = self.spawn(number);
        let started = peer.event().await;
        assert_eq!(started, "started", "peer {number}");
        peer
    }

    pub async fn start_all(&self) -> Vec<Peer> {
        futures::future::join_all((0..self.founders).map(|number| self.start(number))).await
    }

    pub fn spawn(&self, number: usize) -> Peer {
        let founders: Vec<String> = self.addresses[..self.founders]
            .iter()
            .map(ToString::to_string)
            .collect();
        let joins = if number < self.founders { "member" } else { "joins" };
        let settings = format!(
            "{}|{number}|{joins}|{}|{}|{}",
            self.directory(number).display(),
            self.addresses[number],
            founders.join(","),
            self.epoch_blocks
        );
        let binary = env::current_exe().unwrap();
        let mut command = match self.wrappers[number].split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        let errors = match env::var_os("PIECEWORK_TEST_LOG") {
            Some(directory) => {
                let path = Path::new(&directory).join(format!("peer-{number}.log"));
                Stdio::from(std::fs::File::options().create(true).append(true).open(path).unwrap())
            }
            None => Stdio::null(),
        };
        command
            .args(["--exact", "processes::peer_process", "--ignored", "--nocapture"])
            .env(SETTINGS, settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true);
        Peer::new(command.spawn().unwrap())
    }
}

type Answers = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<String>>>>>;

/// A peer's process. Dropping it kills it.
pub struct Peer {
    child: tokio::sync::Mutex<Child>,
    stdin: tokio::sync::Mutex<ChildStdin>,
    answers: Answers,
    /// `started` or `failed ..`.
    events: watch::Receiver<String>,
    next: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub height: u64,
    pub peers: u32,
    pub queued: u32,
}

impl Peer {
    fn new(mut child: Child) -> Self {
        let answers: Answers = Arc::new(Mutex::new(Some(HashMap::new())));
        let (event, events) = watch::channel(String::new());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let waiting = answers.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let Some((_, said)) = line.split_once("@ ") else {
                    continue;
                };
                match said.split_once(' ').map(|(id, answer)| (id.parse::<u64>(), answer)) {
                    Some((Ok(id), answer)) => {
                        let waiter = waiting.lock().as_mut().and_then(|waiting| waiting.remove(&id));
                        let _ = waiter.map(|waiter| waiter.send(answer.to_owned()));
                    }
                    Some((Err(_), _)) | None => {
                        event.send_replace(said.to_owned());
                    }
                }
            }
            waiting.lock().take();
        });
        Self {
            stdin: tokio::sync::Mutex::new(child.stdin.take().unwrap()),
            child: tokio::sync::Mutex::new(child),
            answers,
            events,
            next: AtomicU64::new(0),
        }
    }

    /// What it said of itself last: `started`, `failed CODE ..`, or `gone` once it ended in silence.
    pub async fn event(&self) -> String {
        let mut events = self.events.clone();
        let event = tokio::time::timeout(LONG, events.wait_for(|event| !event.is_empty())).await;
        match event.expect("a peer says how it starts") {
            Ok(event) => event.clone(),
            Err(_) => "gone".to_owned(),
        }
    }

    pub async fn failure(&self) -> String {
        let mut events = self.events.clone();
        let event = tokio::time::timeout(LONG, events.wait_for(|event| event.starts_with("failed"))).await;
        event.expect("the peer fails").expect("the peer says why").clone()
    }

    /// `None` once the process has gone.
    pub async fn ask(&self, command: &str) -> Option<String> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.answers.lock().as_mut()?.insert(id, sender);
        let line = format!("{id} {command}\n");
        self.stdin.lock().await.write_all(line.as_bytes()).await.ok()?;
        answer.await.ok()
    }

    pub async fn status(&self) -> Status {
        let text = self.ask("status").await.expect("the peer runs");
        let mut numbers = text.split(' ').map(|number| number.parse::<u64>().unwrap());
        Status {
            height: numbers.next().unwrap(),
            peers: numbers.next().unwrap() as u32,
            queued: numbers.next().unwrap() as u32,
        }
    }

    pub async fn block(&self, height: u64) -> Option<(Digest, Digest)> {
        let text = self.ask(&format!("block {height}")).await?;
        let mut words = text.split(' ');
        let digest = words.next()?.parse().ok()?;
        Some((digest, words.next()?.parse().ok()?))
    }

    /// (posted, nonce)
    pub async fn balance(&self, number: u8) -> (i128, u64) {
        let text = self.ask(&format!("balance {number}")).await.expect("the peer runs");
        let (posted, nonce) = text.split_once(' ').unwrap();
        (posted.parse().unwrap(), nonce.parse().unwrap())
    }

    /// The height at which a transfer of 1 ucr became final; `None` when the process is gone.
    pub async fn transfer(&self, from: u8, nonce: u64, to: u8) -> Option<u64> {
        let text = self.ask(&format!("transfer {from} {nonce} {to}")).await?;
        let (word, rest) = text.split_once(' ').unwrap();
        assert_eq!(word, "final", "{text}");
        rest.split(' ').next()?.parse().ok()
    }

    /// SIGKILL, and waits until the process is gone.
    pub async fn kill(&self) {
        self.child.lock().await.kill().await.unwrap();
    }

    pub async fn reach(&self, height: u64) -> Duration {
        let started = Instant::now();
        while self.status().await.height < height {
            assert!(
                started.elapsed() < LONG,
                "still at {:?}, not at {height}",
                self.status().await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        started.elapsed()
    }
}

/// Whether all peers have the same blocks and states up to the lowest of their heads; returns that height.
pub async fn agree(peers: &[&Peer]) -> u64 {
    let mut lowest = u64::MAX;
    for peer in peers {
        lowest = lowest.min(peer.status().await.height);
    }
    for height in 1..=lowest {
        let first = peers[0].block(height).await;
        assert!(first.is_some(), "block {height} is gone");
        for peer in &peers[1..] {
            assert_eq!(peer.block(height).await, first, "block {height}");
        }
    }
    lowest
}

/// Prints why a test cannot run here; in CI that is a failure.
pub fn skip(reason: &str) {
    println!("SKIPPED: {reason}");
    assert!(env::var_os("CI").is_none(), "CI must be able to run this: {reason}");
}
