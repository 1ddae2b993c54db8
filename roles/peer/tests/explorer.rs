//! What people and programs read at a peer: every list with paging, every thing by its name, blocks as they come.

#![allow(clippy::unwrap_used)]

mod served;

use std::{collections::BTreeSet, time::Duration};

use piecework_ledger::{Action, PutOffer, Resources};
use piecework_model::Prices;
use serde_json::Value;
use served::reader::{Reader, WITHIN};

fn offer(region: &str) -> Action {
    Action::PutOffer(PutOffer {
        prices: Prices::default(),
        resources: Resources {
            cores: 1,
            memory_bytes: 1 << 30,
            disk_bytes: 1 << 30,
            slots: 4,
        },
        backends: vec!["wasm".to_owned()],
        region: region.to_owned(),
        labels: Vec::new(),
        expires_at_height: 1_000_000,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_found_by_its_id_its_block_and_its_accounts() {
    let reader = Reader::new().await;
    let sent = reader.transfer(0, 0, 1).await;
    let (id, height) = (sent["id"].as_str().unwrap(), sent["height"].as_u64().unwrap());
    assert_eq!(sent["kind"], "transfer");
    assert_eq!(reader.get(&format!("/ledger/transactions/{id}")).await, sent);
    let block = reader.get(&format!("/ledger/blocks/{height}")).await;
    assert_eq!(block["items"][0], sent);
    let digest = block["digest"].as_str().unwrap();
    assert_eq!(reader.get(&format!("/ledger/blocks/{digest}")).await, block);
    let account = reader.get("/ledger/accounts/owner-1").await;
    assert_eq!(account["posted_ucr"], 1_000_000_007);
    let by_id = format!("/ledger/accounts/{}", account["id"].as_str().unwrap());
    assert_eq!(reader.get(&by_id).await["name"], "owner-1");
    let status = reader.get("/ledger/status").await;
    assert!(status["height"].as_u64().unwrap() >= height);
    assert_eq!(status["peers"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_come_page_by_page_without_gaps_down_to_the_first() {
    let reader = Reader::new().await;
    for nonce in 0..5 {
        reader.transfer(0, nonce, 1).await;
    }
    let blocks = reader.pages("/ledger/blocks", 2).await;
    let heights: Vec<u64> = blocks.iter().map(|block| block["height"].as_u64().unwrap()).collect();
    let expected: Vec<u64> = (1..=heights[0]).rev().collect();
    assert_eq!(heights, expected);
    for pair in blocks.windows(2) {
        assert_eq!(pair[0]["parent"], pair[1]["digest"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_and_offers_come_page_by_page_each_once() {
    let reader = Reader::new().await;
    reader.send(0, 0, offer("north")).await;
    reader.send(2, 0, offer("south")).await;
    let names = |items: Vec<Value>, field: &str| {
        let all: Vec<String> = items
            .iter()
            .map(|item| item[field].as_str().unwrap().to_owned())
            .collect();
        let set: BTreeSet<String> = all.iter().cloned().collect();
        assert_eq!(set.len(), all.len(), "each once");
        set
    };
    for limit in [1, 3, 100] {
        let accounts = names(reader.pages("/ledger/accounts", limit).await, "name");
        assert_eq!(accounts.len(), 4, "{accounts:?}");
        // The index learns of a block a moment after it is final.
        let look = async {
            loop {
                let offers = names(reader.pages("/ledger/offers", limit).await, "region");
                if offers.len() == 2 {
                    return offers;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let offers = tokio::time::timeout(WITHIN, look).await.unwrap();
        assert!(offers.contains("north") && offers.contains("south"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_hears_of_each_block_as_it_becomes_final() {
    let reader = Reader::new().await;
    let mut stream = reader
        .http
        .get(format!("{}/ledger/events?from=1", reader.served.url))
        .send()
        .await
        .unwrap();
    let sent = reader.transfer(0, 0, 1).await;
    let due = format!("id: {}\n", sent["height"]);
    let mut heard = String::new();
    let listen = async {
        while !heard.contains(&due) {
            heard.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(WITHIN, listen).await.unwrap();
    assert!(heard.contains("event: block\n"));
    assert!(heard.contains("id: 1\n"), "history first: {heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_wrongly_is_refused_by_code() {
    let reader = Reader::new().await;
    for (path, status, code) in [
        ("/ledger/blocks/first", 422, "block.bad_height"),
        ("/ledger/blocks/-1", 422, "block.bad_height"),
        ("/ledger/blocks/999999", 404, "block.not_found"),
        ("/ledger/blocks?cursor=x", 422, "cursor.malformed"),
        ("/ledger/blocks?page=2", 422, "query.malformed"),
        ("/ledger/accounts?cursor=x", 422, "cursor.malformed"),
        ("/ledger/transactions?cursor=7", 422, "cursor.malformed"),
        ("/ledger/transactions?cursor=999999.0", 422, "cursor.malformed"),
        ("/ledger/transactions?account=nobody", 404, "account.not_found"),
        ("/ledger/transactions?page=2", 422, "query.malformed"),
        ("/ledger/jobs?cursor=x", 422, "cursor.malformed"),
        ("/ledger/jobs?account=nobody", 404, "account.not_found"),
        ("/ledger/leases?cursor=1", 422, "cursor.malformed"),
        ("/ledger/leases?account=nobody", 404, "account.not_found"),
        ("/ledger/accounts/nobody", 404, "account.not_found"),
        ("/ledger/transactions/1", 404, "transaction.not_found"),
        ("/ledger/leases/1", 404, "lease.not_found"),
        ("/ledger/jobs/1", 404, "job.not_found"),
        ("/ledger/raw/values/zz", 422, "value.bad_key"),
        ("/ledger/raw/blocks?from=x", 422, "query.malformed"),
        ("/nowhere", 404, "path.not_found"),
    ] {
        reader.refused(path, status, code).await;
    }
    let far = format!(
        "/ledger/raw/values/{}?at_least=999999",
        hex::encode(borsh::to_vec(&piecework_ledger::Key::Params).unwrap())
    );
    reader.refused(&far, 503, "ledger.behind").await;
}
