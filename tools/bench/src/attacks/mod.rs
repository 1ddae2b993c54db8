//! `./bench attacks`: what hostile code gets in each sandbox of this machine, in each language, as root and as another user.
//!
//! Each attack is a function that does what it can and tells what it got; what cannot be told from inside is looked at from outside. A
//! sandbox that is not here has no column.

mod judge;

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    report::{Machine, now, write_json, write_table},
    server::Server,
};
use judge::{ATTACKS, Attack, DISK_MB, PROCESSES, Seen, Verdict, Wall, judge};

#[derive(Clone, Debug, Args)]
pub struct AttacksOptions {
    /// The binary to attack.
    #[arg(long, default_value = "target/release/piecework")]
    binary: PathBuf,
    /// Only these sandboxes; may be repeated.
    #[arg(long = "sandbox")]
    sandboxes: Vec<String>,
    /// Builds the image that attacks; without Python no image does.
    #[arg(long, default_value = "runtimes/images/build.py")]
    image_builder: PathBuf,
    /// Writes the table into this file, between its marks.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Where the raw results go.
    #[arg(long, default_value = "bench-results")]
    results: PathBuf,
}

const PYTHON: &str = include_str!("hostile.py");
const JAVASCRIPT: &str = include_str!("hostile.mjs");
const SANDBOXES: [&str; 5] = ["wasm", "jail", "oci", "gvisor", "docker"];
/// Sandboxes that work without root.
const WITHOUT_ROOT: [&str; 2] = ["wasm", "jail"];
const SOMEBODY: u32 = 1000;
/// What a loop may run.
const TIMEOUT_MS: u32 = 3_000;
/// How long what was killed may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);
const BEGIN: &str = "<!-- ./bench attacks writes this table -->";

#[derive(Clone, Debug, Serialize)]
struct Tried {
    attack: &'static str,
    sandbox: String,
    is_root: bool,
    language: &'static str,
    #[serde(flatten)]
    verdict: Verdict,
}

#[derive(Debug, Serialize)]
struct Figures {
    began_at: u64,
    machine: Machine,
    /// In the order of the table's columns.
    columns: Vec<(String, bool)>,
    tried: Vec<Tried>,
}

/// Things of the host's that nobody inside should get at.
struct Bait {
    secret: tempfile::NamedTempFile,
    listener: TcpListener,
}

impl Bait {
    fn lay() -> Result<Self> {
        let secret = tempfile::Builder::new()
            .prefix("bait-")
            .tempfile()
            .context("lay a secret")?;
        // Its permissions are not what keeps it.
        fs::set_permissions(secret.path(), fs::Permissions::from_mode(0o644)).context("open the secret")?;
        let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
        listener.set_nonblocking(true).context("listen")?;
        Ok(Self { secret, listener })
    }

    fn event(&self, verb: &str, server: &Server, mark: &str) -> Result<Value> {
        let secret = self.secret.path().display().to_string();
        let data = server.folder().display().to_string();
        let paths = [
            secret.as_str(),
            data.as_str(),
            "/etc/shadow",
            "/proc/1/root/etc/shadow",
            "/proc/kcore",
            "/proc/sysrq-trigger",
            "/sys/class/net",
            "/dev/kvm",
            "/dev/vda",
            "/dev/mem",
            "/var/run/docker.sock",
        ];
        let port = self.listener.local_addr().context("the listener's port")?.port();
        let own = server.site.address.port();
        let addresses = json!([
            ["127.0.0.1", port],
            ["127.0.0.1", own],
            ["169.254.169.254", 80],
            ["10.0.0.1", 22]
        ]);
        Ok(json!({"attack": verb, "paths": paths, "addresses": addresses, "mark": mark}))
    }

    fn was_reached(&self) -> bool {
        self.listener.accept().is_ok()
    }
}

pub fn attack(options: &AttacksOptions) -> Result<()> {
    let mut figures = Figures {
        began_at: now(),
        machine: Machine::read(),
        columns: Vec::new(),
        tried: Vec::new(),
    };
    let images = tempfile::tempdir().context("make a directory")?;
    let image = build_image(&options.image_builder, images.path());
    for (user, sandboxes) in [(None, &SANDBOXES[..]), (Some(SOMEBODY), &WITHOUT_ROOT[..])] {
        let mut server = Server::start_as(&options.binary, user)?;
        for sandbox in sandboxes {
            if options.sandboxes.is_empty() || options.sandboxes.iter().any(|one| one == sandbox) {
                let place = Place {
                    server: &server,
                    sandbox,
                    binary: &options.binary,
                    image: image.as_deref(),
                };
                place.attacked(user.is_none(), &mut figures)?;
            }
        }
        server.stop()?;
    }
    println!("{figures}");
    if let Some(file) = &options.table {
        write_table(file, BEGIN, &figures.to_string())?;
    }
    println!("raw: {}", write_json(&options.results, "attacks", &figures)?.display());
    Ok(())
}

/// An image of this machine's Python with the attacks; none where it cannot be built.
fn build_image(builder: &Path, folder: &Path) -> Option<PathBuf> {
    let source = folder.join("hostile.py");
    fs::write(&source, PYTHON).ok()?;
    let layout = folder.join("hostile");
    let add = format!("{}:app/hostile.py", source.display());
    let mut build = Command::new("/usr/bin/python3");
    build.arg(builder).arg("python").arg(&layout).args(["--add", &add]);
    build.args(["--", "/usr/bin/python3", "/app/hostile.py"]);
    match build.output() {
        Ok(built) if built.status.success() => Some(layout),
        Ok(built) => {
            eprintln!("no image: {}", String::from_utf8_lossy(&built.stderr).trim());
            None
        }
        Err(error) => {
            eprintln!("no image: {error}");
            None
        }
    }
}

/// One sandbox of one server.
struct Place<'a> {
    server: &'a Server,
    sandbox: &'a str,
    binary: &'a Path,
    image: Option<&'a Path>,
}

impl Place<'_> {
    fn attacked(&self, is_root: bool, figures: &mut Figures) -> Result<()> {
        let mut languages: Vec<&'static str> = Vec::new();
        for (language, code) in [("python", PYTHON), ("javascript", JAVASCRIPT)] {
            match self.deploy(language, code) {
                Ok(()) => languages.push(language),
                Err(error) => eprintln!("{} without {language}: {error:#}", self.sandbox),
            }
        }
        if let Some(image) = self.image.filter(|_| self.sandbox != "wasm") {
            match self.deploy_image(image) {
                Ok(()) => languages.push("image"),
                Err(error) => eprintln!("{} without images: {error:#}", self.sandbox),
            }
        }
        if languages.is_empty() {
            return Ok(());
        }
        figures.columns.push((self.sandbox.to_owned(), is_root));
        for attack in &ATTACKS {
            for language in &languages {
                let verdict = self.tried(attack, language)?;
                eprintln!("{} in {} as {language}: {verdict:?}", attack.name, self.sandbox);
                figures.tried.push(Tried {
                    attack: attack.name,
                    sandbox: self.sandbox.to_owned(),
                    is_root,
                    language,
                    verdict,
                });
            }
        }
        Ok(())
    }

    /// Two functions of the same code: one that attacks, and one that comes after it.
    fn names(&self, language: &str) -> [String; 2] {
        ["attack", "after"].map(|part| format!("{part}-{}-{language}", self.sandbox))
    }

    fn deploy(&self, language: &'static str, code: &str) -> Result<()> {
        for name in self.names(language) {
            let body = json!({
                "name": name, "language": language, "code": code, "sandbox": self.sandbox, "timeout_ms": TIMEOUT_MS,
                "memory_limit_mb": 128, "process_limit": PROCESSES, "disk_limit_mb": DISK_MB,
            });
            let request = self.server.request("POST", "/functions", Some(&body));
            self.server.connect()?.json(&request)?;
        }
        Ok(())
    }

    fn deploy_image(&self, image: &Path) -> Result<()> {
        for name in self.names("image") {
            let mut command = Command::new(self.binary);
            command
                .env("PIECEWORK_URL", &self.server.url)
                .env("PIECEWORK_TOKEN", &self.server.token)
                .env("HOME", image);
            command.args([
                "deploy",
                "--stdio",
                "--sandbox",
                self.sandbox,
                "--name",
                &name,
                "--image",
            ]);
            command
                .arg(image)
                .args(["--timeout", &format!("{TIMEOUT_MS}ms"), "--memory", "128MiB"]);
            command.args([
                "--processes",
                &PROCESSES.to_string(),
                "--disk",
                &format!("{DISK_MB}MiB"),
            ]);
            let deployed = command.output().context("run the command line")?;
            ensure!(
                deployed.status.success(),
                "{}",
                String::from_utf8_lossy(&deployed.stderr).trim()
            );
        }
        Ok(())
    }

    fn call(&self, name: &str, event: &Value) -> Result<Value> {
        let path = format!("/execute/{name}");
        let request = self.server.request("POST", &path, Some(&json!({"input": event})));
        let (_, body) = self.server.connect()?.send(&request)?;
        serde_json::from_slice(&body).context("an answer is not JSON")
    }

    fn tried(&self, attack: &Attack, language: &str) -> Result<Verdict> {
        let [attacker, after] = self.names(language);
        let bait = Bait::lay()?;
        let mark = format!("attack-mark-{}-{}", std::process::id(), now());
        let answer = self.call(&attacker, &bait.event(attack.verb, self.server, &mark)?)?;
        let mut seen = Seen {
            answer,
            ..Seen::default()
        };
        match attack.wall {
            Wall::LeavesNoProcess => seen.left = left(&mark),
            Wall::LogsAreBounded => seen.log_bytes = Some(self.log_bytes(&seen.answer)?),
            Wall::LeavesNoFile => seen.found = self.call(&after, &json!({"attack": "find"}))?,
            Wall::Ends(_) | Wall::Counts(_) | Wall::GetsNothing => {}
        }
        if bait.was_reached() {
            return Ok(Verdict::NotHeld("the listener of the host".to_owned()));
        }
        // Whatever it did, the next function is served.
        let next = self.call(&after, &json!({"attack": "find"}))?;
        if next["output"]["got"].as_array().is_none() {
            return Ok(Verdict::NotHeld(format!("the next function got {next}")));
        }
        Ok(judge(attack.wall, &seen))
    }

    fn log_bytes(&self, answer: &Value) -> Result<u64> {
        let job = answer["job_id"].as_str().or(answer["error"]["job_id"].as_str());
        let Some(job) = job else {
            bail!("an answer without a job: {answer}")
        };
        let request = self.server.request("GET", &format!("/jobs/{job}/logs"), None);
        let logs = self.server.connect()?.json(&request)?;
        let text = logs["text"].as_str().context("logs have a text")?;
        Ok(text.len() as u64)
    }
}

/// Processes with this mark that are still there after a while.
fn left(mark: &str) -> usize {
    let begun = Instant::now();
    loop {
        let count = marked(mark);
        if count == 0 || begun.elapsed() > GONE_WITHIN {
            return count;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn marked(mark: &str) -> usize {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| line.windows(mark.len()).any(|window| window == mark.as_bytes()))
        .count()
}

impl Figures {
    /// What is said of an attack in a column: one word where all languages say the same.
    fn cell(&self, attack: &str, (sandbox, is_root): &(String, bool)) -> String {
        let of = |tried: &&Tried| tried.attack == attack && tried.sandbox == *sandbox && tried.is_root == *is_root;
        let mut said: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for tried in self.tried.iter().filter(of) {
            let word = match &tried.verdict {
                Verdict::Held => "held".to_owned(),
                Verdict::NotHeld(what) => format!("**not held**: {}", what.replace('|', "/")),
                Verdict::NotApplicable(_) => "not applicable".to_owned(),
            };
            said.entry(word).or_default().push(tried.language);
        }
        match said.len() {
            1 => said.into_keys().collect(),
            _ => {
                let parts = said
                    .into_iter()
                    .map(|(word, languages)| format!("{word} ({})", languages.join(", ")));
                parts.collect::<Vec<_>>().join("; ")
            }
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        write!(f, "| attack |")?;
        for (sandbox, is_root) in &self.columns {
            let user = if *is_root { "" } else { ", not root" };
            write!(f, " `{sandbox}`{user} |")?;
        }
        writeln!(f, "\n|---|{}", "---|".repeat(self.columns.len()))?;
        for attack in &ATTACKS {
            write!(f, "| {} |", attack.name)?;
            for column in &self.columns {
                write!(f, " {} |", self.cell(attack.name, column))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
