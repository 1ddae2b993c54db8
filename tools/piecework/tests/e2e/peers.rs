//! Ledger peers and a controller from the command line: founding, joining, voting, settings.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
    time::{Duration, Instant},
};

use piecework_model::Code;
use serde_json::Value;

use crate::{machine, providers::until};

/// Longer than anything takes on a busy machine.
const WITHIN: Duration = Duration::from_secs(120);

fn run(arguments: &[&str]) -> Output {
    let mut command = machine::piecework();
    command.args(arguments).output().expect("it runs")
}

#[track_caller]
pub fn done(arguments: &[&str]) -> String {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn refused(arguments: &[&str], code: i32, said: &str) {
    let output = run(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(said), "{arguments:?}: {text}");
}

/// Below the ports of outgoing connections: it is still free when the peer that has it starts again.
fn free_address() -> String {
    let mut tried = (0..1_000).map(|_| rand::random_range(10_000..30_000));
    let listener = tried.find_map(|port: u16| TcpListener::bind(("127.0.0.1", port)).ok());
    let address = listener.expect("a free port").local_addr();
    address.expect("an address").to_string()
}

/// One peer's directory and its running process.
pub struct Peer {
    data: PathBuf,
    card: PathBuf,
    pub api: String,
    child: Option<Child>,
}

impl Peer {
    pub fn init(folder: &Path, owner: &str) -> Self {
        let data = folder.join(owner);
        let (listen, api) = (free_address(), free_address());
        let arguments = [
            "--owner",
            owner,
            "--address",
            &listen,
            "--listen",
            &listen,
            "--api",
            &api,
        ];
        let mut all = vec!["peer", "init", "--data", data.to_str().expect("UTF-8")];
        all.extend(arguments);
        let printed = done(&all);
        let card = folder.join(format!("{owner}.json"));
        fs::write(&card, printed).expect("written");
        // Blocks that come fast: an epoch is over in seconds.
        let settings = data.join("peer.toml");
        let text = fs::read_to_string(&settings).expect("settings");
        fs::write(&settings, text.replace("heartbeat_ms = 1000", "heartbeat_ms = 50")).expect("written");
        Self {
            data,
            card,
            api: format!("http://{api}"),
            child: None,
        }
    }

    /// Before it runs: one of its settings is another.
    pub fn set(&self, setting: &str, other: &str) {
        let path = self.data.join("peer.toml");
        let text = fs::read_to_string(&path).expect("settings");
        assert!(text.contains(setting), "{text}");
        fs::write(&path, text.replace(setting, other)).expect("written");
    }

    fn data(&self) -> &str {
        self.data.to_str().expect("UTF-8")
    }

    pub fn run(&mut self) {
        let mut child = machine::piecework()
            .args(["peer", "run", "--data", self.data()])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.next().and_then(Result::ok).unwrap_or_default();
        self.child = Some(child);
        assert_eq!(line, format!("ready {}", self.api));
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = reqwest::get(format!("{}{path}", self.api)).await.expect("it answers");
        answer.json().await.expect("JSON")
    }

    async fn height(&self) -> u64 {
        self.get("/ledger/status").await["height"].as_u64().expect("a height")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn found(folder: &Path, founders: &mut [&mut Peer]) -> String {
    found_with(folder, founders, &[])
}

/// With more options of `peer genesis`.
pub fn found_with(folder: &Path, founders: &mut [&mut Peer], more: &[&str]) -> String {
    let genesis = folder.join("genesis.json");
    let genesis = genesis.to_str().expect("UTF-8").to_owned();
    let mut arguments = vec![
        "peer", "genesis", "--name", "test", "--epoch", "20", "--output", &genesis,
    ];
    arguments.extend(more);
    arguments.extend(founders.iter().map(|peer| peer.card.to_str().expect("UTF-8")));
    done(&arguments);
    for peer in founders {
        done(&["peer", "join", &genesis, "--data", peer.data()]);
    }
    genesis
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_joins_a_running_network_by_vote_votes_and_is_taken_out() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().expect("a folder");
    let (mut ada, mut bob) = (Peer::init(folder.path(), "ada"), Peer::init(folder.path(), "bob"));
    found(folder.path(), &mut [&mut ada]);
    ada.run();
    let network = ada.get("/ledger/status").await["network"]
        .as_str()
        .expect("an id")
        .to_owned();

    // Whom does one trust: the id has to be said.
    refused(&["peer", "join", &ada.api, "--data", bob.data()], 2, &network);
    let elsewhere = "0".repeat(64);
    refused(
        &["peer", "join", &ada.api, "--network", &elsewhere, "--data", bob.data()],
        2,
        "not of",
    );
    refused(
        &[
            "peer",
            "propose",
            "add",
            bob.card.to_str().expect("UTF-8"),
            "--data",
            ada.data(),
        ],
        2,
        Code::CardNoRequest.as_str(),
    );
    let request = done(&["peer", "join", &ada.api, "--network", &network, "--data", bob.data()]);
    fs::write(&bob.card, request).expect("written");
    let card = bob.card.to_str().expect("UTF-8").to_owned();
    let carried = done(&["peer", "propose", "add", &card, "--data", ada.data()]);
    assert!(carried.contains("carried"), "{carried}");
    bob.run();

    let deadline = Instant::now() + WITHIN;
    loop {
        let status = bob.get("/ledger/status").await;
        let seated = status["peer_count"] == 2 && bob.height().await > 40;
        if seated && bob.height().await + 2 >= ada.height().await {
            break;
        }
        assert!(Instant::now() < deadline, "never seated: {status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // One of two is not more than two thirds.
    let voted = done(&["peer", "propose", "params", "window_blocks=77", "--data", bob.data()]);
    assert!(voted.contains("more votes"), "{voted}");
    // A block that one has made final reaches the other a moment later.
    until("the other lists it", async || {
        let listed = done(&["peer", "proposals", "--data", ada.data()]);
        (listed.contains("77") && listed.contains("1 of 2")).then_some(())
    })
    .await;
    let carried = done(&["peer", "vote", "bob", "--data", ada.data()]);
    assert!(carried.contains("carried"), "{carried}");
    until("the other has the new parameters", async || {
        (bob.get("/ledger/params").await["window_blocks"] == 77).then_some(())
    })
    .await;
    refused(
        &["peer", "vote", "bob", "--data", ada.data()],
        3,
        Code::ProposalUnknown.as_str(),
    );
    refused(
        &["peer", "propose", "params", "epoch_blocks=9", "--data", ada.data()],
        3,
        "params",
    );

    // Out again: the set without it holds from the epoch after the next.
    let card: Value = serde_json::from_str(&fs::read_to_string(&card).expect("there")).expect("a card");
    let key = card["peer_key"].as_str().expect("a key");
    let voted = done(&["peer", "propose", "remove", key, "--data", ada.data()]);
    assert!(voted.contains("more votes"), "{voted}");
    let carried = done(&["peer", "propose", "remove", key, "--data", bob.data()]);
    assert!(carried.contains("carried"), "{carried}");
    let deadline = Instant::now() + WITHIN;
    while ada.get("/ledger/status").await["peer_count"] != 1 {
        assert!(Instant::now() < deadline, "it is never taken out");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let head = ada.height().await;
    while ada.height().await < head + 3 {
        assert!(Instant::now() < deadline, "the ledger stands still without it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn what_is_wrong_with_settings_or_files_is_said_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ada = Peer::init(folder.path(), "ada");
    refused(&["peer", "run", "--data", ada.data()], 2, "peer join");
    let genesis = found(folder.path(), &mut [&mut ada]);
    done(&["peer", "join", &genesis, "--data", ada.data()]);
    let other = fs::read_to_string(&genesis)
        .expect("there")
        .replace("\"test\"", "\"other\"");
    let other_file = folder.path().join("other.json");
    fs::write(&other_file, other).expect("written");
    let other = other_file.to_str().expect("UTF-8");
    refused(
        &["peer", "join", other, "--data", ada.data()],
        2,
        "use one directory per network",
    );

    let shown = done(&["peer", "config", "show", "--data", ada.data()]);
    assert!(shown.contains("transactions_per_s"), "the defaults too: {shown}");
    let settings = ada.data.join("peer.toml");
    let text = fs::read_to_string(&settings).expect("settings");
    fs::write(&settings, format!("hartbeat = 1\n{text}")).expect("written");
    refused(&["peer", "run", "--data", ada.data()], 2, "hartbeat");
    fs::write(&settings, text.replace("heartbeat_ms = 50", "heartbeat_ms = 1")).expect("written");
    refused(&["peer", "config", "show", "--data", ada.data()], 2, "heartbeat_ms");

    let controller = folder.path().join("controller");
    let data = controller.to_str().expect("UTF-8");
    let nobody = format!("http://{}", free_address());
    refused(&["controller", "init", "--peer", "nowhere", "--data", data], 2, "peers");
    let accounts = done(&[
        "controller",
        "init",
        "--peer",
        &nobody,
        "--data",
        data,
        "--listen",
        "127.0.0.1:0",
    ]);
    assert!(accounts.starts_with("operator="), "{accounts}");
    refused(&["controller", "run", "--data", data], 2, "genesis.json");
    let shown = done(&["controller", "config", "show", "--data", data]);
    assert!(shown.contains(&nobody) && shown.contains("retention_days"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_does_not_take_the_ledger_of_another_network_for_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ada = Peer::init(folder.path(), "ada");
    let genesis = found(folder.path(), &mut [&mut ada]);
    ada.run();
    let other = fs::read_to_string(genesis)
        .expect("there")
        .replace("\"test\"", "\"other\"");
    let other_file = folder.path().join("other.json");
    fs::write(&other_file, other).expect("written");
    let controller = folder.path().join("controller");
    let data = controller.to_str().expect("UTF-8");
    let other = other_file.to_str().expect("UTF-8");
    done(&[
        "controller",
        "init",
        "--peer",
        &ada.api,
        "--genesis",
        other,
        "--data",
        data,
        "--listen",
        "127.0.0.1:0",
    ]);
    refused(&["controller", "run", "--data", data], 2, "another network");
}
