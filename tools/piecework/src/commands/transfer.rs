//! `piecework transfer`: credits from one account to another.

use std::path::{Path, PathBuf};

use piecework_api::{
    Client,
    ledger::{CreateTransfer, TransferView},
};
use piecework_ledger::Action;
use piecework_model::{Code, Credits};

use super::signed;
use crate::{failure::Failure, keyfile, pending::Pending, session, show, units};

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

/// With a key of its own, which the same command has again until its outcome is known.
async fn once(client: &Client, body: &CreateTransfer) -> Result<TransferView, Failure> {
    let account = client.own_account().await?.id.to_string();
    let amount = body.amount_ucr.to_string();
    let words = ["transfer", &body.to, &amount, body.memo.as_deref().unwrap_or_default()];
    let pending = Pending::of(client, &account, &words);
    if pending.is_repeated {
        eprintln!("an earlier run of this command was not answered; this one asks for the same transfer");
    }
    let outcome = client
        .transfer(body, Some(&pending.key))
        .await
        .map_err(|error| queued(error.into()));
    pending.ended(&outcome);
    outcome
}

/// On the command line, the same command is the same request.
fn queued(failure: Failure) -> Failure {
    match failure {
        Failure::Refused {
            mut refusal,
            retry_after,
        } if refusal.code == Code::TransferQueued => {
            refusal.hint =
                Some("run the same command again to see whether it is final; the credits move once".to_owned());
            Failure::Refused { refusal, retry_after }
        }
        other => other,
    }
}

async fn signed_here(client: &Client, key: &Path, to: &str, amount: Credits) -> Result<TransferView, Failure> {
    let to = client.account(to).await?;
    let action = Action::Transfer(piecework_ledger::Transfer { to: to.id, amount });
    let signed = signed::submit(client, &keyfile::existing(key)?, action).await?;
    Ok(TransferView {
        transaction: signed.done.id,
        height: signed.done.height,
        from: signed.sender.name,
        to: to.name,
        amount_ucr: amount,
        posted_ucr: client.own_account().await?.posted_ucr,
    })
}
