//! What people and programs read at a peer: every list with paging, every thing by its name, blocks as they come.

use std::{collections::BTreeSet, time::Duration};

use crate::served::{
    key,
    reader::{Reader, WITHIN},
};
use piecework_ledger::{Action, Genesis, OpenJobs, OpenLease, OpenTicket, PutOffer, Resources, Subject};
use piecework_model::{AccountId, Code, Credits, Digest, JobId, LeaseId, Prices};
use piecework_proof::{Anchor, Proof, Step};
use serde_json::Value;

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

/// A job that is recorded ahead of its run; its block.
async fn open_job(reader: &Reader, job: JobId) -> u64 {
    let (lease, caps) = (
        LeaseId::of(AccountId::of(&key(0).public()), 0),
        Prices {
            start_ucr: 100,
            ..Prices::default()
        },
    );
    let open = OpenLease {
        subject: Subject::AnyFunction,
        provider: None,
        controller: AccountId::of(&key(0).public()),
        price_caps: caps,
        budget: Credits(1_000),
        payer_keys: vec![key(0).public()],
        mailboxes: vec![key(0).public()],
        exposure_ucr: 100,
    };
    reader.send(0, 0, Action::OpenLease(open)).await;
    let ticket = OpenTicket {
        sequence: 0,
        job,
        code: Digest::of(b"code"),
        input: Digest::of(b"input"),
        price_max_ucr: 10,
    };
    let open = OpenJobs {
        lease,
        provider: AccountId::of(&key(1).public()),
        tickets: vec![ticket],
    };
    let sent = reader.send(0, 0, Action::OpenJobs(open)).await;
    sent["height"].as_u64().unwrap()
}

/// The genesis that it shows: its digest is the network's id.
async fn anchor(reader: &Reader) -> Anchor {
    let shown: Genesis = serde_json::from_value(reader.get("/ledger/genesis").await).unwrap();
    assert_eq!(shown.network_id(), reader.served.genesis.network_id());
    Anchor::genesis(&shown)
}

fn proof(shown: &Value) -> Proof {
    let bytes = hex::decode(shown["proof"].as_str().unwrap()).unwrap();
    assert_eq!(shown["bytes"], bytes.len());
    Proof::from_bytes(&bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_needs_no_peer_to_be_checked() {
    let reader = Reader::new().await;
    let job = JobId::new(1_700_000_000_000, [7; 10]);
    let height = open_job(&reader, job).await;
    let anchor = anchor(&reader).await;
    // With the block, whether the index knows of it or not; then, in a moment, without.
    let named = reader.get(&format!("/jobs/{job}/proof?blocks={height}")).await;
    let look = async {
        while reader.ask(&format!("/jobs/{job}/proof")).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WITHIN, look).await.unwrap();
    let found = reader.get(&format!("/jobs/{job}/proof")).await;
    for shown in [&named, &found] {
        let Proof::Job(proof) = proof(shown) else {
            panic!("another proof than was asked for");
        };
        let proven = proof.verify(anchor.clone(), job).unwrap();
        assert_eq!((proven.entries[0].height, proven.entries.len()), (height, 1));
        assert_eq!(proven.entries[0].entry.steps, [Step::Opened]);
        assert_eq!(shown["parts"][0]["height"], height);
    }

    let account = reader.get("/ledger/accounts/owner-0?proof=true").await;
    let Proof::Value(proof) = proof(&account["proof"]) else {
        panic!("another proof than was asked for");
    };
    proof.verify(anchor).unwrap();
    let (id, proven) = proof.account().unwrap();
    assert_eq!(account["id"], id.to_string());
    assert_eq!(account["held_ucr"], 1_000);
    assert_eq!((proven.held, proven.nonce), (Credits(1_000), 1));
    let bare = reader.get("/ledger/accounts/owner-0").await;
    assert_eq!(bare.get("proof"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_wrongly_is_refused_by_code() {
    let reader = Reader::new().await;
    for (path, status, code) in [
        ("/ledger/blocks/first", 422, Code::BlockBadHeight),
        ("/ledger/blocks/-1", 422, Code::BlockBadHeight),
        ("/ledger/blocks/999999", 404, Code::BlockNotFound),
        ("/ledger/blocks?cursor=x", 422, Code::CursorMalformed),
        ("/ledger/blocks?page=2", 422, Code::QueryMalformed),
        ("/ledger/accounts?cursor=x", 422, Code::CursorMalformed),
        ("/ledger/transactions?cursor=7", 422, Code::CursorMalformed),
        ("/ledger/transactions?cursor=999999.0", 422, Code::CursorMalformed),
        ("/ledger/transactions?account=nobody", 404, Code::AccountNotFound),
        ("/ledger/transactions?page=2", 422, Code::QueryMalformed),
        ("/ledger/jobs?cursor=x", 422, Code::CursorMalformed),
        ("/ledger/jobs?account=nobody", 404, Code::AccountNotFound),
        ("/ledger/leases?cursor=1", 422, Code::CursorMalformed),
        ("/ledger/leases?account=nobody", 404, Code::AccountNotFound),
        ("/ledger/accounts/nobody", 404, Code::AccountNotFound),
        ("/ledger/transactions/1", 404, Code::TransactionNotFound),
        ("/ledger/leases/1", 404, Code::LeaseNotFound),
        ("/ledger/jobs/1", 404, Code::JobNotFound),
        ("/ledger/raw/values/zz", 422, Code::ValueBadKey),
        ("/ledger/raw/proofs/zz", 422, Code::ValueBadKey),
        ("/ledger/accounts/nobody?proof=true", 404, Code::AccountNotFound),
        ("/ledger/accounts/owner-1?proof=maybe", 422, Code::QueryMalformed),
        ("/jobs/1/proof", 404, Code::JobNotFound),
        (
            "/jobs/job_00000000000000000000000000000001/proof",
            404,
            Code::JobNotFound,
        ),
        (
            "/jobs/job_00000000000000000000000000000001/proof?blocks=1",
            404,
            Code::JobNotFound,
        ),
        (
            "/jobs/job_00000000000000000000000000000001/proof?blocks=1,x",
            422,
            Code::BlockBadHeight,
        ),
        (
            "/jobs/job_00000000000000000000000000000001/proof?blocks=1,2,3,4,5,6,7,8,9",
            422,
            Code::BlockBadHeight,
        ),
        ("/ledger/raw/blocks?from=x", 422, Code::QueryMalformed),
        ("/nowhere", 404, Code::PathNotFound),
    ] {
        reader.refused(path, status, code).await;
    }
    let far = format!(
        "/ledger/raw/values/{}?at_least=999999",
        hex::encode(borsh::to_vec(&piecework_ledger::Key::Params).unwrap())
    );
    reader.refused(&far, 503, Code::LedgerBehind).await;
}
