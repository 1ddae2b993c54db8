//! Accounts that owe: an invite lends, the sponsor has it held, and jobs are paid with it.

use axum::http::Method;
use piecework_model::Code;
use serde_json::json;

use crate::doubles::machine::{Machine, until};

const LENT: i64 = 2_000_000;

#[tokio::test]
async fn whoever_is_lent_a_limit_by_an_invite_works_without_credits() {
    let machine = Machine::start().await;
    machine
        .ask(Method::POST, "/invites", Some(json!({"lend_ucr": -1})))
        .await
        .refused(422, Code::TransferNotPositive);
    let invite = machine.ask(Method::POST, "/invites", Some(json!({"lend_ucr": LENT})));
    let invite = invite.await.ok();
    let held = machine.get("/accounts/operator").await.ok()["held_ucr"].as_i64();
    let body = json!({"name": "ada", "password": "correct horse", "invite": invite["code"]});
    machine.ask_as(None, Method::POST, "/accounts", Some(body)).await.ok();
    let login = json!({"name": "ada", "password": "correct horse"});
    let session = machine.ask_as(None, Method::POST, "/sessions", Some(login)).await.ok();
    let token = session["token"].as_str().expect("a token");

    let account = machine.get("/accounts/ada").await.ok();
    assert_eq!(account["limit_ucr"], LENT, "{account}");
    assert_eq!(account["sponsor"], "operator", "{account}");
    let sponsor = machine.get("/accounts/operator").await.ok();
    assert_eq!(sponsor["held_ucr"].as_i64(), held.map(|held| held + LENT), "{sponsor}");

    let function = json!({"name": "echo", "language": "javascript", "code": "echo"});
    let deployed = machine.ask_as(Some(token), Method::POST, "/functions", Some(function));
    deployed.await.ok();
    let call = machine.ask_as(Some(token), Method::POST, "/execute/echo", Some(json!({"input": 1})));
    let job = call.await.ok()["job_id"].as_str().expect("an id").to_owned();
    until(&format!("{job} is paid"), async || {
        (machine.posted("ada").await < 0).then_some(())
    })
    .await;
    assert!(machine.posted("ada").await > -LENT);

    // What is lent to an account that is there already: raised, lowered, covered, and by nobody but its sponsor.
    let loan = |limit: i64| Some(json!({ "limit_ucr": limit }));
    let account = machine.ask(Method::PUT, "/accounts/ada/loan", loan(2 * LENT));
    assert_eq!(account.await.ok()["limit_ucr"], 2 * LENT);
    let own = machine.ask_as(Some(token), Method::PUT, "/accounts/ada/loan", loan(3 * LENT));
    own.await.refused(403, Code::AccountNotSponsor);
    let less = machine.ask_as(Some(token), Method::PUT, "/accounts/ada/loan", loan(0));
    less.await.refused(409, Code::AccountLimitInUse);
    let much = machine.ask(Method::PUT, "/accounts/ada/loan", loan(i64::MAX));
    much.await.refused(422, Code::AccountSponsorLimit);
    let unknown = machine.ask(Method::PUT, "/accounts/nobody-here/loan", loan(1));
    unknown.await.refused(404, Code::AccountNotFound);

    let owed = -machine.posted("ada").await;
    let pay = |amount: i64| Some(json!({ "amount_ucr": amount }));
    let more = machine.ask(Method::POST, "/accounts/ada/loan/payments", pay(owed + LENT));
    more.await.refused(422, Code::AccountNoDebt);
    let held = machine.get("/accounts/operator").await.ok()["held_ucr"].as_i64();
    let covered = machine
        .ask(Method::POST, "/accounts/ada/loan/payments", pay(1))
        .await
        .ok();
    assert_eq!(covered["limit_ucr"], 2 * LENT - 1, "{covered}");
    let sponsor = machine.get("/accounts/operator").await.ok();
    assert_eq!(sponsor["held_ucr"].as_i64(), held.map(|held| held - 1), "{sponsor}");
    let audit = machine.get("/audit").await.ok().to_string();
    assert!(audit.contains("loan.set") && audit.contains("loan.covered"), "{audit}");
}
