//! One child of a devnet: this program in another role.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::tether;

/// A controller settles and a provider lets jobs end; what takes longer is killed.
const STOP_WITHIN: Duration = Duration::from_secs(45);
/// The end of a log that is shown when a child does not start.
const LOG_LINES: usize = 8;

pub struct Process {
    pub name: String,
    pub pid: u32,
    /// Where it answers, once it said so.
    pub url: Option<String>,
    /// For a shell.
    pub command: String,
    pub log: PathBuf,
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Its standard error goes to the end of `log`.
    pub fn start(name: &str, arguments: &[&str], log: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("this program's own path")?;
        let log_file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new(&program)
            .args(tether::arguments())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let said = child.stdout.take().context("it is piped")?;
        Ok(Self {
            name: name.to_owned(),
            pid: child.id().context("it has just begun")?,
            url: None,
            command: for_a_shell(&program, arguments),
            log: log.to_owned(),
            child,
            said: BufReader::new(said).lines(),
            status: None,
        })
    }

    /// Resolves with its line `ready URL`; fails if it ends before.
    pub async fn ready(&mut self) -> Result<()> {
        while let Some(line) = self.said.next_line().await.context("cannot read its output")? {
            if let Some(url) = line.strip_prefix("ready ") {
                self.url = Some(url.to_owned());
                return Ok(());
            }
        }
        self.status = Some(self.child.wait().await.context("cannot wait for it")?);
        Err(self.did_not_start())
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> Result<()> {
        self.status = self.child.try_wait().context("cannot wait for it")?;
        match self.status {
            Some(_) => Err(self.did_not_start()),
            None => Ok(()),
        }
    }

    fn did_not_start(&self) -> anyhow::Error {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
        anyhow!("{} did not start; end of its log:\n  {end}", self.name)
    }

    pub fn has_ended(&self) -> bool {
        self.status.is_some()
    }

    /// Resolves when it has ended, with a sentence. Cancel safe.
    pub async fn ended(&mut self) -> String {
        let waited = self.child.wait().await;
        let Ok(status) = waited else {
            return format!("cannot wait for {}", self.name);
        };
        self.status = Some(status);
        format!(
            "{} has ended ({status}); the network continues without it\n    start it again with: {}",
            self.name, self.command
        )
    }

    /// Asks it to end, and makes it. A sentence where it had to be made.
    pub async fn stop(&mut self) -> Option<String> {
        if self.has_ended() {
            return None;
        }
        if self.signal(Signal::TERM).is_ok() && timeout(STOP_WITHIN, self.child.wait()).await.is_ok() {
            return None;
        }
        let killed = self.child.kill().await;
        Some(match killed {
            Ok(()) => format!("{} did not stop and was killed", self.name),
            Err(error) => format!("cannot kill {}: {error}", self.name),
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let raw = i32::try_from(self.pid).context("a process id")?;
        let Some(pid) = Pid::from_raw(raw) else {
            bail!("no process id");
        };
        Ok(kill_process(pid, signal)?)
    }
}

fn for_a_shell(program: &Path, arguments: &[&str]) -> String {
    let program = program.to_string_lossy();
    let words = std::iter::once(&*program).chain(arguments.iter().copied());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,".contains(&byte);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let said = for_a_shell(
            Path::new("/opt/it's mine/piecework"),
            &["peer", "run", "--data", "/a b"],
        );
        assert_eq!(said, r"'/opt/it'\''s mine/piecework' peer run --data '/a b'");
    }
}
