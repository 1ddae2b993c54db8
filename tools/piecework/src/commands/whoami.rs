//! `piecework whoami`: which account, at which server, and how much it may spend.

use serde::Serialize;

use crate::{failure::Failure, session, show};

/// Show which account you use, and at which server
#[derive(Debug, clap::Args)]
pub struct Whoami {}

#[derive(Serialize)]
struct Who {
    account: String,
    url: String,
    roles: Vec<String>,
    available_ucr: piecework_model::Credits,
}

impl Whoami {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        let account = client.own_account().await?;
        let who = Who {
            account: account.name,
            url: client.base().to_owned(),
            roles: account.roles.iter().map(|role| role.as_str().to_owned()).collect(),
            available_ucr: account.available_ucr,
        };
        if json {
            return show::json(&who);
        }
        show::fields(&[
            ("account", who.account),
            ("server", who.url),
            ("roles", who.roles.join(" ")),
            ("available", show::ucr_long(who.available_ucr)),
        ])
    }
}
