//! `piecework login`: authenticates and remembers the token.

use std::{
    io::{BufRead as _, IsTerminal as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use piecework_api::{
    Client,
    accounts::{CreateAccount, CreateSession, Role, sign_login},
};
use piecework_ledger::{Action, Register, Roles, SignedTransaction, Transaction};
use piecework_model::{AccountId, NetworkId, OwnerName, SecretKey};

use crate::{
    failure::Failure,
    keyfile,
    session::{self, Login as Remembered},
    units,
};

/// Log in to a controller and remember the login
#[derive(Debug, clap::Args)]
pub struct Login {
    /// URL of the controller, like http://127.0.0.1:7433
    url: String,
    /// Token, as printed by `tokens create`
    #[arg(long, value_name = "T", conflicts_with_all = ["invite", "name"])]
    token: Option<String>,
    /// Log in with the key in this file instead of a password; with --invite or --register a missing key is created
    #[arg(long, value_name = "FILE", requires = "name")]
    key: Option<PathBuf>,
    /// Register first with this invite
    #[arg(long, value_name = "CODE", requires = "name")]
    invite: Option<String>,
    /// Name of the account; the password is read from a prompt or from standard input
    #[arg(long)]
    name: Option<String>,
    /// Register first without an invite, if the network allows it
    #[arg(long, requires = "name")]
    register: bool,
}

impl Login {
    pub async fn run(self) -> Result<(), Failure> {
        let token = match (&self.token, &self.name) {
            (Some(token), _) => token.clone(),
            (None, Some(name)) => match &self.key {
                Some(path) => self.by_key(name, path).await?,
                None => self.by_password(name).await?,
            },
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

    async fn by_key(&self, name: &str, path: &Path) -> Result<String, Failure> {
        let client = Client::new(&self.url, None)?;
        let registers = self.register || self.invite.is_some();
        let key = if registers {
            keyfile::existing_or_new(path)?
        } else {
            keyfile::existing(path)?
        };
        let challenge = client.challenge(name).await?;
        if registers {
            let body = registration(name, &key, &challenge.network, self.invite.clone())?;
            let account = client.create_account(&body).await?;
            eprintln!("registered {}", account.name);
        }
        let body = CreateSession {
            name: name.to_owned(),
            signature: Some(sign_login(&key, &challenge.network, name, &challenge.challenge)),
            challenge: Some(challenge.challenge),
            password: None,
        };
        Ok(client.create_session(&body).await?.token)
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

/// What registers an account of this key: its first transaction, signed.
fn registration(
    name: &str,
    key: &SecretKey,
    network: &NetworkId,
    invite: Option<String>,
) -> Result<CreateAccount, Failure> {
    let owner: OwnerName = units::noun(name).map_err(Failure::usage)?;
    let roles = [Role::Developer];
    let transaction = Transaction {
        sender: AccountId::of(&key.public()),
        nonce: 0,
        action: Action::Register(Register {
            name: owner,
            roles: Roles {
                developer: true,
                ..Roles::default()
            },
            sponsor: None,
            owner: None,
        }),
    };
    let signed = SignedTransaction::sign(transaction, key, network);
    Ok(CreateAccount {
        name: name.to_owned(),
        public_key: Some(key.public()),
        registration: Some(hex::encode(
            borsh::to_vec(&signed).context("a transaction is plain data")?,
        )),
        roles: roles.to_vec(),
        invite,
        password: None,
    })
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
        Err(Failure::usage(format!("no {what} given")))
    } else {
        Ok(line)
    }
}
