//! `piecework functions`: the caller's functions.

use piecework_api::functions::FunctionsQuery;

use crate::{failure::Failure, session, show};

/// List your functions
#[derive(Debug, clap::Args)]
pub struct Functions {
    /// Only functions whose name contains this
    #[arg(long, value_name = "TEXT", alias = "search")]
    name: Option<String>,
    /// Only deleted functions that can still be restored
    #[arg(long)]
    deleted: bool,
    #[command(flatten)]
    page: super::Page,
}

impl Functions {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let query = FunctionsQuery {
            name: self.name,
            deleted: self.deleted.then_some(true),
            limit: Some(self.page.limit),
            cursor: self.page.cursor,
        };
        let list = session::connect()?.functions(&query).await?;
        if json {
            return show::json(&list);
        }
        let rows = list.items.into_iter().map(|function| {
            let status = format!("{:?}", function.status).to_lowercase();
            let (version, updated) = (function.version.to_string(), show::time(function.updated_at));
            [
                function.name,
                version,
                function.language.to_string(),
                function.sandbox,
                status,
                updated,
                function.url,
            ]
        });
        let header = ["NAME", "VERSION", "LANGUAGE", "SANDBOX", "STATUS", "UPDATED", "URL"];
        show::fitted(
            header,
            rows.collect(),
            "no functions yet; create one with `piecework new hello --language python`",
            &["URL", "LANGUAGE", "SANDBOX"],
        )?;
        super::more(list.next.as_deref());
        Ok(())
    }
}
