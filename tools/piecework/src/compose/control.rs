//! A running agent's control socket, for its owner on this machine only.
//!
//! `DIR/control.sock`, mode 0600: one line with a word in (`limits` with JSON behind it), one line of JSON out.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use piecework_provider::{Provider, collect::Collector, earned::Earnings, owner::Rules};
use piecework_queue::{Load, ProviderLink as _, link::Agent};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// An agent's status.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentStatus {
    pub name: String,
    pub account: String,
    /// The controller's key while a link is up.
    pub linked_to: Option<String>,
    pub draining: bool,
    pub running: u32,
    pub slots: u32,
    /// Jobs that run or whose results wait for the controller.
    pub orders: usize,
    pub idle_instances: u32,
    pub owed: Owed,
    /// Paused for the owner's work.
    pub paused: bool,
    pub rules: Rules,
    /// Why it gets no jobs at the moment; empty if it can.
    pub why_idle: Vec<String>,
    /// Before the network's commission.
    #[serde(default)]
    pub earnings: Earnings,
    /// As it was started, as TOML.
    #[serde(default)]
    pub settings: String,
}

/// What no settlement is known to have paid yet; the ledger is asked about it once a minute or so.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Owed {
    pub jobs: u64,
    pub price_ucr: u64,
    /// Jobs that it can claim without the controller, should that be gone.
    pub claimable_jobs: u64,
}

/// Commands from the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    Status,
    /// No new jobs.
    Drain,
    /// No new jobs, and those that run stand still.
    Pause,
    Resume,
    Limits(Rules),
}

impl Word {
    fn to_line(&self) -> String {
        let word = match self {
            Self::Status => "status",
            Self::Drain => "drain",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Limits(rules) => {
                return format!("limits {}\n", serde_json::to_string(rules).expect("rules are JSON"));
            }
        };
        format!("{word}\n")
    }

    fn from_line(line: &str) -> Option<Self> {
        match line.trim().split_once(' ') {
            Some(("limits", rules)) => serde_json::from_str(rules).ok().map(Self::Limits),
            Some(_) => None,
            None => match line.trim() {
                "status" => Some(Self::Status),
                "drain" => Some(Self::Drain),
                "pause" => Some(Self::Pause),
                "resume" => Some(Self::Resume),
                _ => None,
            },
        }
    }
}

const SOCKET: &str = "control.sock";

/// A provider with what tells of it.
pub(super) struct Running {
    pub(super) provider: Arc<Provider>,
    pub(super) agent: Arc<Agent>,
    pub(super) collector: Arc<Collector>,
    /// As TOML.
    pub(super) settings: String,
}

/// Shows how a provider stands, for the person at this computer.
pub type Board = dyn Fn(&AgentStatus) + Send + Sync;

/// Tells the board every second, and has earnings written down when that is due.
pub(super) async fn show(running: Arc<Running>, board: Arc<Board>) {
    const EVERY: Duration = Duration::from_secs(1);
    loop {
        board(&status(&running));
        running.provider.keep_earnings(false).await;
        tokio::time::sleep(EVERY).await;
    }
}

pub(super) fn serve(directory: &Path, running: Arc<Running>, shutdown: CancellationToken) -> Result<JoinHandle<()>> {
    let path = directory.join(SOCKET);
    // The directory's lock is held: nobody else listens there.
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            if let Ok((stream, _)) = accepted {
                tokio::spawn(answer(stream, running.clone()));
            }
        }
    }))
}

async fn answer(stream: UnixStream, running: Arc<Running>) {
    let provider = &running.provider;
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    if BufReader::new(read).read_line(&mut line).await.is_err() {
        return;
    }
    match Word::from_line(&line) {
        Some(Word::Drain) => provider.drain(),
        Some(Word::Pause) => provider.pause(),
        Some(Word::Resume) => provider.resume(),
        Some(Word::Limits(rules)) => provider.set_rules(rules),
        Some(Word::Status) => {}
        // Of another version: whoever asks reads nothing.
        None => return,
    }
    provider.settled().await;
    let mut text = serde_json::to_string(&status(&running)).unwrap_or_default();
    text.push('\n');
    // Whoever asked may have gone.
    let _ = write.write_all(text.as_bytes()).await;
}

fn status(running: &Running) -> AgentStatus {
    let (provider, agent) = (&running.provider, &running.agent);
    let owed = running.collector.owed();
    let (profile, load) = (provider.profile(), provider.load());
    let linked_to = agent.linked_to().borrow().map(|key| key.to_string());
    AgentStatus {
        name: profile.name.clone(),
        account: profile.account.to_string(),
        why_idle: why_idle(provider, linked_to.is_some(), load),
        paused: load.paused,
        rules: provider.rules(),
        linked_to,
        draining: load.draining,
        running: load.running,
        slots: profile.slots,
        orders: agent.orders(),
        idle_instances: load.instances,
        owed: Owed {
            jobs: owed.jobs,
            price_ucr: owed.price_ucr,
            claimable_jobs: owed.sealed_jobs,
        },
        earnings: provider.earnings(),
        settings: running.settings.clone(),
    }
}

fn why_idle(provider: &Provider, linked: bool, load: Load) -> Vec<String> {
    let reasons = [
        (!linked, "not connected to a controller"),
        (load.draining, "draining; end that with `piecework provider resume`"),
        (load.running >= provider.profile().slots, "all slots are taken"),
    ];
    let holding = reasons.into_iter().filter(|(holds, _)| *holds);
    let holds = provider.holds().into_iter().map(|hold| hold.to_string());
    holding.map(|(_, reason)| reason.to_owned()).chain(holds).collect()
}

/// Sends a command to the agent of `directory`. `None` if none runs there.
pub async fn ask(directory: &Path, word: Word) -> Result<Option<AgentStatus>> {
    let Ok(stream) = UnixStream::connect(directory.join(SOCKET)).await else {
        return Ok(None);
    };
    let (read, mut write) = stream.into_split();
    write.write_all(word.to_line().as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line).await?;
    Ok(Some(
        serde_json::from_str(&line).context("cannot read the agent's answer")?,
    ))
}
