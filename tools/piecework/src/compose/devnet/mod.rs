//! `piecework devnet`: a network of separate processes on this machine.
//!
//! ```text
//! plan (once a directory: keys, ports, genesis, settings) -> peers and controller -> invites -> providers -> ready
//! a child that ends by itself is told of, and not started again: who kills one wants to see what happens
//! stop -> providers, then the controller, then the peers; what does not end in time is killed
//! ```
//!
//! Each child is in a process group of its own, so that Ctrl-C reaches it through here, in this order; and the kernel
//! kills it when this process dies.

mod plan;
mod process;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use futures::future::{join_all, select_all, try_join_all};
use piecework_api::{
    Client,
    accounts::{CreateInvite, Role},
    ledger::ProviderState,
};
use piecework_model::Credits;
use serde::Serialize;

use super::files::{lock, make_private, write_private};
use crate::{failure::Failure, places};
use plan::Plan;
pub use plan::Wanted;
use process::Process;

/// For the deposit of an offer, and to spare.
const PROVIDER_GRANT: Credits = Credits(2 * Credits::ONE.0);
const INVITE_VALID: Duration = Duration::from_secs(600);
/// Longer than a start takes on a busy machine, the very first one too, which compiles the interpreters.
const READY_WITHIN: Duration = Duration::from_secs(240);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Where a network answers.
pub struct Answers<'a> {
    pub controller: &'a str,
    pub peers: Vec<&'a str>,
}

/// Starts the network of `directory`, which is made at the first time, and keeps it until `stop`. `say` is told what
/// happens, `ready` where it answers once a first call would succeed.
pub async fn devnet(
    directory: &Path,
    wanted: Wanted,
    say: &dyn Fn(&str),
    ready: impl FnOnce(Answers<'_>),
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    // What starts a process again is typed anywhere.
    let directory = &std::path::absolute(directory).context("cannot read the current directory")?;
    make_private(directory)?;
    let _lock = lock(directory)?;
    let plan = Plan::load_or_make(directory, wanted)?;
    let mut network = Network {
        directory: directory.to_owned(),
        plan,
        peers: Vec::new(),
        controller: Vec::new(),
        providers: Vec::new(),
    };
    let ran = tokio::select! {
        ran = network.run(say, ready) => ran,
        () = stop => Ok(()),
    };
    network.stop(say).await;
    Ok(ran?)
}

struct Network {
    directory: PathBuf,
    plan: Plan,
    peers: Vec<Process>,
    /// One; none before it is started.
    controller: Vec<Process>,
    providers: Vec<Process>,
}

/// A line of `processes.json`.
#[derive(Serialize)]
struct Running<'a> {
    name: &'a str,
    pid: u32,
    url: Option<&'a str>,
    /// What starts it again.
    command: &'a str,
    log: &'a Path,
}

impl Network {
    /// Ends only with a failure.
    async fn run(&mut self, say: &dyn Fn(&str), ready: impl FnOnce(Answers<'_>)) -> Result<()> {
        let started = tokio::time::timeout(READY_WITHIN, self.start(say)).await;
        let url = started.map_err(|_| anyhow!("the network was not ready within {READY_WITHIN:?}"))??;
        self.note()?;
        ready(Answers {
            controller: &url,
            peers: self.peers.iter().filter_map(|peer| peer.url.as_deref()).collect(),
        });
        self.keep(say).await
    }

    async fn start(&mut self, say: &dyn Fn(&str)) -> Result<String> {
        // Once, here: what the providers say goes to their logs, and each of them would wait for the first.
        let provides = self.plan.providers > 0;
        let compiles = tokio::task::spawn_blocking(move || provides.then(super::sandboxes::precompile));
        say(&format!("starting {} peers and a controller", self.plan.peers));
        for number in 1..=self.plan.peers {
            let (name, directory) = self.named("peer", number);
            self.peers.push(self.spawn(&name, &["peer", "run"], &directory, &[])?);
        }
        let directory = self.directory.join("controller");
        self.controller
            .push(self.spawn("controller", &["controller", "run"], &directory, &[])?);
        let starting = self.peers.iter_mut().chain(&mut self.controller);
        try_join_all(starting.map(|process| async move {
            process.ready().await?;
            say(&format!("{} is ready", process.name));
            anyhow::Ok(())
        }))
        .await?;
        let url = self.controller[0].url.clone().context("it said so")?;
        let token = fs::read_to_string(directory.join("token")).context("the controller leaves a token")?;
        for (file, text) in [("url", &url), ("token", &token)] {
            write_private(&self.directory.join(file), text)?;
        }
        compiles.await.context("compiling was interrupted")?;
        say(&format!(
            "starting {} providers, which test their sandboxes",
            self.plan.providers
        ));
        let client = Client::new(&url, Some(token))?;
        for number in 1..=self.plan.providers {
            self.start_provider(&client, &url, number).await?;
        }
        self.linked(&client).await?;
        Ok(url)
    }

    async fn start_provider(&mut self, client: &Client, url: &str, number: u16) -> Result<()> {
        let invite = CreateInvite {
            roles: vec![Role::Provider],
            grant_ucr: Some(PROVIDER_GRANT),
            lend_ucr: None,
            expires_in_s: Some(INVITE_VALID.as_secs()),
        };
        let invite = client
            .create_invite(&invite, None)
            .await
            .context("cannot create an invite for a provider")?;
        let (name, directory) = self.named("provider", number);
        let (cores, memory) = self.share();
        let more = [
            ("--controller", url),
            ("--invite", &invite.code),
            ("--name", &name),
            ("--region", "local"),
            ("--cores", &cores),
            ("--memory", &memory),
        ];
        let peers: Vec<String> = self.peers.iter().filter_map(|peer| peer.url.clone()).collect();
        let ledger = peers.iter().map(|url| ("--ledger", url.as_str()));
        let more = more.into_iter().chain(ledger);
        let more: Vec<&str> = more.flat_map(|(option, value)| [option, value]).collect();
        let process = self.spawn(&name, &["provide"], &directory, &more)?;
        self.providers.push(process);
        Ok(())
    }

    /// What each provider gives of this machine.
    fn share(&self) -> (String, String) {
        let providers = u64::from(self.plan.providers.max(1));
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let mib = places::memory_bytes() >> 20;
        (
            (cores / providers).max(1).to_string(),
            format!("{}MiB", (mib / (providers + 1)).max(256)),
        )
    }

    /// Resolves once the controller has them all; fails if one ends before.
    async fn linked(&mut self, client: &Client) -> Result<()> {
        loop {
            let known = client.providers(&Default::default()).await?;
            let ready = |state: &ProviderState| matches!(state, ProviderState::Ready);
            let count = known.items.iter().filter(|provider| ready(&provider.state)).count();
            if count >= usize::from(self.plan.providers) {
                return Ok(());
            }
            for provider in &mut self.providers {
                provider.check()?;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn named(&self, role: &str, number: u16) -> (String, PathBuf) {
        let name = format!("{role}-{number}");
        let directory = self.directory.join(&name);
        (name, directory)
    }

    fn spawn(&self, name: &str, command: &[&str], directory: &Path, more: &[&str]) -> Result<Process> {
        let logs = self.directory.join("logs");
        make_private(&logs)?;
        let data = directory.to_str().context("the directory's path is not UTF-8")?;
        let mut arguments: Vec<&str> = command.to_vec();
        arguments.extend(["--data", data]);
        arguments.extend(more);
        Process::start(name, &arguments, &logs.join(format!("{name}.log")))
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Process> {
        self.peers
            .iter_mut()
            .chain(&mut self.controller)
            .chain(&mut self.providers)
    }

    /// For people and programs that want to kill one.
    fn note(&mut self) -> Result<()> {
        let path = self.directory.join("processes.json");
        let running: Vec<_> = self
            .all()
            .map(|process| Running {
                name: &process.name,
                pid: process.pid,
                url: process.url.as_deref(),
                command: &process.command,
                log: &process.log,
            })
            .collect();
        let text = serde_json::to_string_pretty(&running)?;
        drop(running);
        write_private(&path, &text)
    }

    /// Tells of each child that ends; fails when none is left.
    async fn keep(&mut self, say: &dyn Fn(&str)) -> Result<()> {
        loop {
            let running: Vec<_> = self.all().filter(|process| !process.has_ended()).collect();
            if running.is_empty() {
                bail!("all processes of the network have ended");
            }
            let ends = running.into_iter().map(|process| Box::pin(process.ended()));
            let (told, ..) = select_all(ends).await;
            say(&told);
        }
    }

    /// Those that need others first.
    async fn stop(&mut self, say: &dyn Fn(&str)) {
        for group in [&mut self.providers, &mut self.controller, &mut self.peers] {
            let told = join_all(group.iter_mut().map(Process::stop)).await;
            told.into_iter().flatten().for_each(|said| say(&said));
        }
    }
}
