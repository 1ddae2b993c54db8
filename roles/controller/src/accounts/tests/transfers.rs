//! Transfers while the ledger does not answer.

use std::time::Duration;

use axum::http::Method;
use piecework_ledger::{Action, SignedTransaction, Transaction, Transfer};
use piecework_model::{Code, Credits};
use serde_json::{Value, json};

use crate::{
    Tuning,
    accounts::{self, transfers},
    codecs,
    doubles::{
        answer::Answer,
        machine::{Machine, Setup},
    },
};

async fn machine() -> Machine {
    let setup = Setup::default();
    let tuning = Tuning {
        transfer_within: Duration::from_millis(200),
        ..setup.tuning
    };
    Machine::start_with(Setup { tuning, ..setup }).await
}

async fn transfer(machine: &Machine, key: &str, amount: u64) -> Answer {
    let request = machine
        .request(Method::POST, "/transfers")
        .header("idempotency-key", key);
    machine
        .send(request, Some(json!({"to": "ada", "amount_ucr": amount})))
        .await
}

async fn balance(machine: &Machine, name: &str) -> i64 {
    machine.get(&format!("/accounts/{name}")).await.ok()["posted_ucr"]
        .as_i64()
        .expect("a number")
}

async fn final_answer(machine: &Machine, key: &str, amount: u64) -> Value {
    loop {
        let answer = transfer(machine, key, amount).await;
        if answer.status.is_success() {
            return answer.ok();
        }
        answer.refused(503, Code::TransferQueued);
    }
}

#[tokio::test]
async fn a_transfer_that_waits_for_peers_is_queued_and_moves_once() {
    let machine = machine().await;
    machine.person("ada", 1_000).await;
    let before = balance(&machine, "ada").await;
    machine.ledger.stall(true);
    for _ in 0..3 {
        let answer = transfer(&machine, "one", 5).await;
        answer.refused(503, Code::TransferQueued);
        let message = answer.body["error"]["message"].as_str().expect("a sentence");
        assert!(message.contains("final when 1 of 1 peers answer"), "{message}");
    }
    assert_eq!(balance(&machine, "ada").await, before);
    machine.ledger.stall(false);
    let first = final_answer(&machine, "one", 5).await;
    assert_eq!(transfer(&machine, "one", 5).await.ok(), first);
    assert_eq!(balance(&machine, "ada").await, before + 5);
    transfer(&machine, "one", 6)
        .await
        .refused(409, Code::IdempotencyConflict);
}

#[tokio::test]
async fn a_transfer_that_was_queued_when_the_controller_died_moves_once() {
    let machine = machine().await;
    machine.person("ada", 1_000).await;
    let before = balance(&machine, "ada").await;
    machine.ledger.stall(true);
    transfer(&machine, "two", 7).await.refused(503, Code::TransferQueued);
    let machine = machine.restart().await;
    machine.ledger.stall(false);
    final_answer(&machine, "two", 7).await;
    final_answer(&machine, "two", 7).await;
    assert_eq!(balance(&machine, "ada").await, before + 7);
}

#[tokio::test]
async fn a_refused_transfer_leaves_its_key_free() {
    let machine = machine().await;
    let ada = machine.person("ada", 1_000).await;
    let request = || {
        machine
            .request_as(&ada, Method::POST, "/transfers")
            .header("idempotency-key", "three")
    };
    let body = |amount: u64| Some(json!({"to": "operator", "amount_ucr": amount}));
    machine
        .send(request(), body(10_000_000))
        .await
        .refused(402, Code::TransferInsufficient);
    machine.send(request(), body(1)).await.ok();
}

#[tokio::test]
async fn an_account_has_a_bounded_number_of_transfers_under_way() {
    let machine = machine().await;
    machine.person("ada", 1_000).await;
    machine.ledger.stall(true);
    for number in 0..32 {
        transfer(&machine, &format!("n{number}"), 1)
            .await
            .refused(503, Code::TransferQueued);
    }
    transfer(&machine, "more", 1).await.refused(503, Code::ServerBusy);
}

#[tokio::test]
async fn a_transfers_key_is_remembered_for_a_week() {
    const DAY_MS: u64 = 86_400_000;
    let machine = machine().await;
    machine.person("ada", 1_000).await;
    let before = balance(&machine, "ada").await;
    let first = final_answer(&machine, "one", 5).await;
    let accounts = machine.accounts();
    let in_days = |days: u64| crate::clock::now_ms() + days * DAY_MS;
    assert_eq!(transfers::forget_old(accounts, in_days(6)).await.expect("looked"), 0);
    assert_eq!(transfer(&machine, "one", 5).await.ok(), first);
    assert_eq!(balance(&machine, "ada").await, before + 5);
    assert_eq!(transfers::forget_old(accounts, in_days(8)).await.expect("looked"), 1);
    final_answer(&machine, "one", 5).await;
    assert_eq!(balance(&machine, "ada").await, before + 10, "the key is free again");
}

#[tokio::test]
async fn a_transfer_whose_end_nobody_knows_is_remembered_longer() {
    const DAY_MS: u64 = 86_400_000;
    let machine = machine().await;
    machine.person("ada", 1_000).await;
    machine.ledger.stall(true);
    transfer(&machine, "one", 5).await.refused(503, Code::TransferQueued);
    let accounts = machine.accounts();
    let later = crate::clock::now_ms() + 8 * DAY_MS;
    assert_eq!(transfers::forget_old(accounts, later).await.expect("looked"), 0);
}

/// The ledger's height after so many more blocks.
fn grow(machine: &Machine, blocks: u64) -> u64 {
    let mut height = 0;
    for _ in 0..blocks {
        height = machine.ledger.block(Vec::new()).height;
    }
    height
}

/// What is remembered of the operator's transfer.
async fn held(machine: &Machine, key: &str) -> Option<Vec<u8>> {
    let ground = &machine.accounts().ground;
    let space = format!("transfer/{}", ground.operator);
    ground.store.value(&space, key).await.expect("the store is there")
}

/// As JSON, with the place of it.
async fn kept(machine: &Machine, key: &str) -> (String, Value) {
    let bytes = held(machine, key).await.expect("it is kept");
    let space = format!("transfer/{}", machine.accounts().ground.operator);
    (space, codecs::from_json(&bytes).expect("JSON"))
}

#[tokio::test]
async fn a_repetition_reads_no_block_again_that_told_nothing() {
    let machine = machine().await;
    machine.person("ada", 1_000).await;
    // The nonce 0 of the operator is used.
    final_answer(&machine, "zero", 1).await;
    machine.ledger.stall(true);
    transfer(&machine, "one", 5).await.refused(503, Code::TransferQueued);
    while held(&machine, "one").await.is_none() {
        tokio::task::yield_now().await;
    }
    let machine = machine.restart().await;
    // A transaction that can never be executed, and no block above the height that is noted tells why.
    let accounts = machine.accounts();
    let operator = accounts.ground.operator;
    let secret = accounts::custodial_key(accounts, operator)
        .await
        .expect("the store is there");
    let to = accounts::find(accounts, "ada").await.expect("she is there");
    let transaction = Transaction {
        sender: operator,
        nonce: 0,
        action: Action::Transfer(Transfer { to, amount: Credits(7) }),
    };
    let network = machine.ledger.network_id();
    let signed = SignedTransaction::sign(transaction, &secret.expect("it is kept"), &network);
    let noted = grow(&machine, 100);
    let (space, mut value) = kept(&machine, "one").await;
    value["signed"] = hex::encode(borsh::to_vec(&signed).expect("bytes")).into();
    value["signed_above"] = noted.into();
    let put = codecs::json(&space, "one", &value).expect("plain data");
    let store = &accounts.ground.store;
    store.replace_values(&[], &[put]).await.expect("it is kept");
    machine.ledger.stall(false);
    let last = grow(&machine, 5);
    let refused = loop {
        let answer = transfer(&machine, "one", 5).await;
        if answer.code() != Some(Code::TransferQueued) {
            break answer;
        }
    };
    refused.refused(503, Code::ServerBusy);
    let (_, after) = kept(&machine, "one").await;
    assert_eq!(after["signed"], value["signed"]);
    assert!(after["signed_above"].as_u64() >= Some(last), "{after}");
}
