//! Transactions for accounts whose owners keep the key: signed here, forwarded by the server.

use anyhow::Context as _;
use piecework_api::{
    Client,
    accounts::AccountView,
    ledger::{SubmitTransaction, TransactionView},
};
use piecework_ledger::{Action, SignedTransaction, Transaction};
use piecework_model::SecretKey;

use crate::failure::Failure;

/// A transaction that is final.
pub struct Signed {
    /// As it was before; its nonce is the transaction's.
    pub sender: AccountView,
    pub done: TransactionView,
}

/// Signs with the next nonce of the account that is logged in, and returns when it is final.
pub async fn submit(client: &Client, key: &SecretKey, action: Action) -> Result<Signed, Failure> {
    let account = client.own_account().await?;
    let network = client.ledger_status().await?.network;
    let transaction = Transaction {
        sender: account.id,
        nonce: account.nonce,
        action,
    };
    let signed = SignedTransaction::sign(transaction, key, &network);
    let bytes = borsh::to_vec(&signed).context("a transaction is plain data")?;
    let body = SubmitTransaction {
        transaction: hex::encode(bytes),
    };
    Ok(Signed {
        sender: account,
        done: client.submit(&body).await?,
    })
}
