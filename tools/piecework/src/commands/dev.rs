//! `piecework dev`: save, and the next call runs the new code.

use std::{path::PathBuf, time::Duration};

use piecework_api::{Client, jobs::FunctionLogsQuery};

use crate::{
    commands::{deploy, logs},
    failure::Failure,
    pack, session, source,
};

/// How soon a saved file is noticed; a look costs one stat for each file.
const POLL: Duration = Duration::from_millis(300);
/// The logs' request is held so long; it is asked again at once.
const LOGS_WAIT_MS: u32 = 20_000;
/// Room for `-dev` in 30.
const NAME_MAX: usize = 26;

/// Watch a file or folder: deploy each save as NAME-dev, and show logs and errors
#[derive(Debug, clap::Args)]
pub struct Dev {
    /// A file or folder, as for `deploy`
    path: PathBuf,
    /// Name of the function, without `-dev` [default: the name of the file or folder]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    settings: deploy::Settings,
}

impl Dev {
    pub async fn run(self) -> Result<(), Failure> {
        let client = session::connect()?;
        let mut seen = pack::mark(&self.path)?;
        let name = self.deploy_first(&client).await?;
        eprintln!("watching {}; press Ctrl-C to stop", self.path.display());
        let mut follow = Box::pin(follow_logs(client.clone(), name.clone()));
        loop {
            tokio::select! {
                ended = &mut follow => return ended,
                () = tokio::time::sleep(POLL) => {}
            }
            // An editor may be in the middle of replacing it.
            let Ok(now) = pack::mark(&self.path) else { continue };
            if now != seen {
                seen = now;
                self.deploy(&client, &name).await?;
            }
        }
    }

    /// The first deployment must succeed: later ones have something to fall back on.
    async fn deploy_first(&self, client: &Client) -> Result<String, Failure> {
        let source = source::read(&self.path, self.settings.language)?;
        let stem = self
            .name
            .clone()
            .or_else(|| source.name.clone())
            .unwrap_or_else(|| "function".into());
        let name = format!("{}-dev", stem.get(..NAME_MAX).unwrap_or(&stem).trim_end_matches('-'));
        let view = deploy::send(client, &name, source, &self.settings).await?;
        eprintln!(
            "{} version {} in {}\n{}",
            view.name, view.version, view.sandbox, view.url
        );
        Ok(name)
    }

    /// A refusal is shown and the version before stays; a lost connection ends the command.
    async fn deploy(&self, client: &Client, name: &str) -> Result<(), Failure> {
        let deployed = match source::read(&self.path, self.settings.language) {
            Ok(source) => deploy::send(client, name, source, &self.settings).await,
            Err(failure) => Err(failure),
        };
        match deployed {
            Ok(view) => eprintln!("{} version {}", view.name, view.version),
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
