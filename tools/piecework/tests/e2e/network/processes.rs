//! A devnet for a test: its processes, one by one killed, looked into and started again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::machine::Machine;

/// Longer than anything takes on a busy machine.
pub const WITHIN: Duration = Duration::from_secs(120);
const HELLO: &str = "def handler(event, context):\n    return event['n'] + 1\n";

/// `piecework` with these arguments, to its end.
pub fn piecework(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_piecework"));
    command.args(arguments).output().expect("it runs")
}

/// A devnet on a directory of its own, with the function `next` deployed.
pub struct Devnet {
    pub machine: Machine,
    again: BTreeMap<String, Again>,
    listed: Vec<Process>,
    http: reqwest::Client,
    /// Removed after all that use it have ended.
    folder: TempDir,
}

/// A line of `processes.json`.
#[derive(Clone, Debug)]
pub struct Process {
    pub name: String,
    pub pid: u32,
    pub url: Option<String>,
    pub command: String,
}

impl Devnet {
    pub async fn start(peers: u16, providers: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let devnet = Self::on(folder, peers, providers);
        devnet.machine.deploy("next", "python", HELLO).await;
        devnet.count(0).await;
        devnet
    }

    /// With another program or environment, which all of its processes have.
    pub async fn start_as(command: Command, peers: u16, providers: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = Machine::devnet_of(command, folder.path(), peers, providers);
        let devnet = Self::of(machine, folder, usize::from(peers + 1 + providers));
        devnet.machine.deploy("next", "python", HELLO).await;
        devnet.count(0).await;
        devnet
    }

    fn on(folder: TempDir, peers: u16, providers: u16) -> Self {
        let machine = Machine::devnet(folder.path(), peers, providers);
        Self::of(machine, folder, usize::from(peers + 1 + providers))
    }

    fn of(machine: Machine, folder: TempDir, count: usize) -> Self {
        let listed = processes(folder.path());
        assert_eq!(listed.len(), count, "{listed:?}");
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5));
        Self {
            machine,
            folder,
            listed,
            again: BTreeMap::new(),
            http: http.build().expect("a client"),
        }
    }

    /// SIGKILL to the process that keeps all others; then a new start on the same directory.
    pub async fn kill_all_and_restart(self) -> Self {
        let Self {
            mut machine,
            folder,
            listed,
            ..
        } = self;
        let all = descendants(machine.pid());
        assert!(all.len() >= listed.len(), "{all:?}");
        machine.kill();
        all_gone(&all).await;
        let of = |role: &str| listed.iter().filter(|process| process.name.starts_with(role)).count() as u16;
        let (peers, providers) = (of("peer"), of("provider"));
        Self::on(folder, peers, providers)
    }

    pub fn peers(&self) -> impl Iterator<Item = &Process> {
        self.listed.iter().filter(|process| process.name.starts_with("peer"))
    }

    pub fn process(&self, name: &str) -> &Process {
        let mut all = self.listed.iter();
        all.find(|process| process.name == name)
            .unwrap_or_else(|| panic!("no {name}"))
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// SIGKILL, to whichever run of it is the latest. Its ports are free when this returns.
    pub async fn kill(&mut self, name: &str) {
        match self.again.remove(name) {
            Some(again) => drop(again),
            None => {
                let pid = self.process(name).pid;
                let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
                assert!(killed.expect("kill is there").success());
                all_gone(&BTreeSet::from([pid])).await;
            }
        }
    }

    /// Stopped politely, and started again on the same directory with this program instead of the one that it was.
    pub async fn replace(&mut self, name: &str, program: &Path) {
        let pid = self.process(name).pid;
        let told = Command::new("kill").args(["-TERM", &pid.to_string()]).status();
        assert!(told.expect("kill is there").success());
        all_gone(&BTreeSet::from([pid])).await;
        let words: Vec<String> = self.process(name).command.split(' ').map(str::to_owned).collect();
        let child = Command::new(program).args(&words[1..]).stdout(Stdio::null()).spawn();
        self.again.insert(name.to_owned(), Again(child.expect("it starts")));
    }

    /// With the command that the devnet names.
    pub fn start_again(&mut self, name: &str) {
        let words: Vec<String> = self.process(name).command.split(' ').map(str::to_owned).collect();
        let mut command = Command::new(&words[0]);
        let child = command.args(&words[1..]).stdout(Stdio::null()).spawn();
        self.again.insert(name.to_owned(), Again(child.expect("it starts")));
    }

    /// What a peer's own API says; nothing where it does not answer.
    pub async fn look(&self, peer: &str, path: &str) -> Option<Value> {
        let url = self.process(peer).url.as_deref().expect("a peer has a URL");
        let answer = self.http.get(format!("{url}{path}")).send().await.ok()?;
        answer.json().await.ok()
    }

    pub async fn height(&self, peer: &str) -> Option<u64> {
        self.look(peer, "/ledger/status").await?["height"].as_u64()
    }

    pub async fn reach(&self, peer: &str, height: u64) {
        let deadline = Instant::now() + WITHIN;
        loop {
            let here = self.height(peer).await;
            if here.is_some_and(|here| here >= height) {
                return;
            }
            assert!(Instant::now() < deadline, "{peer} is at {here:?}, not at {height}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The block that all peers have last, and that it is one block with one state.
    pub async fn agree(&self) -> Value {
        let mut lowest = u64::MAX;
        for peer in self.peers() {
            lowest = lowest.min(self.height(&peer.name).await.expect("it answers"));
        }
        let mut blocks = Vec::new();
        for peer in self.peers() {
            blocks.push(self.block(&peer.name, lowest).await);
        }
        assert!(blocks.windows(2).all(|pair| pair[0] == pair[1]), "a fork: {blocks:?}");
        blocks.swap_remove(0)
    }

    /// Height, digest and state root.
    pub async fn block(&self, peer: &str, height: u64) -> Value {
        let path = format!("/ledger/blocks/{height}");
        let block = self.look(peer, &path).await.expect("it answers");
        assert!(block["state_root"].is_string(), "{peer} has no block {height}: {block}");
        json!([block["height"], block["digest"], block["state_root"]])
    }

    /// Calls `next`, and answers the job.
    pub async fn count(&self, n: i64) -> String {
        let answer = self.machine.call("next", json!({"n": n})).await.ok();
        assert_eq!(answer["output"], n + 1);
        answer["job_id"].as_str().expect("an id").to_owned()
    }

    pub async fn all_paid(&self, jobs: &[String]) {
        for job in jobs {
            assert_eq!(self.machine.paid(job).await["paid"], true);
        }
    }
}

/// Killed when the test ends.
struct Again(Child);

impl Drop for Again {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn processes(directory: &Path) -> Vec<Process> {
    let text = fs::read_to_string(directory.join("processes.json")).expect("the devnet lists its processes");
    let listed: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let process = |line: &Value| Process {
        name: text(&line["name"]).expect("a name"),
        pid: u32::try_from(line["pid"].as_u64().expect("a pid")).expect("a pid"),
        url: text(&line["url"]),
        command: text(&line["command"]).expect("a command"),
    };
    listed.iter().map(process).collect()
}

/// State and parent of every process, from `/proc`.
fn table() -> BTreeMap<u32, (char, u32)> {
    let entries = fs::read_dir("/proc").expect("a /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before may hold anything.
        let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
        Some((pid, (rest.next()?.chars().next()?, rest.next()?.parse().ok()?)))
    })
    .collect()
}

/// All that a process started, and what those started.
pub fn descendants(root: u32) -> BTreeSet<u32> {
    let table = table();
    let mut found = BTreeSet::from([root]);
    loop {
        let more: Vec<u32> = table
            .iter()
            .filter(|(pid, (_, parent))| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            found.remove(&root);
            return found;
        }
        found.extend(more);
    }
}

/// A process that was killed is called a zombie from the end of its first thread on; while another ends it still listens.
fn has_threads(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1)
}

pub async fn all_gone(pids: &BTreeSet<u32>) {
    let deadline = Instant::now() + WITHIN;
    loop {
        let table = table();
        let lives = |pid: &&u32| table.get(pid).is_some_and(|(state, _)| *state != 'Z') || has_threads(**pid);
        let left: Vec<_> = pids.iter().filter(lives).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "they live on: {left:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
