//! Four organisations found a network with a controller, by the very commands of docs/operating-a-ledger.md.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::network::processes::piecework;

/// As in the guide.
const ORGANISATIONS: [&str; 4] = ["acme", "uni", "coop", "city"];

/// The commands in the blocks of a section of the guide, in its order: without comments, each in one line.
pub fn commands_of(section: &str) -> Vec<String> {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating-a-ledger.md");
    let text = fs::read_to_string(guide).expect("the guide");
    let (_, rest) = text.split_once(&format!("\n## {section}\n")).expect("the section");
    let section = rest.split("\n## ").next().expect("a section");
    let blocks = section.split("```\n").skip(1).step_by(2);
    let whole: String = blocks.collect::<String>().replace("\\\n", " ");
    let bare = whole.lines().map(|line| line.split(" # ").next().unwrap_or_default());
    let bare = bare.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    bare.filter(|line| !line.is_empty()).collect()
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }
}

impl Running {
    fn start(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
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

fn refused_arguments(arguments: &[&str], said: &str) {
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

/// The machine of an organisation: a home directory, and a folder for the files that all exchange.
struct Site {
    home: PathBuf,
    shared: PathBuf,
}

impl Site {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        let program = Path::new(env!("CARGO_BIN_EXE_piecework"));
        let folder = program.parent().expect("a folder").display();
        let path = std::env::var("PATH").expect("a PATH");
        command
            .args(["-c", &format!("exec {line}")])
            .current_dir(&self.shared)
            .env("HOME", &self.home)
            .env("PATH", format!("{folder}:{path}"))
            .env_remove("XDG_DATA_HOME");
        command
    }

    fn run(&self, line: &str) -> String {
        let output = self.command(line).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
        String::from_utf8(output.stdout).expect("text")
    }
}

/// The eight commands of the guide; one more or less there fails here.
fn guide() -> [String; 8] {
    let commands = commands_of("Found a network");
    let beginnings = [
        "piecework peer init",
        "piecework peer card",
        "piecework controller init",
        "piecework peer genesis",
        "piecework peer join",
        "piecework controller join",
        "piecework peer run",
        "piecework controller run",
    ];
    assert_eq!(commands.len(), beginnings.len(), "{commands:?}");
    let all = commands.iter().zip(beginnings);
    assert!(
        all.clone().all(|(command, due)| command.starts_with(due)),
        "{commands:?}"
    );
    commands.try_into().expect("eight")
}

#[test]
fn four_organisations_found_a_network_by_the_commands_of_the_guide() {
    let folder = tempfile::tempdir().expect("a folder");
    let shared = folder.path().join("exchanged");
    fs::create_dir(&shared).expect("made");
    let site = |name: &str| Site {
        home: folder.path().join(name),
        shared: shared.clone(),
    };
    let ports = ports(9);
    let [
        init,
        card,
        controller_init,
        genesis,
        join,
        controller_join,
        run,
        controller_run,
    ] = guide();
    for (name, addresses) in ORGANISATIONS.iter().zip(ports.chunks(2)) {
        let (listen, api) = (&addresses[0], &addresses[1]);
        // One machine stands for four: each has ports of its own.
        let init = init.replace("ledger.acme.example:7440", listen).replace("acme", name);
        site(name).run(&format!("{init} --listen {listen} --api {api}"));
        site(name).run(&card.replace("acme", name));
    }
    let centre = site("centre");
    let api = |organisation: usize| format!("http://{}", ports[2 * organisation + 1]);
    let controller_init = controller_init
        .replace("http://ledger.acme.example:7441", &api(0))
        .replace("http://ledger.uni.example:7441", &api(1));
    let accounts = centre.run(&format!("{controller_init} --listen {}", ports[8]));
    refused(&centre, &controller_run, "piecework controller join");
    // What the organisations got from it.
    let mut genesis = genesis;
    for account in accounts.lines() {
        let (name, _) = account.split_once('=').expect("NAME=KEY");
        genesis = genesis.replace(&format!("{name}=KEY"), account);
    }
    assert!(!genesis.contains("KEY"), "{genesis}");
    site("acme").run(&genesis);
    for name in ORGANISATIONS {
        site(name).run(&join);
        site(name).run("piecework peer config check");
    }
    centre.run(&controller_join);
    centre.run("piecework controller config check");
    let start = |name: &&str| Running::start(site(name).command(&run));
    let mut peers: Vec<Running> = ORGANISATIONS.iter().map(start).collect();
    let mut running = Running::start(centre.command(&controller_run));
    assert!(peers.iter_mut().all(|peer| peer.ready().starts_with("http://")));
    let url = running.ready();
    let token = centre.home.join(".local/share/piecework-controller/token");
    let token = fs::read_to_string(token).expect("left there");
    let account = centre.run(&format!(
        "env PIECEWORK_URL={url} PIECEWORK_TOKEN={token} piecework --json account"
    ));
    let account: serde_json::Value = serde_json::from_str(&account).expect("JSON");
    assert_eq!(
        (&account["name"], &account["posted_ucr"]),
        (&"operator".into(), &1_000_000_000.into())
    );
}

fn refused(site: &Site, line: &str, said: &str) {
    let output = site.command(line).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains(said), "{line}: {text}");
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
    refused_arguments(
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
    refused_arguments(
        &["controller", "join", &at("two"), "--data", &controller],
        "another network",
    );
}
