//! Code that is run without being deployed.

use axum::http::Method;
use piecework_model::Code;
use piecework_store::Kept;
use serde_json::{Value, json};

use crate::{
    accounts,
    doubles::{answer::Answer, machine::Machine},
};

async fn run(machine: &Machine, token: &str, body: Value) -> Answer {
    machine.ask_as(Some(token), Method::POST, "/execute", Some(body)).await
}

async fn functions(machine: &Machine, token: &str) -> usize {
    let list = machine.ask_as(Some(token), Method::GET, "/functions", None).await.ok();
    list["items"].as_array().expect("a list").len()
}

#[tokio::test]
async fn unsaved_code_is_a_job_like_any_other_and_leaves_no_function() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 100_000).await;
    let code = json!({"language": "javascript", "code": "echo", "input": {"n": 7}});
    let done = run(&machine, &ada, code.clone()).await.ok();
    assert_eq!(done["output"], json!({"n": 7}));
    assert_ne!(done["price_ucr"], 0, "it costs what a call costs");
    let id = done["job_id"].as_str().expect("an id");
    let job = machine
        .ask_as(Some(&ada), Method::GET, &format!("/jobs/{id}"), None)
        .await
        .ok();
    assert_eq!((&job["developer"], &job["version"]), (&json!("ada"), &json!(0)));
    assert_eq!(
        job["code_digest"].as_str().map(str::len),
        Some(64),
        "what ran is on record: {job}"
    );
    machine.paid(id).await;
    assert_eq!(functions(&machine, &ada).await, 0);
    // The same again is the same code; other code is not.
    let again = run(&machine, &ada, code).await.ok();
    let other = run(&machine, &ada, json!({"language": "javascript", "code": "return 2"}))
        .await
        .ok();
    assert_eq!((&again["output"], &other["output"]), (&json!({"n": 7}), &json!(2)));
    let digest = async |done: &Value| {
        let path = format!("/jobs/{}", done["job_id"].as_str().expect("an id"));
        let job = machine.ask_as(Some(&ada), Method::GET, &path, None).await.ok();
        (job["code_digest"].clone(), job["function_id"].clone())
    };
    let (first, second, third) = (digest(&done).await, digest(&again).await, digest(&other).await);
    assert_eq!(first, second);
    assert!(
        first.0 != third.0 && first.1 != third.1,
        "no two codes share an instance"
    );
    let failed = run(&machine, &ada, json!({"language": "javascript", "code": "raise"})).await;
    failed.refused(502, Code::FunctionRaised);
}

#[tokio::test]
async fn it_may_have_the_settings_of_a_function_of_ones_own_and_of_nobody_elses() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 100_000).await;
    let eve = machine.person("eve", 100_000).await;
    machine
        .deploy_as(&ada, "hello", "return 1", json!({"timeout_ms": 1234}))
        .await
        .ok();
    let update = json!({"code": "return 2"});
    machine
        .ask_as(Some(&ada), Method::PUT, "/functions/hello", Some(update))
        .await
        .ok();
    let mine = run(&machine, &ada, json!({"function": "hello", "code": "return 3"}))
        .await
        .ok();
    assert_eq!(mine["output"], 3);
    let id = mine["job_id"].as_str().expect("an id");
    let job = machine
        .ask_as(Some(&ada), Method::GET, &format!("/jobs/{id}"), None)
        .await
        .ok();
    assert_eq!(job["function"], "hello", "under the name that it is tried for");
    let live = machine
        .ask_as(Some(&ada), Method::GET, "/functions/hello", None)
        .await
        .ok();
    assert_eq!(live["version"], 2, "no version was made");
    // Without code: that of a version, to see what it would do now.
    let older = run(&machine, &ada, json!({"function": "hello", "version": 1}))
        .await
        .ok();
    let newer = run(&machine, &ada, json!({"function": "hello"})).await.ok();
    assert_eq!((&older["output"], &newer["output"]), (&json!(1), &json!(2)));
    for (token, body, status, code) in [
        (&eve, json!({"function": "hello"}), 404, Code::FunctionNotFound),
        (
            &eve,
            json!({"function": live["id"], "code": "return 1"}),
            404,
            Code::FunctionNotFound,
        ),
        (
            &ada,
            json!({"function": "hello", "version": 9}),
            404,
            Code::VersionNotFound,
        ),
        (
            &ada,
            json!({"version": 1, "code": "return 1", "language": "javascript"}),
            404,
            Code::VersionNotFound,
        ),
        (&ada, json!({"code": "return 1"}), 422, Code::FunctionBadCode),
        (&ada, json!({"language": "javascript"}), 422, Code::FunctionBadCode),
        (
            &ada,
            json!({"language": "javascript", "code": "return 1", "sandbox": "no-such"}),
            422,
            Code::SandboxUnknown,
        ),
    ] {
        run(&machine, token, body).await.refused(status, code);
    }
    for scopes in [json!(["deploy"]), json!(["invoke"])] {
        let made = json!({"scopes": scopes, "label": "x"});
        let made = machine
            .ask_as(Some(&ada), Method::POST, "/tokens", Some(made))
            .await
            .ok();
        let token = made["token"].as_str().expect("a token");
        let answer = run(&machine, token, json!({"language": "javascript", "code": "return 1"})).await;
        answer.refused(403, Code::AuthScope);
    }
}

#[tokio::test]
async fn it_spends_the_budget_of_the_function_that_it_is_tried_for() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 100_000).await;
    machine
        .deploy_as(&ada, "b", "return 1", json!({"budget_ucr": 100}))
        .await
        .ok();
    let mut runs = 0;
    let refused = loop {
        let done = run(&machine, &ada, json!({"function": "b", "code": "return 2"})).await;
        if !done.status.is_success() {
            break done;
        }
        runs += 1;
        assert!(runs < 200, "nothing stops it");
    };
    refused.refused(402, Code::FunctionBudgetSpent);
    assert!(runs > 0, "the budget was not spent by these runs");
    let shown = machine.ask_as(Some(&ada), Method::GET, "/functions/b", None).await.ok();
    assert_ne!(shown["budget"]["spent_ucr"], 0, "{shown}");
    let machine = machine.restart().await;
    let again = machine.ask_as(Some(&ada), Method::GET, "/functions/b", None).await.ok();
    assert_eq!(
        again["budget"]["spent_ucr"], shown["budget"]["spent_ucr"],
        "a restart forgets nothing of it"
    );
    let more = run(&machine, &ada, json!({"function": "b", "code": "return 2"})).await;
    more.refused(402, Code::FunctionBudgetSpent);
    // Code for no function is its developer's own affair.
    let other = json!({"language": "javascript", "code": "return 2"});
    run(&machine, &ada, other).await.ok();
}

#[tokio::test]
async fn its_code_counts_as_a_bundle_and_nothing_is_loaded_for_who_cannot_pay() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 100_000).await;
    let code = json!({"language": "javascript", "code": "return 2"});
    let account = accounts::find(machine.accounts(), "ada").await.expect("she is there");
    let set = async |bytes| {
        let quotas = [(Kept::Bundles, Some(bytes))];
        let store = &machine.accounts().ground.store;
        store.set_quotas(account, &quotas).await.expect("it is set");
    };
    set(10).await;
    run(&machine, &ada, code.clone()).await.refused(403, Code::QuotaBundles);
    set(1 << 20).await;
    run(&machine, &ada, code.clone()).await.ok();
    let eve = machine.person("eve", 0).await;
    let broken = json!({"language": "javascript", "code": "no such code"});
    for body in [code, broken] {
        run(&machine, &eve, body)
            .await
            .refused(402, Code::AccountInsufficientCredits);
    }
}
