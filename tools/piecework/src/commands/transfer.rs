//! `piecework transfer`: credits from one account to another.

use std::path::{Path, PathBuf};

use piecework_api::{
    Client,
    ledger::{CreateTransfer, TransferView},
};
use piecework_ledger::Action;
use piecework_model::Credits;

use super::signed;
use crate::{failure::Failure, keyfile, pending, session, show, units};

/// Send credits to an account
#[derive(Debug, clap::Args)]
pub struct Transfer {
    /// Account to send to
    to: String,
    /// Amount: whole micro-credits like 250, or credits like 1.5cr
    #[arg(value_parser = units::credits_ucr, allow_hyphen_values = true)]
    amount: i128,
    /// Memo, at most 100 characters; both sides see it in their statements
    #[arg(long)]
    memo: Option<String>,
    /// Idempotency key: repeated transfers with the same key move the credits once. Without one, a command whose outcome is
    /// not known yet has the same key when you run it again
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// File with your account's key, if you keep it yourself
    #[arg(long, value_name = "FILE", conflicts_with_all = ["memo", "idempotency_key"])]
    key: Option<PathBuf>,
}

impl Transfer {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        let amount = Credits(self.amount);
        let done = match &self.key {
            Some(key) => signed_here(&client, key, &self.to, amount).await?,
            None => {
                let body = CreateTransfer {
                    to: self.to,
                    amount_ucr: amount,
                    memo: self.memo,
                };
                match &self.idempotency_key {
                    Some(key) => client.transfer(&body, Some(key)).await?,
                    None => once(&client, &body).await?,
                }
            }
        };
        if json {
            return show::json(&done);
        }
        let (amount, left) = (show::ucr_long(done.amount_ucr), show::ucr_long(done.posted_ucr));
        show::text(&format!(
            "{amount} from {} to {} in block {}; left {left}\n",
            done.from, done.to, done.height
        ))
    }
}

/// With a key of its own.
async fn once(client: &Client, body: &CreateTransfer) -> Result<TransferView, Failure> {
    let amount = body.amount_ucr.to_string();
    let words = ["transfer", &body.to, &amount, body.memo.as_deref().unwrap_or_default()];
    pending::once(client, &words, async |key| client.transfer(body, Some(key)).await).await
}

async fn signed_here(client: &Client, key: &Path, to: &str, amount: Credits) -> Result<TransferView, Failure> {
    let to = client.account(to).await?;
    let action = Action::Transfer(piecework_ledger::Transfer { to: to.id, amount });
    let signed = signed::submit_once(client, &keyfile::existing(key)?, action).await?;
    Ok(TransferView {
        transaction: signed.done.id,
        height: signed.done.height,
        from: signed.sender.name,
        to: to.name,
        amount_ucr: amount,
        posted_ucr: client.own_account().await?.posted_ucr,
    })
}
