//! `piecework versions`: what was deployed under a name.

use crate::{failure::Failure, session, show};

/// List a function's versions
#[derive(Debug, clap::Args)]
pub struct Versions {
    /// Name or id of the function
    name: String,
    #[command(flatten)]
    page: super::Page,
}

impl Versions {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let list = session::connect()?.versions(&self.name, &self.page.query()).await?;
        if json {
            return show::json(&list);
        }
        let rows = list.items.into_iter().map(|version| {
            let live = if version.live { "live" } else { "" };
            [
                version.version.to_string(),
                live.to_owned(),
                version.sandbox,
                show::bytes(version.code_bytes),
                version.code_digest.to_string()[..12].to_owned(),
                show::time(version.created_at),
            ]
        });
        show::table(
            ["VERSION", "", "SANDBOX", "SIZE", "CODE", "CREATED"],
            rows.collect(),
            "no versions",
        )?;
        super::more(list.next.as_deref());
        Ok(())
    }
}
