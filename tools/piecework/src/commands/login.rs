//! `piecework login`: proves who one is and remembers the token.

use std::{io::BufRead as _, io::IsTerminal as _};

use anyhow::Context as _;
use piecework_api::{
    Client,
    accounts::{CreateAccount, CreateSession},
};

use crate::{
    failure::Failure,
    session::{self, Login as Remembered},
};

/// Log in to a controller and remember it
#[derive(Debug, clap::Args)]
pub struct Login {
    /// Where the controller answers, like http://127.0.0.1:7433
    url: String,
    /// A token, as `tokens create` prints it
    #[arg(long, value_name = "T", conflicts_with_all = ["invite", "name"])]
    token: Option<String>,
    /// Register first, with this invite
    #[arg(long, value_name = "CODE", requires = "name")]
    invite: Option<String>,
    /// The account's name; the password is asked for, or read from standard input
    #[arg(long)]
    name: Option<String>,
    /// Register first, where the network takes everybody
    #[arg(long, requires = "name")]
    register: bool,
}

impl Login {
    pub async fn run(self) -> Result<(), Failure> {
        let token = match (&self.token, &self.name) {
            (Some(token), _) => token.clone(),
            (None, Some(name)) => self.by_password(name).await?,
            (None, None) => secret("token")?,
        };
        let client = Client::new(&self.url, Some(token.clone()))?;
        let account = client.own_account().await?;
        let login = Remembered {
            url: client.base().to_owned(),
            token,
            account: account.name,
        };
        session::remember(&login)?;
        eprintln!("logged in to {} as {}", login.url, login.account);
        Ok(())
    }

    async fn by_password(&self, name: &str) -> Result<String, Failure> {
        let client = Client::new(&self.url, None)?;
        let password = secret("password")?;
        if self.register || self.invite.is_some() {
            let body = CreateAccount {
                name: name.to_owned(),
                password: Some(password.clone()),
                invite: self.invite.clone(),
                ..CreateAccount::default()
            };
            let account = client.create_account(&body).await?;
            eprintln!("registered {}", account.name);
        }
        let body = CreateSession {
            name: name.to_owned(),
            password: Some(password),
            ..CreateSession::default()
        };
        Ok(client.create_session(&body).await?.token)
    }
}

/// From the terminal without showing it, else a line of standard input. Never an argument: those are seen by everybody.
fn secret(what: &str) -> Result<String, Failure> {
    let line = if std::io::stdin().is_terminal() {
        eprint!("{what}: ");
        console::Term::stderr()
            .read_secure_line()
            .with_context(|| format!("cannot read the {what}"))?
    } else {
        let mut line = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut line)
            .with_context(|| format!("cannot read the {what}"))?;
        line
    };
    let line = line.trim_end_matches(['\r', '\n']).to_owned();
    if line.is_empty() {
        Err(Failure::usage(format!("no {what} was given")))
    } else {
        Ok(line)
    }
}
