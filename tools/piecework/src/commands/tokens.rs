//! `piecework tokens`: tokens that act for the caller's account.

use std::time::Duration;

use piecework_api::{
    PageQuery,
    accounts::{CreateToken, Scope},
};

use crate::{failure::Failure, session, show, units};

/// List, create and revoke tokens
#[derive(Debug, clap::Args)]
pub struct Tokens {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List your tokens
    List {
        #[command(flatten)]
        page: super::Page,
    },
    /// Create a token; it is shown only once
    Create {
        /// Scope: deploy, invoke, view or admin; may be repeated
        #[arg(long, required = true, value_parser = units::noun::<Scope>)]
        scope: Vec<Scope>,
        /// Note about the token's purpose
        #[arg(long, default_value = "")]
        label: String,
        /// How long the token is valid, up to 365d
        #[arg(long, value_name = "TIME", default_value = "90d", value_parser = units::duration)]
        expires: Duration,
    },
    /// Revoke a token
    Delete { id: String },
}

impl Tokens {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let Some(action) = self.action else {
            return list(&PageQuery::default(), json).await;
        };
        match action {
            Action::List { page } => list(&page.query(), json).await,
            Action::Create { scope, label, expires } => {
                let body = CreateToken {
                    label,
                    scopes: scope,
                    expires_in_s: Some(expires.as_secs()),
                };
                let made = session::connect()?.create_token(&body).await?;
                if json {
                    show::json(&made)
                } else {
                    show::text(&format!("{}\n", made.token))
                }
            }
            Action::Delete { id } => {
                session::connect()?.delete_token(&id).await?;
                eprintln!("revoked {id}");
                Ok(())
            }
        }
    }
}

async fn list(query: &PageQuery, json: bool) -> Result<(), Failure> {
    let list = session::connect()?.tokens(query).await?;
    if json {
        return show::json(&list);
    }
    let rows = list.items.into_iter().map(|token| {
        let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.as_str()).collect();
        [
            token.id,
            scopes.join(" "),
            show::time(token.created_at),
            show::or_dash(token.expires_at.map(show::time)),
            show::or_dash(token.last_used_at.map(show::time)),
            token.label,
        ]
    });
    show::table(
        ["ID", "SCOPES", "CREATED", "EXPIRES", "LAST USED", "LABEL"],
        rows.collect(),
        "no tokens",
    )?;
    super::more(list.next.as_deref());
    Ok(())
}
