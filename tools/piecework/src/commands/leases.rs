//! `piecework leases`: what is held to pay for runs.

use crate::{failure::Failure, session, show};

/// List your leases
#[derive(Debug, clap::Args)]
pub struct Leases {
    #[command(flatten)]
    page: super::Page,
}

impl Leases {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let list = session::connect()?.leases(&self.page.query()).await?;
        if json {
            return show::json(&list);
        }
        let rows = list.items.into_iter().map(|lease| {
            [
                lease.id.to_string(),
                lease.state,
                lease.function.unwrap_or_else(|| "all functions".into()),
                lease.provider.unwrap_or_else(|| "the network".into()),
                show::ucr(lease.budget_ucr),
                show::ucr(lease.used_ucr),
                show::ucr(lease.reserved_ucr),
            ]
        });
        let header = ["LEASE", "STATE", "FOR", "WITH", "BUDGET", "USED", "RESERVED"];
        show::table(header, rows.collect(), "no leases: the first run opens one")?;
        super::more(list.next.as_deref());
        Ok(())
    }
}
