//! `piecework account`: a ledger account.

use piecework_api::accounts::AccountView;

use crate::{failure::Failure, session, show};

/// Show an account's credits
#[derive(Debug, clap::Args)]
pub struct Account {
    /// [default: your own]
    name: Option<String>,
}

impl Account {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        let view = match &self.name {
            Some(name) => client.account(name).await?,
            None => client.own_account().await?,
        };
        if json {
            show::json(&view)
        } else {
            show::fields(&rows(&view))
        }
    }
}

fn rows(view: &AccountView) -> Vec<(&'static str, String)> {
    let roles: Vec<&str> = view.roles.iter().map(|role| role.as_str()).collect();
    vec![
        ("name", view.name.clone()),
        ("id", view.id.to_string()),
        ("key", view.key.to_string()),
        ("roles", roles.join(" ")),
        ("owns", show::ucr_long(view.posted_ucr)),
        ("held", show::ucr_long(view.held_ucr)),
        ("limit", show::ucr_long(view.limit_ucr)),
        ("available", show::ucr_long(view.available_ucr)),
        ("sponsor", show::or_dash(view.sponsor.as_ref())),
        ("as of block", view.height.to_string()),
    ]
}
