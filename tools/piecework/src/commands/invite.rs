//! `piecework invite`: a code that lets one account register.

use std::time::Duration;

use anyhow::Context as _;
use piecework_api::accounts::{CreateInvite, Role};
use piecework_model::Credits;

use crate::{failure::Failure, pending, session, show, units};

/// Create an invite for one new account
#[derive(Debug, clap::Args)]
pub struct Invite {
    /// Role of the new account: developer, provider, peer or controller; may be repeated [default: developer]
    #[arg(long, value_parser = role)]
    role: Vec<Role>,
    /// Credits that the new account gets from yours
    #[arg(long, value_name = "AMOUNT", value_parser = units::credits_ucr)]
    grant: Option<i128>,
    /// Credits that the new account may owe; your account holds this amount
    #[arg(long, value_name = "AMOUNT", value_parser = units::credits_ucr)]
    lend: Option<i128>,
    /// How long the invite is valid
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = units::duration)]
    expires: Duration,
}

fn role(text: &str) -> Result<Role, String> {
    let named = Role::ALL.into_iter().find(|role| role.as_str() == text);
    named.ok_or_else(|| format!("`{text}` is not a role: developer, provider, peer or controller"))
}

impl Invite {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        let is_for_a_computer = self.role == [Role::Provider];
        let body = CreateInvite {
            roles: self.role,
            grant_ucr: self.grant.map(Credits),
            lend_ucr: self.lend.map(Credits),
            expires_in_s: Some(self.expires.as_secs()),
        };
        let words = serde_json::to_string(&body).context("an invite is plain data")?;
        let create = async |key: &str| client.create_invite(&body, Some(key)).await;
        let invite = pending::once(&client, &["invite", &words], create).await?;
        if json {
            return show::json(&invite);
        }
        show::text(&format!("{}\n", invite.code))?;
        let (url, code) = (client.base(), &invite.code);
        let next = match is_for_a_computer {
            true => format!("piecework provide --controller {url} --invite {code}"),
            false => format!("piecework login {url} --name NAME --invite {code}"),
        };
        eprintln!("until {}: {next}", show::time(invite.expires_at));
        Ok(())
    }
}
