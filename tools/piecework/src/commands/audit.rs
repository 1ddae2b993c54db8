//! `piecework audit`: who changed what, and when.

use piecework_api::audit::AuditQuery;

use crate::{failure::Failure, session, show};

/// List changes, newest first; operators see everybody's, others only their own
#[derive(Debug, clap::Args)]
pub struct Audit {
    /// Only actions with this prefix, like function. or token.created
    #[arg(long, value_name = "TEXT")]
    action: Option<String>,
    /// Only changes to this function, token or account
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    #[command(flatten)]
    page: super::Page,
}

impl Audit {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let query = AuditQuery {
            action: self.action,
            target: self.target,
            limit: Some(self.page.limit),
            cursor: self.page.cursor,
        };
        let list = session::connect()?.audit(&query).await?;
        if json {
            return show::json(&list);
        }
        let rows = list.items.into_iter().map(|entry| {
            [
                show::time(entry.at),
                entry.actor,
                entry.action,
                entry.target,
                entry.owner,
                entry.detail.to_string(),
            ]
        });
        let header = ["AT", "WHO", "DID", "TO", "OF", "DETAIL"];
        show::fitted(header, rows.collect(), "no changes yet", &["OF"])?;
        super::more(list.next.as_deref());
        Ok(())
    }
}
