//! A network is brought from one build to the next, process by process, while it is used.
//!
//! The old build is this one with its version lowered (`PIECEWORK_PRETEND_VERSION=1`): its peers take part in blocks by rules 1
//! alone. That shows that processes of both kinds run in one network, that each takes up the other's directory, and that no
//! call fails meanwhile. It does not show what a build of another source would say on the wire or leave on disk: for that,
//! `PIECEWORK_OLD` names the executable of an older build, which then takes the old one's place here, and the fixtures open
//! what older builds have left.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use piecework_model::Code;
use serde_json::{Value, json};

use crate::{
    machine::piecework,
    network::processes::{Devnet, WITHIN},
};

const CALLERS: u64 = 4;

/// The build before: see the module.
fn old() -> Command {
    let mut command = piecework();
    match std::env::var_os("PIECEWORK_OLD") {
        Some(path) => {
            let runtimes = concat!(env!("CARGO_MANIFEST_DIR"), "/../../runtimes/build");
            command = Command::new(path);
            command.env("PIECEWORK_RUNTIMES", runtimes);
        }
        None => drop(command.env("PIECEWORK_PRETEND_VERSION", "1")),
    }
    command
}

/// Calls without end, each with a key of its own. While nobody listens the same call is sent again, as any client does; an
/// answer that is none fails the test.
struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    callers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(url: &str, token: &str) -> Self {
        let (over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let callers = (0..CALLERS).map(|caller| {
            let request = Caller {
                http: reqwest::Client::new(),
                url: format!("{url}/execute/next"),
                token: token.to_owned(),
            };
            let (over, answered) = (over.clone(), answered.clone());
            tokio::spawn(async move {
                let mut number = caller;
                while !over.load(Ordering::Relaxed) {
                    request.call(number).await;
                    answered.fetch_add(1, Ordering::Relaxed);
                    number += CALLERS;
                    // What this machine's two or more cores do beside running eight processes.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        });
        Self {
            callers: callers.collect(),
            over,
            answered,
        }
    }

    /// Until so many more have been answered: what runs now is used, not only started.
    async fn more(&self, calls: u64) {
        let (wanted, deadline) = (self.answered.load(Ordering::Relaxed) + calls, Instant::now() + WITHIN);
        while self.answered.load(Ordering::Relaxed) < wanted {
            self.check();
            assert!(Instant::now() < deadline, "no calls are answered");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn check(&self) {
        assert!(
            !self.callers.iter().any(tokio::task::JoinHandle::is_finished),
            "a call failed"
        );
    }

    async fn end(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("no call failed");
        }
        self.answered.load(Ordering::Relaxed)
    }
}

struct Caller {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Caller {
    async fn call(&self, number: u64) {
        let deadline = Instant::now() + WITHIN;
        loop {
            let request = self.http.post(&self.url).bearer_auth(&self.token);
            let request = request.header("idempotency-key", format!("call-{number}"));
            match request.json(&json!({"input": {"n": number}})).send().await {
                Ok(response) => {
                    let status = response.status();
                    let body: Value = response.json().await.unwrap_or_default();
                    // On a busy machine a call can take longer than the stop waits, and the answer says to call again.
                    let is_stopping = body["error"]["code"] == Code::ServerStopping.as_str();
                    if is_stopping && Instant::now() < deadline {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                    assert_eq!(body["output"], json!(number + 1), "call {number}: {status}: {body}");
                    return;
                }
                // The controller is being replaced.
                Err(gone) => assert!(Instant::now() < deadline, "call {number}: {gone}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_upgraded_process_by_process_under_load_and_no_call_fails() {
    let mut network = Devnet::start_as(old(), 4, 2).await;
    let new = PathBuf::from(env!("CARGO_BIN_EXE_piecework"));
    let load = Load::start(&network.machine.url, &network.machine.token);
    load.more(20).await;
    for name in [
        "peer-1",
        "provider-1",
        "peer-2",
        "controller",
        "peer-3",
        "provider-2",
        "peer-4",
    ] {
        network.replace(name, &new).await;
        if name.starts_with("peer") {
            let other = if name == "peer-1" { "peer-2" } else { "peer-1" };
            let head = network.height(other).await.expect("it answers");
            network.reach(name, head + 1).await;
        }
        load.more(20).await;
    }
    network.agree().await;
    let calls = load.end().await;
    assert!(calls > 100, "only {calls} calls");
    let job = network.count(7).await;
    network.all_paid(&[job]).await;
    switch_is_voted(&network, &new).await;
}

/// All run the new build: its rules can be voted for, by the owners' command.
async fn switch_is_voted(network: &Devnet, program: &Path) {
    let from = "1000000";
    for (peer, said) in [
        ("peer-1", "more votes are needed"),
        ("peer-2", "more votes are needed"),
        ("peer-3", "blocks from 1000000 on are made by the rules 2"),
    ] {
        let mut command = Command::new(program);
        command.args(["peer", "propose", "rules", "2", "--from", from, "--data"]);
        let output = command.arg(network.directory(peer)).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains(said), "{peer}: {text}");
    }
    let status = network.look("peer-4", "/ledger/status").await.expect("it answers");
    let expected = json!({"number": 1, "next": {"number": 2, "from_height": 1_000_000}});
    let deadline = Instant::now() + WITHIN;
    let mut rules = status["rules"].clone();
    while rules != expected {
        assert!(Instant::now() < deadline, "{rules}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        rules = network.look("peer-4", "/ledger/status").await.expect("it answers")["rules"].clone();
    }
    let mut command = Command::new(program);
    command.args(["peer", "propose", "rules", "9", "--from", from, "--data"]);
    let output = command.arg(network.directory("peer-1")).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("this program knows the rules up to 2"), "{text}");
    command.arg("--untested");
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(Code::RulesNotNext.as_str()), "{text}");
}
