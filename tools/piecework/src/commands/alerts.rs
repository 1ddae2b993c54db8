//! `piecework alerts`: what is wrong on the server, and whether its operator would hear of it.

use crate::{failure::Failure, session, show};

/// List what is wrong on the server, or send a test alert (operators only)
#[derive(Debug, clap::Args)]
pub struct Alerts {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List what is wrong now
    List,
    /// Send a test message to the webhook and the command, and say whether they took it
    Test,
}

impl Alerts {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        match self.action.unwrap_or(Action::List) {
            Action::List => {
                let list = client.alerts().await?;
                if json {
                    return show::json(&list);
                }
                let rows = list.items.into_iter();
                let rows = rows.map(|alert| [alert.rule, alert.subject, show::time(alert.since), alert.message]);
                show::table(["RULE", "ABOUT", "SINCE", "WHAT"], rows.collect(), "nothing is wrong")
            }
            Action::Test => {
                client.test_alerts().await?;
                match json {
                    true => Ok(()),
                    false => show::text("the test message was taken\n"),
                }
            }
        }
    }
}
