//! `piecework dev`: save, and the next call runs the new code.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use piecework_api::{Client, jobs::FunctionLogsQuery};

use crate::{
    commands::{deploy, logs},
    failure::Failure,
    pack, session,
    target::Target,
};

/// How soon a saved file is noticed.
const POLL: Duration = Duration::from_millis(40);
/// A look costs one stat for each file: it takes at most this share of the time.
const LOOKS_SHARE: u32 = 10;
/// The logs' request is held so long; it is asked again at once.
const LOGS_WAIT_MS: u32 = 20_000;
/// Room for `-dev` in 30.
const NAME_MAX: usize = 26;

/// Watch files and folders: deploy each save as NAME-dev, and show logs and errors
#[derive(Debug, clap::Args)]
pub struct Dev {
    /// A file or folder, as for `deploy` [default: all functions of the project file piecework.toml in this folder or above]
    path: Option<PathBuf>,
    /// Name of the function, without `-dev` [default: the name of the file or folder]; of a project, watch only this one
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    settings: deploy::Settings,
}

/// A function that is watched.
struct Watched {
    target: Target,
    path: PathBuf,
    name: String,
    seen: (SystemTime, usize),
}

impl Dev {
    pub async fn run(self) -> Result<(), Failure> {
        let client = session::connect()?;
        let mut watched = Vec::new();
        for target in Target::all(self.path.as_deref(), self.name, self.settings)? {
            watched.push(Watched::first(&client, target).await?);
        }
        for each in &watched {
            eprintln!("watching {}", each.path.display());
        }
        eprintln!("press Ctrl-C to stop");
        let follow = watched
            .iter()
            .map(|each| follow_logs(client.clone(), each.name.clone()));
        let mut follow: FuturesUnordered<_> = follow.collect();
        let mut wait = POLL;
        loop {
            tokio::select! {
                Some(ended) = follow.next() => return ended,
                () = tokio::time::sleep(wait) => {}
            }
            let began = Instant::now();
            let changed: Vec<bool> = watched.iter_mut().map(Watched::has_changed).collect();
            wait = POLL.max(began.elapsed() * LOOKS_SHARE).min(Duration::from_secs(2));
            for (each, _) in watched.iter().zip(changed).filter(|(_, changed)| *changed) {
                each.deploy(&client).await?;
            }
        }
    }
}

impl Watched {
    /// The first deployment must succeed: later ones have something to fall back on.
    async fn first(client: &Client, target: Target) -> Result<Self, Failure> {
        let path = target
            .path()
            .ok_or_else(|| Failure::usage("only files can be watched"))?
            .to_owned();
        let seen = pack::mark(&path)?;
        let source = target.source()?;
        let stem = target
            .name
            .clone()
            .or_else(|| source.name.clone())
            .unwrap_or_else(|| "function".into());
        let name = format!("{}-dev", stem.get(..NAME_MAX).unwrap_or(&stem).trim_end_matches('-'));
        let view = target.send(client, &name, source).await?;
        eprintln!(
            "{} version {} in {}\n{}",
            view.name, view.version, view.sandbox, view.url
        );
        Ok(Self {
            target,
            path,
            name,
            seen,
        })
    }

    fn has_changed(&mut self) -> bool {
        // An editor may be in the middle of replacing it.
        let Ok(now) = pack::mark(&self.path) else { return false };
        std::mem::replace(&mut self.seen, now) != now
    }

    /// A refusal is shown and the version before stays; a lost connection ends the command.
    async fn deploy(&self, client: &Client) -> Result<(), Failure> {
        let began = Instant::now();
        let deployed = match self.target.source() {
            Ok(source) => self.target.send(client, &self.name, source).await,
            Err(failure) => Err(failure),
        };
        match deployed {
            Ok(view) => eprintln!(
                "{} version {} after {} ms",
                view.name,
                view.version,
                began.elapsed().as_millis()
            ),
            Err(failure @ Failure::NoConnection { .. }) => return Err(failure),
            Err(failure) => eprintln!("{failure}"),
        }
        Ok(())
    }
}

async fn follow_logs(client: Client, name: String) -> Result<(), Failure> {
    let mut after = logs::newest(&client, &name).await?;
    loop {
        let query = FunctionLogsQuery {
            after,
            wait_ms: Some(LOGS_WAIT_MS),
            limit: None,
            level: None,
        };
        let page = client.function_logs(&name, &query).await?;
        after = logs::print(&page.items)?.or(query.after);
    }
}
