//! Four departments found a network with a controller, step by step as docs/operating-a-ledger.md says.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::network::processes::piecework;

const DEPARTMENTS: [&str; 4] = ["physics", "biology", "history", "law"];

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_piecework"));
        let child = command
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("it starts"))
    }

    /// Its line `ready URL`.
    fn ready(&mut self) -> String {
        let output = self.0.stdout.take().expect("piped");
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let url = lines.find_map(|line| line.strip_prefix("ready ").map(str::to_owned));
        url.expect("ready")
    }
}

fn done(arguments: &[&str]) -> String {
    let output = piecework(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

fn refused(arguments: &[&str], said: &str) {
    let output = piecework(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains(said), "{arguments:?}: {text}");
}

/// Free a moment ago, and not one of those that the system gives to others.
fn ports(count: usize) -> Vec<String> {
    let free = (0..10_000).filter_map(|_| TcpListener::bind(("127.0.0.1", rand::random_range(10_000..32_000))).ok());
    let held: Vec<TcpListener> = free.take(count).collect();
    held.iter()
        .map(|held| held.local_addr().expect("bound").to_string())
        .collect()
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn four_departments_found_a_network_with_a_controller() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| text(&folder.path().join(name));
    let ports = ports(9);
    // Each department makes its keys, and gives away its card.
    let (mut cards, mut apis) = (Vec::new(), Vec::new());
    for (name, addresses) in DEPARTMENTS.iter().zip(ports.chunks(2)) {
        let (listen, api) = (&addresses[0], &addresses[1]);
        let card = done(&[
            "peer",
            "init",
            "--owner",
            name,
            "--address",
            listen,
            "--listen",
            listen,
            "--api",
            api,
            "--data",
            &at(name),
        ]);
        let path = at(&format!("{name}.json"));
        fs::write(&path, card).expect("written");
        cards.push(path);
        apis.push(format!("http://{api}"));
    }
    // The computing centre makes the controller's, and gives away the accounts.
    let mut init = vec!["controller", "init", "--listen", ports[8].as_str(), "--data"];
    let controller = at("controller");
    init.push(controller.as_str());
    init.extend(apis.iter().flat_map(|api| ["--peer", api.as_str()]));
    let accounts = done(&init);
    let [operator, own] = accounts.lines().collect::<Vec<_>>().try_into().expect("two accounts");
    // One of them makes the genesis, which all install.
    let genesis = at("genesis.json");
    refused(
        &["controller", "run", "--data", &controller],
        "piecework controller join",
    );
    let grants = [format!("{operator}:1000cr"), format!("{own}:0:controller")];
    let mut make = vec!["peer", "genesis", "--name", "campus", "--output", genesis.as_str()];
    make.extend(grants.iter().flat_map(|grant| ["--grant", grant.as_str()]));
    make.extend(cards.iter().map(String::as_str));
    done(&make);
    for name in DEPARTMENTS {
        done(&["peer", "join", &genesis, "--data", &at(name)]);
        done(&["peer", "config", "check", "--data", &at(name)]);
    }
    done(&["controller", "join", &genesis, "--data", &controller]);
    done(&["controller", "config", "check", "--data", &controller]);
    // All start, in any order.
    let mut peers: Vec<Running> = DEPARTMENTS
        .iter()
        .map(|name| Running::start(&["peer", "run", "--data", &at(name)]))
        .collect();
    let mut running = Running::start(&["controller", "run", "--data", &controller]);
    assert!(peers.iter_mut().all(|peer| peer.ready().starts_with("http://")));
    let url = running.ready();
    let token = fs::read_to_string(folder.path().join("controller/token")).expect("left there");
    let status = Command::new(env!("CARGO_BIN_EXE_piecework"))
        .args(["--json", "account"])
        .env("PIECEWORK_URL", &url)
        .env("PIECEWORK_TOKEN", token)
        .output()
        .expect("it runs");
    let account: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(
        (&account["name"], &account["posted_ucr"]),
        (&"operator".into(), &1_000_000_000.into())
    );
}

#[test]
fn a_controller_keeps_to_its_network() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| text(&folder.path().join(name));
    let card = done(&[
        "peer",
        "init",
        "--owner",
        "ada",
        "--address",
        "127.0.0.1:1",
        "--data",
        &at("ada"),
    ]);
    fs::write(at("ada.json"), card).expect("written");
    for name in ["one", "two"] {
        done(&[
            "peer",
            "genesis",
            "--name",
            name,
            &at("ada.json"),
            "--output",
            &at(name),
        ]);
    }
    let controller = at("controller");
    refused(
        &["controller", "join", &at("one"), "--data", &controller],
        "controller.toml",
    );
    done(&[
        "controller",
        "init",
        "--peer",
        "http://127.0.0.1:1",
        "--data",
        &controller,
    ]);
    for _ in 0..2 {
        done(&["controller", "join", &at("one"), "--data", &controller]);
    }
    refused(
        &["controller", "join", &at("two"), "--data", &controller],
        "another network",
    );
}
