//! Transactions for accounts whose owners keep the key: signed here, forwarded by the server.

use anyhow::Context as _;
use piecework_api::{
    Client,
    accounts::AccountView,
    ledger::{SubmitTransaction, TransactionView},
};
use piecework_ledger::{Action, SignedTransaction, Transaction};
use piecework_model::{Code, SecretKey};

use crate::{
    failure::Failure,
    pending::{self, Pending},
};

/// A transaction that is final.
pub struct Signed {
    /// As it was before; its nonce is the transaction's.
    pub sender: AccountView,
    pub done: TransactionView,
}

/// Signs with the next nonce of the account that is logged in, and returns when it is final.
pub async fn submit(client: &Client, key: &SecretKey, action: Action) -> Result<Signed, Failure> {
    let sender = client.own_account().await?;
    let signed = sign(client, &sender, key, action).await?;
    let done = client.submit(&body(&signed)?).await?;
    Ok(Signed { sender, done })
}

/// The same for what would count twice: until the outcome is known, the same command sends the same transaction again, which
/// the ledger executes once.
pub async fn submit_once(client: &Client, key: &SecretKey, action: Action) -> Result<Signed, Failure> {
    let mut sender = client.own_account().await?;
    let words = hex::encode(borsh::to_vec(&action).context("an action is plain data")?);
    let pending = match Pending::look(client, &sender.id.to_string(), &["signed", &words]) {
        Ok(pending) => pending,
        Err(place) => {
            let signed = sign(client, &sender, key, action).await?;
            place.keep(&body(&signed)?.transaction)
        }
    };
    pending.tell();
    let bytes = hex::decode(&pending.key).context("reading the transaction of an earlier run")?;
    let signed: SignedTransaction = borsh::from_slice(&bytes).context("reading the transaction of an earlier run")?;
    sender.nonce = signed.transaction.nonce;
    let outcome = executed(client, &signed).await.map_err(pending::queued);
    pending.ended(&outcome);
    Ok(Signed { sender, done: outcome? })
}

async fn executed(client: &Client, signed: &SignedTransaction) -> Result<TransactionView, Failure> {
    match client.submit(&body(signed)?).await {
        Ok(done) => Ok(done),
        Err(error) => {
            let failure = Failure::from(error);
            match failure.is_refusal(Code::TransactionStaleNonce) {
                // The nonce is used up: by this transaction, long ago, or by another one.
                true => client.transaction(&signed.id().0.to_string()).await.or(Err(failure)),
                false => Err(failure),
            }
        }
    }
}

async fn sign(
    client: &Client,
    sender: &AccountView,
    key: &SecretKey,
    action: Action,
) -> Result<SignedTransaction, Failure> {
    let network = client.ledger_status().await?.network;
    let transaction = Transaction {
        sender: sender.id,
        nonce: sender.nonce,
        action,
    };
    Ok(SignedTransaction::sign(transaction, key, &network))
}

fn body(signed: &SignedTransaction) -> Result<SubmitTransaction, Failure> {
    let bytes = borsh::to_vec(signed).context("a transaction is plain data")?;
    Ok(SubmitTransaction {
        transaction: hex::encode(bytes),
    })
}
