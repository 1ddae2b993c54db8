//! Strangers who send slowly, too much, nonsense, or do not read, harm nobody but themselves.

use std::time::Duration;

use crate::served::{Served, key};
use piecework_api::server::Limits;
use piecework_ledger::{Action, SignedTransaction, Transaction, Transfer};
use piecework_model::{AccountId, Code, Credits, NetworkId};
use piecework_peer::http::Rates;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longer than anything takes on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

fn short() -> Limits {
    Limits {
        head_within: Duration::from_millis(500),
        write_within: Duration::from_millis(500),
        ..Limits::default()
    }
}

async fn served(limits: Limits, rates: Rates) -> (Served, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let anywhere = ([127, 0, 0, 1], 0).into();
    let served = Served::start(directory.path(), anywhere, rates, limits).await;
    (served, directory)
}

async fn connect(served: &Served) -> TcpStream {
    let address = served.url.strip_prefix("http://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// All that the server says until it hangs up.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let closed = timeout(WITHIN, stream.read_to_end(&mut said)).await;
    // A reset is a way to hang up as well.
    let _ = closed.expect("the server hangs up");
    said
}

async fn is_well(served: &Served) {
    let answer = reqwest::get(format!("{}/healthz", served.url)).await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_does_not_end_is_hung_up_on() {
    let (served, _directory) = served(short(), Rates::default()).await;
    let mut slow = connect(&served).await;
    slow.write_all(b"GET /ledger/status HTTP/1.1\r\nHost: x\r\n")
        .await
        .unwrap();
    let drip = async {
        while slow.write_all(b"X-Slow: 1\r\n").await.is_ok() {
            is_well(&served).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(WITHIN, drip).await.expect("the server does not wait for ever");
    is_well(&served).await;
    let mut silent = connect(&served).await;
    until_closed(&mut silent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_is_refused() {
    let (served, _directory) = served(Limits::default(), Rates::default()).await;
    let mut slow = connect(&served).await;
    let head =
        "POST /ledger/transactions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n{\"tr";
    slow.write_all(head.as_bytes()).await.unwrap();
    let said = until_closed(&mut slow).await;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains(Code::BodyTooSlow.as_str()), "{said}");
    is_well(&served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused() {
    let (served, _directory) = served(Limits::default(), Rates::default()).await;
    let body = json!({"transaction": "0".repeat(2_000_000)});
    let request = reqwest::Client::new().post(format!("{}/ledger/transactions", served.url));
    let answer = request.json(&body).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 413);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], Code::BodyTooLarge.as_str());
    let mut large = connect(&served).await;
    let head = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n", "x".repeat(1 << 20));
    // The server may hang up before it has all.
    let _ = large.write_all(head.as_bytes()).await;
    let said = until_closed(&mut large).await;
    assert!(!String::from_utf8_lossy(&said).starts_with("HTTP/1.1 200"));
    is_well(&served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_is_hung_up_on() {
    let (served, _directory) = served(short(), Rates::default()).await;
    let mut seed = 1u64;
    for _ in 0..50 {
        let mut noise = [0u8; 4_096];
        for byte in &mut noise {
            // Knuth's generator: the same noise each time.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (seed >> 56) as u8;
        }
        let mut stream = connect(&served).await;
        let _ = stream.write_all(&noise).await;
        until_closed(&mut stream).await;
    }
    is_well(&served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_caller_does_not_take_all_connections_and_gets_his_places_back() {
    let limits = Limits {
        connections_per_caller_max: 4,
        ..Limits::default()
    };
    let (served, _directory) = served(limits, Rates::default()).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(&served).await;
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0u8; 12];
        timeout(WITHIN, stream.read_exact(&mut first)).await.unwrap().unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    let mut fifth = connect(&served).await;
    assert!(until_closed(&mut fifth).await.is_empty(), "closed unanswered");
    held.clear();
    let look = async {
        while reqwest::get(format!("{}/healthz", served.url)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(WITHIN, look).await.expect("the places are free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_does_not_hold_his_place() {
    let limits = Limits {
        connections_max: 1,
        ..short()
    };
    let (served, _directory) = served(limits, Rates::default()).await;
    let mut deaf = connect(&served).await;
    let ask = async {
        // Some 50 KB for each of these: the answers fill every buffer on the way.
        while deaf
            .write_all(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .is_ok()
        {}
    };
    timeout(WITHIN, ask).await.expect("the server hangs up");
    let look = async {
        while reqwest::get(format!("{}/healthz", served.url)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(WITHIN, look).await.expect("its place is free again");
}

async fn post(served: &Served, transaction: &str) -> (u16, Value, bool) {
    let request = reqwest::Client::new().post(format!("{}/ledger/transactions", served.url));
    let answer = request.json(&json!({"transaction": transaction})).send().await.unwrap();
    let (status, retry) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
    (status, answer.json().await.unwrap(), retry)
}

fn transfer(network: &NetworkId) -> String {
    let transaction = Transaction {
        sender: AccountId::of(&key(0).public()),
        nonce: 0,
        action: Action::Transfer(Transfer {
            to: AccountId::of(&key(1).public()),
            amount: Credits(1),
        }),
    };
    let signed = SignedTransaction::sign(transaction, &key(0), network);
    hex::encode(borsh::to_vec(&signed).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_for_a_transaction_is_refused_by_code() {
    let (served, _directory) = served(Limits::default(), Rates::default()).await;
    let good = transfer(&served.genesis.network_id());
    let code = async |text: &str| {
        let (status, body, _) = post(&served, text).await;
        assert!((400..500).contains(&status), "{status}: {body}");
        Code::parse(body["error"]["code"].as_str().unwrap()).unwrap()
    };
    for text in ["", "zz", "00", &good[..good.len() - 2], &format!("{good}00")] {
        assert_eq!(code(text).await, Code::BodyMalformed, "{text}");
    }
    let elsewhere = transfer(&NetworkId([9; 32]));
    assert_eq!(code(&elsewhere).await, Code::TransactionBadSignature);
    // Every flipped byte gives some refusal, and the good one is still taken after all of them.
    for at in (0..good.len() / 2).step_by(7) {
        let mut bytes = hex::decode(&good).unwrap();
        bytes[at] ^= 0x41;
        code(&hex::encode(bytes)).await;
    }
    assert_eq!(post(&served, &good).await.0, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_from_one_address_is_told_to_wait() {
    let rates = Rates {
        transactions_per_s: 1,
        registrations_per_s: 0,
    };
    let (served, _directory) = served(Limits::default(), rates).await;
    let flood = async {
        loop {
            let (status, body, retry) = post(&served, "00").await;
            if status == 429 {
                assert_eq!(body["error"]["code"], Code::RateLimited.as_str());
                assert!(retry, "it says when to come back");
                return;
            }
        }
    };
    timeout(WITHIN, flood).await.expect("the limit is reached");
    is_well(&served).await;
}
