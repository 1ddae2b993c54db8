//! `piecework provider`: the computers that run functions.

use piecework_api::{ledger::ProviderView, page::PageQuery};

use crate::{failure::Failure, session, show};

/// Look at the providers
#[derive(Debug, clap::Args)]
pub struct Provider {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Each provider's state, work and earnings
    Status,
}

impl Provider {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        match self.action {
            Action::Status => status(json).await,
        }
    }
}

async fn status(json: bool) -> Result<(), Failure> {
    let list = session::connect()?.providers(&PageQuery::default()).await?;
    if json {
        return show::json(&list);
    }
    let header = [
        "PROVIDER",
        "STATE",
        "SANDBOXES",
        "RUNNING",
        "WARM",
        "JOBS",
        "EARNED",
        "LAST SEEN",
    ];
    show::table(header, list.items.into_iter().map(row).collect(), "no providers")
}

fn row(provider: ProviderView) -> [String; 8] {
    [
        provider.name,
        format!("{:?}", provider.state).to_lowercase(),
        provider.backends.join(" "),
        format!("{} of {}", provider.running, provider.slots),
        provider.warm_instances.to_string(),
        provider.jobs_done.to_string(),
        show::ucr(provider.earned_ucr),
        show::or_dash(provider.last_seen_at.map(show::time)),
    ]
}
