//! Credits booked in and out: each reference moves them once, and a withdrawal is paid or returned, never both.

use std::time::Duration;

use axum::http::Method;
use piecework_ledger::{Action, SignedTransaction, Transaction, Transfer, Value as Stored};
use piecework_model::{Code, Credits};
use serde_json::{Value, json};

use crate::{
    Tuning, accounts,
    doubles::{
        answer::Answer,
        machine::{Machine, Setup, until},
    },
};

/// Its callers are told soon that the ledger does not answer.
async fn impatient() -> Machine {
    let setup = Setup::default();
    let tuning = Tuning {
        transfer_within: Duration::from_millis(200),
        ..setup.tuning
    };
    Machine::start_with(Setup { tuning, ..setup }).await
}

async fn deposit(machine: &Machine, account: &str, amount: i64, reference: &str) -> Answer {
    let body = json!({"account": account, "amount_ucr": amount, "reference": reference});
    machine.ask(Method::POST, "/deposits", Some(body)).await
}

async fn withdraw(machine: &Machine, token: &str, key: &str, amount: i64) -> Answer {
    let request = machine
        .request_as(token, Method::POST, "/withdrawals")
        .header("idempotency-key", key);
    let body = json!({"amount_ucr": amount, "pay_to": "DE00 1234"});
    machine.send(request, Some(body)).await
}

async fn decide(machine: &Machine, id: &str, verb: &str, said: &str) -> Answer {
    let field = if verb == "settle" { "reference" } else { "reason" };
    let path = format!("/withdrawals/{id}/{verb}");
    machine.ask(Method::POST, &path, Some(json!({ field: said }))).await
}

async fn lines(machine: &Machine, token: &str) -> Vec<(String, String, i64)> {
    let list = machine.ask_as(Some(token), Method::GET, "/statement", None).await.ok();
    let line = |line: &Value| {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        (
            text("kind"),
            text("detail"),
            line["amount_ucr"].as_i64().expect("a number"),
        )
    };
    list["items"].as_array().expect("a list").iter().map(line).collect()
}

/// By the ledger.
fn owns(machine: &Machine, name: &str) -> i128 {
    let all = machine.ledger.all().into_values();
    let posted = all.filter_map(|value| match value {
        Stored::Account(account) if account.name.as_str() == name => Some(account.posted.0),
        _ => None,
    });
    posted.sum()
}

/// The answer, once the ledger has given it.
async fn patient(mut ask: impl AsyncFnMut() -> Answer) -> Value {
    loop {
        let answer = ask().await;
        if answer.status.is_success() {
            return answer.ok();
        }
        answer.refused(503, Code::TransferQueued);
    }
}

/// Of all accounts.
fn total(machine: &Machine) -> i128 {
    let posted = machine.ledger.all().into_values().map(|value| match value {
        Stored::Account(account) => account.posted.0,
        _ => 0,
    });
    posted.sum()
}

/// The withdrawal, once it is in this state.
async fn in_state(machine: &Machine, id: &str, state: &str) {
    until(&format!("{id} is {state}"), async || {
        let list = machine.get("/withdrawals?all=true").await.ok();
        let items = list["items"].as_array().expect("a list");
        items
            .iter()
            .any(|item| item["id"] == id && item["state"] == state)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_deposit_books_its_reference_once_and_makes_no_credits() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 1_000).await;
    machine.person("bob", 0).await;
    let (all, ada_had, operator_had) = (total(&machine), owns(&machine, "ada"), owns(&machine, "operator"));
    let first = deposit(&machine, "ada", 500, "SEPA-1").await.ok();
    assert_eq!(
        (&first["state"], &first["is_repeated"]),
        (&json!("booked"), &json!(false))
    );
    let again = deposit(&machine, "ada", 500, " SEPA-1 ").await.ok();
    assert_eq!(again["is_repeated"], true, "{again}");
    assert_eq!(again["transaction"], first["transaction"]);
    assert_eq!(owns(&machine, "ada"), ada_had + 500);
    assert_eq!(owns(&machine, "operator"), operator_had - 500);
    assert_eq!(total(&machine), all);
    for (account, amount) in [("ada", 501), ("bob", 500)] {
        let other = deposit(&machine, account, amount, "SEPA-1").await;
        other.refused(409, Code::ReferenceTaken);
    }
    let expected = |amount| ("deposit".to_owned(), "SEPA-1".to_owned(), amount);
    until("both statements have it", async || {
        let own = lines(&machine, &ada).await.contains(&expected(500));
        let operators = lines(&machine, &machine.token).await.contains(&expected(-500));
        (own && operators).then_some(())
    })
    .await;
    let audit = machine.get("/audit?action=deposit.").await.ok();
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(1), "{audit}");
    let list = machine.get("/deposits").await.ok();
    assert_eq!(list["items"][0]["reference"], "SEPA-1", "{list}");
}

#[tokio::test]
async fn a_deposit_is_an_operators_and_has_a_reference_and_an_amount() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 1_000).await;
    let body = json!({"account": "ada", "amount_ucr": 1, "reference": "x"});
    let own = machine.ask_as(Some(&ada), Method::POST, "/deposits", Some(body)).await;
    own.refused(403, Code::AuthOperator);
    let own = machine.ask_as(Some(&ada), Method::GET, "/deposits", None).await;
    own.refused(403, Code::AuthOperator);
    for reference in ["", "  ", "a\nb", &"x".repeat(101)] {
        let refused = deposit(&machine, "ada", 1, reference).await;
        refused.refused(422, Code::ReferenceMalformed);
    }
    deposit(&machine, "ada", 0, "zero")
        .await
        .refused(422, Code::TransferNotPositive);
    deposit(&machine, "operator", 1, "own")
        .await
        .refused(422, Code::TransferSelf);
    deposit(&machine, "nobody", 1, "none")
        .await
        .refused(404, Code::AccountNotFound);
    let all = i64::MAX / 2;
    deposit(&machine, "ada", all, "much")
        .await
        .refused(402, Code::TransferInsufficient);
    // What was refused has booked nothing: the reference is free.
    deposit(&machine, "ada", 1, "much").await.ok();
}

#[tokio::test]
async fn a_deposit_that_the_ledger_had_when_the_controller_died_is_booked_once() {
    let machine = impatient().await;
    machine.person("ada", 1_000).await;
    let had = machine.posted("ada").await;
    machine.ledger.mute(true);
    let queued = deposit(&machine, "ada", 7, "SEPA-2").await;
    queued.refused(503, Code::TransferQueued);
    assert_eq!(
        machine.posted("ada").await,
        had + 7,
        "the ledger has it, and the record does not"
    );
    let machine = machine.restart().await;
    machine.ledger.mute(false);
    until("it is booked by itself", async || {
        let list = machine.get("/deposits").await.ok();
        (list["items"][0]["state"] == "booked").then_some(())
    })
    .await;
    let again = patient(async || deposit(&machine, "ada", 7, "SEPA-2").await).await;
    assert_eq!(again["is_repeated"], true, "{again}");
    assert_eq!(machine.posted("ada").await, had + 7);
    let audit = machine.get("/audit?action=deposit.").await.ok();
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(1), "{audit}");
}

#[tokio::test]
async fn a_withdrawal_holds_the_credits_until_an_operator_settles_it() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 1_000).await;
    let view = withdraw(&machine, &ada, "one", 600).await.ok();
    assert_eq!(view["state"], "open", "{view}");
    assert_eq!(machine.posted("ada").await, 400);
    let again = withdraw(&machine, &ada, "one", 600).await.ok();
    assert_eq!(again, view);
    withdraw(&machine, &ada, "one", 601)
        .await
        .refused(409, Code::IdempotencyConflict);
    withdraw(&machine, &ada, "two", 401)
        .await
        .refused(402, Code::TransferInsufficient);
    let id = view["id"].as_str().expect("an id");
    let path = format!("/withdrawals/{id}/settle");
    let own = machine.ask_as(Some(&ada), Method::POST, &path, Some(json!({"reference": "x"})));
    own.await.refused(403, Code::AuthOperator);
    let others = machine
        .ask_as(Some(&ada), Method::GET, "/withdrawals?all=true", None)
        .await;
    others.refused(403, Code::AuthOperator);

    let settled = decide(&machine, id, "settle", "SEPA-OUT-1").await.ok();
    assert_eq!(settled["state"], "settled", "{settled}");
    assert_eq!(decide(&machine, id, "settle", "SEPA-OUT-1").await.ok(), settled);
    for (verb, said) in [("settle", "SEPA-OUT-2"), ("decline", "no")] {
        decide(&machine, id, verb, said)
            .await
            .refused(409, Code::WithdrawalDecided);
    }
    let second = withdraw(&machine, &ada, "three", 100).await.ok();
    let second = second["id"].as_str().expect("an id");
    decide(&machine, second, "settle", "SEPA-OUT-1")
        .await
        .refused(409, Code::ReferenceTaken);
    decide(&machine, "wd_none", "settle", "x")
        .await
        .refused(404, Code::WithdrawalNotFound);
    assert_eq!(machine.posted("ada").await, 300);
    let open = machine.get("/withdrawals?all=true&open=true").await.ok();
    assert_eq!(open["items"].as_array().map(Vec::len), Some(1), "{open}");
    until("the statement has it", async || {
        let due = ("withdrawal".to_owned(), "DE00 1234".to_owned(), -600);
        lines(&machine, &ada).await.contains(&due).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_declined_withdrawal_returns_its_credits_once() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 1_000).await;
    let view = withdraw(&machine, &ada, "one", 600).await.ok();
    let id = view["id"].as_str().expect("an id");
    for _ in 0..2 {
        let declined = decide(&machine, id, "decline", "wrong account").await.ok();
        assert_eq!(declined["state"], "declined", "{declined}");
        assert_eq!(machine.posted("ada").await, 1_000);
    }
    decide(&machine, id, "settle", "SEPA")
        .await
        .refused(409, Code::WithdrawalDecided);
    until("the statement has both ways", async || {
        let line = |kind: &str, detail: &str, amount| (kind.to_owned(), detail.to_owned(), amount);
        let all = lines(&machine, &ada).await;
        let is_there = all.contains(&line("withdrawal", "DE00 1234", -600))
            && all.contains(&line("withdrawal_returned", "wrong account", 600));
        is_there.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_withdrawal_survives_the_controllers_death_on_both_ways() {
    let machine = impatient().await;
    let ada = machine.person("ada", 1_000).await;
    machine.ledger.mute(true);
    withdraw(&machine, &ada, "one", 600)
        .await
        .refused(503, Code::TransferQueued);
    let list = machine.get("/withdrawals?all=true").await.ok();
    let id = list["items"][0]["id"].as_str().expect("an id").to_owned();
    decide(&machine, &id, "settle", "early")
        .await
        .refused(503, Code::TransferQueued);
    let machine = machine.restart().await;
    machine.ledger.mute(false);
    in_state(&machine, &id, "open").await;
    let again = patient(async || withdraw(&machine, &ada, "one", 600).await).await;
    assert_eq!(again["id"], id.as_str());
    assert_eq!(machine.posted("ada").await, 400);

    machine.ledger.mute(true);
    decide(&machine, &id, "decline", "no")
        .await
        .refused(503, Code::TransferQueued);
    assert_eq!(
        machine.posted("ada").await,
        1_000,
        "the ledger has it, and the record does not"
    );
    let machine = machine.restart().await;
    decide(&machine, &id, "settle", "late")
        .await
        .refused(409, Code::WithdrawalDecided);
    machine.ledger.mute(false);
    in_state(&machine, &id, "declined").await;
    assert_eq!(machine.posted("ada").await, 1_000);

    // Decided, and nothing sent yet.
    let view = patient(async || withdraw(&machine, &ada, "two", 100).await).await;
    let id = view["id"].as_str().expect("an id").to_owned();
    machine.ledger.stall(true);
    decide(&machine, &id, "decline", "no")
        .await
        .refused(503, Code::TransferQueued);
    let machine = machine.restart().await;
    machine.ledger.stall(false);
    in_state(&machine, &id, "declined").await;
    assert_eq!(machine.posted("ada").await, 1_000);
}

#[tokio::test]
async fn more_bookings_than_may_be_sent_at_a_time_go_on_after_one_restart() {
    let machine = impatient().await;
    let mut ids = Vec::new();
    for person in ["ada", "bob", "cyd", "dan"] {
        let token = machine.person(person, 1_000).await;
        for number in 0..10 {
            let key = format!("n{number}");
            let view = patient(async || withdraw(&machine, &token, &key, 1).await).await;
            ids.push(view["id"].as_str().expect("an id").to_owned());
        }
    }
    machine.ledger.stall(true);
    let mut busy = 0;
    for id in &ids {
        let declined = decide(&machine, id, "decline", "no").await;
        match declined.code() == Some(Code::ServerBusy) {
            true => busy += 1,
            false => declined.refused(503, Code::TransferQueued),
        }
    }
    assert!(busy > 0, "all could be sent at once, so this shows nothing");
    let machine = machine.restart().await;
    machine.ledger.stall(false);
    for id in &ids {
        in_state(&machine, id, "declined").await;
    }
    // The ledger's last blocks are on their way.
    for person in ["ada", "bob", "cyd", "dan"] {
        for _ in 0..200 {
            if machine.posted(person).await == 1_000 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    for person in ["ada", "bob", "cyd", "dan"] {
        assert_eq!(machine.posted(person).await, 1_000, "{person}: each came back once");
    }
}

#[tokio::test]
async fn a_booking_whose_nonce_another_transaction_used_is_signed_again_and_moves_once() {
    let machine = impatient().await;
    let ada = machine.person("ada", 1_000).await;
    let view = patient(async || withdraw(&machine, &ada, "one", 600).await).await;
    let id = view["id"].as_str().expect("an id");
    machine.ledger.stall(true);
    decide(&machine, id, "decline", "no")
        .await
        .refused(503, Code::TransferQueued);
    // Sent again now, and nobody has executed it yet.
    let machine = machine.restart().await;
    other_transaction(&machine, "ada", 5).await;
    machine.ledger.stall(false);
    in_state(&machine, id, "declined").await;
    until("the credits came back once", async || {
        (machine.posted("ada").await == 1_005).then_some(())
    })
    .await;
    until(
        "nobody claims a transaction that has ended, or never will",
        async || {
            let store = &machine.accounts().ground.store;
            let claims = store.list_values("transfer_claim", "", None, 10).await;
            claims.expect("the store is there").items.is_empty().then_some(())
        },
    )
    .await;
}

/// The operator pays with its own key, past the controller.
async fn other_transaction(machine: &Machine, to: &str, amount: i64) {
    let accounts = machine.accounts();
    let operator = accounts.ground.operator;
    let key = accounts::custodial_key(accounts, operator).await;
    let key = key.expect("the store is there").expect("it is kept");
    let to = accounts::find(accounts, to).await.expect("it is there");
    let nonce = accounts::on_ledger(accounts, operator)
        .await
        .expect("it is there")
        .nonce;
    let transaction = Transaction {
        sender: operator,
        nonce,
        action: Action::Transfer(Transfer {
            to,
            amount: Credits(amount.into()),
        }),
    };
    let signed = SignedTransaction::sign(transaction, &key, &machine.ledger.network_id());
    let block = machine.ledger.block(vec![signed]);
    block.result_of(0).expect("it is in it").expect("it is executed");
}

#[tokio::test]
async fn borrowed_credits_cannot_be_withdrawn_and_open_requests_are_bounded() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 100).await;
    let loan = Some(json!({"limit_ucr": 1_000}));
    machine.ask(Method::PUT, "/accounts/ada/loan", loan).await.ok();
    withdraw(&machine, &ada, "much", 101)
        .await
        .refused(402, Code::TransferInsufficient);
    for number in 0..10 {
        withdraw(&machine, &ada, &format!("n{number}"), 1).await.ok();
    }
    withdraw(&machine, &ada, "more", 1)
        .await
        .refused(409, Code::WithdrawalTooMany);
    let open = machine.get("/withdrawals?all=true&open=true").await.ok();
    let id = open["items"][0]["id"].as_str().expect("an id").to_owned();
    decide(&machine, &id, "settle", "SEPA").await.ok();
    withdraw(&machine, &ada, "more", 1).await.ok();
}

#[tokio::test]
async fn credits_on_their_way_out_are_not_withdrawn_once_more_as_a_loan() {
    let machine = impatient().await;
    let ada = machine.person("ada", 100).await;
    let loan = Some(json!({"limit_ucr": 1_000}));
    machine.ask(Method::PUT, "/accounts/ada/loan", loan).await.ok();
    machine.ledger.stall(true);
    let first = withdraw(&machine, &ada, "one", 90).await;
    first.refused(503, Code::TransferQueued);
    let second = withdraw(&machine, &ada, "two", 90).await;
    second.refused(402, Code::TransferInsufficient);
    machine.ledger.stall(false);
    until("the first has moved", async || {
        (machine.posted("ada").await == 10).then_some(())
    })
    .await;
}

#[tokio::test]
async fn loans_and_invites_of_a_repeated_request_are_the_same() {
    let machine = impatient().await;
    let ada = machine.person("ada", 100).await;
    let loan = |limit: i64| Some(json!({ "limit_ucr": limit }));
    machine.ledger.stall(true);
    let raised = machine.ask(Method::PUT, "/accounts/ada/loan", loan(2_000)).await;
    raised.refused(503, Code::TransactionQueued);
    machine.ledger.stall(false);
    until("it goes on by itself", async || {
        (machine.get("/accounts/ada").await.ok()["limit_ucr"] == 2_000).then_some(())
    })
    .await;

    let spend = Some(json!({"to": "operator", "amount_ucr": 600}));
    machine.ask_as(Some(&ada), Method::POST, "/transfers", spend).await.ok();
    let owes = machine.posted("ada").await;
    for _ in 0..2 {
        let request = machine
            .request(Method::POST, "/accounts/ada/loan/payments")
            .header("idempotency-key", "pay");
        let pays = machine.send(request, Some(json!({"amount_ucr": 200}))).await;
        if !pays.status.is_success() {
            pays.refused(503, Code::TransferQueued);
        }
    }
    until("it is paid", async || {
        (machine.posted("ada").await > owes).then_some(())
    })
    .await;
    assert_eq!(machine.posted("ada").await, owes + 200);

    let invite = |key: &'static str, grant: i64| {
        let request = machine.request(Method::POST, "/invites").header("idempotency-key", key);
        machine.send(request, Some(json!({"grant_ucr": grant})))
    };
    let first = invite("i", 5).await.ok();
    assert_eq!(invite("i", 5).await.ok(), first);
    assert_ne!(invite("j", 5).await.ok()["code"], first["code"]);
    invite("i", 6).await.refused(409, Code::IdempotencyConflict);
}
