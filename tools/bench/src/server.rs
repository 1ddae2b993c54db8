//! A `piecework up` of its own: a fresh directory, a free port, ended by its process id.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::{fs::chown, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    http::{Connection, Site},
    tree::Tree,
};

/// Compiling the runtimes on a first start takes a while on a slow machine.
const READY_TIMEOUT: Duration = Duration::from_secs(180);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

pub struct Server {
    child: Child,
    pub url: String,
    pub site: Site,
    pub token: String,
    folder: tempfile::TempDir,
}

/// A deployed function.
#[derive(Clone, Debug)]
pub struct Deployed {
    pub id: String,
    pub url: String,
    pub sandbox: String,
}

impl Server {
    pub fn start(binary: &Path) -> Result<Self> {
        Self::start_with(binary, "127.0.0.1:0", &[])
    }

    /// As somebody who owns nothing else, where a user is named.
    pub fn start_as(binary: &Path, user: Option<u32>) -> Result<Self> {
        Self::start_by(binary, "127.0.0.1:0", (&[], user))
    }

    /// `more` are further arguments of `up`.
    pub fn start_with(binary: &Path, listen: &str, more: &[&str]) -> Result<Self> {
        Self::start_by(binary, listen, (more, None))
    }

    fn start_by(binary: &Path, listen: &str, (more, user): (&[&str], Option<u32>)) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("piecework-bench-")
            .tempdir()
            .context("make a directory")?;
        let data = folder.path().join("data");
        let log = File::create(folder.path().join("server.log")).context("make the server's log")?;
        let mut command = Command::new(binary);
        if let Some(user) = user {
            chown(folder.path(), Some(user), Some(user)).context("give the directory away")?;
            command
                .uid(user)
                .gid(user)
                .env("HOME", folder.path())
                .env("TMPDIR", folder.path());
        }
        let mut child = command
            .args(["up", "--listen", listen, "--data"])
            .arg(&data)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| {
                format!(
                    "start {}; `cargo build --release -p piecework` makes it",
                    binary.display()
                )
            })?;
        let ready = first_line(&mut child, "ready ");
        let url = match ready {
            Ok(url) => url,
            Err(error) => {
                child.kill().context("end the server")?;
                child.wait().context("end the server")?;
                let log = fs::read_to_string(folder.path().join("server.log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                bail!(
                    "{error:#}; its log ends with:\n{}",
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
        };
        let site = Site::parse(&url)?;
        let token = fs::read_to_string(data.join("token"))
            .context("read the token")?
            .trim()
            .to_owned();
        Ok(Self {
            child,
            url: url.trim_end_matches('/').to_owned(),
            site,
            token,
            folder,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn tree(&self) -> Tree {
        Tree(self.pid())
    }

    pub fn connect(&self) -> Result<Connection> {
        Connection::open(&self.site)
    }

    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Vec<u8> {
        let body = body.map(Value::to_string);
        self.site.request(method, path, Some(&self.token), body.as_deref())
    }

    /// The request that deploys a function of one file.
    pub fn deployment(&self, name: &str, language: &str, code: &str, sandbox: &str) -> Vec<u8> {
        let body = json!({"name": name, "language": language, "code": code, "sandbox": sandbox});
        self.request("POST", "/functions", Some(&body))
    }

    pub fn deploy(&self, name: &str, language: &str, code: &str, sandbox: &str) -> Result<Deployed> {
        let answer = self.connect()?.json(&self.deployment(name, language, code, sandbox));
        let view = answer.with_context(|| format!("deploy {name}"))?;
        let text = |field: &str| {
            view[field]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("no {field} in {view}"))
        };
        Ok(Deployed {
            id: text("id")?,
            url: text("url")?,
            sandbox: text("sandbox")?,
        })
    }

    /// Asks the server to end and waits for it.
    pub fn stop(&mut self) -> Result<()> {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .context("the server has a process id")?;
        kill_process(pid, Signal::TERM).context("end the server")?;
        let until = Instant::now() + STOP_TIMEOUT;
        while self.child.try_wait().context("wait for the server")?.is_none() {
            ensure!(Instant::now() < until, "the server did not end within {STOP_TIMEOUT:?}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Where its data lies.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Bytes of its data directory.
    pub fn disk_bytes(&self) -> u64 {
        bytes_below(&self.folder.path().join("data"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stop` both only say that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// What follows `prefix` on the first line of a child's output that begins with it. The rest is read and dropped.
pub fn first_line(child: &mut Child, prefix: &'static str) -> Result<String> {
    let output = child.stdout.take().context("the child's output is piped")?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(rest) = line.strip_prefix(prefix) {
                // Nobody waits any more: then the child is being ended.
                let _ = send.send(rest.trim().to_owned());
            }
        }
    });
    receive
        .recv_timeout(READY_TIMEOUT)
        .with_context(|| format!("it did not print `{}...`", prefix.trim_end()))
}
