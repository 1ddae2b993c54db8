//! Asks a peer's API, as people and programs do.

use std::time::Duration;

use piecework_ledger::{Action, SignedTransaction, Transaction, Transfer};
use piecework_model::{AccountId, Code, Credits};
use serde_json::{Value, json};

use super::{Served, key};

pub const WITHIN: Duration = Duration::from_secs(60);

/// A peer and who reads at it.
pub struct Reader {
    pub served: Served,
    pub http: reqwest::Client,
    _directory: tempfile::TempDir,
}

impl Reader {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let served = Served::anywhere(directory.path()).await;
        let reader = Self {
            served,
            http: reqwest::Client::new(),
            _directory: directory,
        };
        reader.ready().await;
        reader
    }

    pub async fn ready(&self) {
        let look = async {
            while self.ask("/readyz").await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(WITHIN, look).await.unwrap();
    }

    pub async fn ask(&self, path: &str) -> (u16, Value) {
        let answer = self
            .http
            .get(format!("{}{path}", self.served.url))
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        (
            status,
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default(),
        )
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub async fn refused(&self, path: &str, status: u16, code: Code) {
        let (seen, body) = self.ask(path).await;
        assert_eq!(
            (seen, body["error"]["code"].as_str()),
            (status, Some(code.as_str())),
            "{path}: {body}"
        );
    }

    /// Final when it returns; the transaction as it is shown.
    pub async fn send(&self, from: u8, nonce: u64, action: Action) -> Value {
        let transaction = Transaction {
            sender: AccountId::of(&key(from).public()),
            nonce,
            action,
        };
        let signed = SignedTransaction::sign(transaction, &key(from), &self.served.genesis.network_id());
        let body = json!({"transaction": hex::encode(borsh::to_vec(&signed).unwrap())});
        let request = self.http.post(format!("{}/ledger/transactions", self.served.url));
        let answer = request.json(&body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 201);
        answer.json().await.unwrap()
    }

    pub async fn transfer(&self, from: u8, nonce: u64, to: u8) -> Value {
        let to = AccountId::of(&key(to).public());
        let amount = Credits(7);
        self.send(from, nonce, Action::Transfer(Transfer { to, amount })).await
    }

    /// All items of a list, page by page.
    pub async fn pages(&self, path: &str, limit: u32) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        let and = if path.contains('?') { '&' } else { '?' };
        loop {
            let page = self.get(&format!("{path}{and}limit={limit}{cursor}")).await;
            let part = page["items"].as_array().unwrap();
            assert!(part.len() <= limit as usize);
            items.extend(part.iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }
}
