//! `piecework account`: a ledger account.

use std::path::{Path, PathBuf};

use piecework_api::{Client, accounts::AccountView};
use piecework_ledger::{Action, RotateKey};
use piecework_model::Domain;
use piecework_proof::{Invalid, Proof};

use super::{
    signed,
    verify::{self, Trusted},
};
use crate::{failure::Failure, keyfile, session, show};

/// Show an account's credits, or change your account's key
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Account {
    /// Name of the account [default: your own]
    name: Option<String>,
    /// Fetch and check the proof of the balances: path in the state, block, certificate
    #[arg(long)]
    proof: bool,
    /// Save the proof to a file, for `piecework ledger verify`
    #[arg(short, long, value_name = "FILE", requires = "proof")]
    output: Option<PathBuf>,
    #[command(flatten)]
    trusted: Trusted,
    #[command(subcommand)]
    action: Option<Change>,
}

#[derive(Debug, clap::Subcommand)]
enum Change {
    /// Replace your account's key: the controller makes the new one, or give your own with --key and --new-key
    RotateKey {
        /// File with the account's current key
        #[arg(long, value_name = "FILE", requires = "new_key")]
        key: Option<PathBuf>,
        /// File with the new key; created if it does not exist
        #[arg(long, value_name = "FILE", requires = "key")]
        new_key: Option<PathBuf>,
    },
}

impl Account {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        if let Some(Change::RotateKey { key, new_key }) = &self.action {
            return rotate(&client, key.as_deref().zip(new_key.as_deref()), json).await;
        }
        if self.proof {
            return self.check(&client, json).await;
        }
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

impl Account {
    async fn check(&self, client: &Client, json: bool) -> Result<(), Failure> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => client.own_account().await?.name,
        };
        let view = client.account_proof(&name).await?;
        let shown = view.proof.ok_or(Invalid::Malformed("there is none"))?;
        let proof = verify::read(&shown, self.output.as_deref())?;
        let Proof::Value(proof) = proof else {
            return Err(Invalid::Malformed("the proof is not for an account").into());
        };
        verify::account(&self.trusted.ground(Some(client)).await?, &proof, &name, json)
    }
}

async fn rotate(client: &Client, files: Option<(&Path, &Path)>, json: bool) -> Result<(), Failure> {
    let view = match files {
        None => client.rotate_key().await?,
        Some((old, new)) => {
            let account = client.own_account().await?;
            let network = client.ledger_status().await?.network;
            let (old, new) = (keyfile::existing(old)?, keyfile::existing_or_new(new)?);
            let action = Action::RotateKey(RotateKey {
                new_key: new.public(),
                proof: new.sign(Domain::Owner, &network, &account.id),
            });
            signed::submit(client, &old, action).await?;
            client.own_account().await?
        }
    };
    if json {
        show::json(&view)
    } else {
        show::text(&format!("{} has the key {}\n", view.name, view.key))
    }
}

pub(super) fn rows(view: &AccountView) -> Vec<(&'static str, String)> {
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
