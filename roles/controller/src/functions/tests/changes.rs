//! Changing a function: what stays, what makes a version, and what somebody else changed first.

use axum::http::{Method, StatusCode, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use piecework_model::Code;
use serde_json::{Value, json};

use crate::doubles::machine::Machine;

async fn put(machine: &Machine, name: &str, body: Value) -> Value {
    let path = format!("/functions/{name}");
    machine.ask(Method::PUT, &path, Some(body)).await.ok()
}

#[tokio::test]
async fn variables_that_are_not_named_stay() {
    let machine = Machine::start().await;
    let first = json!({"secrets": {"A": "1", "B": "2"}, "env": {"X": "1", "Y": "2"}});
    machine.deploy_with("f", "return 1", first).await.ok();
    let view = put(
        &machine,
        "f",
        json!({"secrets": {"C": "3", "B": null}, "env": {"Y": "3", "X": null}}),
    )
    .await;
    assert_eq!(view["secret_names"], json!(["A", "C"]), "{view}");
    assert_eq!(
        (&view["env"], &view["version"]),
        (&json!({"Y": "3"}), &json!(2)),
        "{view}"
    );
    let view = put(&machine, "f", json!({"code": "return 2"})).await;
    assert_eq!(view["secret_names"], json!(["A", "C"]), "{view}");
}

#[tokio::test]
async fn changes_at_the_same_time_lose_none_of_them() {
    let machine = Machine::start().await;
    machine.deploy("f", "return 1").await;
    let set = |name: &str| put(&machine, "f", json!({"secrets": {name: "1"}}));
    tokio::join!(set("A"), set("B"), set("C"), set("D"));
    let view = machine.get("/functions/f").await.ok();
    assert_eq!(view["secret_names"], json!(["A", "B", "C", "D"]), "{view}");
}

#[tokio::test]
async fn code_is_read_back_one_time_after_the_other() {
    let machine = Machine::start().await;
    machine.deploy("f", "return 1").await;
    for _ in 0..3 {
        let answer = machine.get("/functions/f/code").await;
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
        let view = answer.ok();
        assert_eq!(
            (&view["version"], &view["language"]),
            (&json!(1), &json!("javascript")),
            "{view}"
        );
        let tar = STANDARD
            .decode(view["bundle"].as_str().expect("a text"))
            .expect("base64");
        assert!(String::from_utf8_lossy(&tar).contains("return 1"));
    }
    let none = machine.get("/functions/f/code?version=7").await;
    none.refused(404, Code::VersionNotFound);
}

#[tokio::test]
async fn what_all_versions_share_changes_without_a_new_one() {
    let machine = Machine::start().await;
    let made = machine.deploy("f", "return 1").await;
    assert_eq!(made["deployed_version"], 1, "{made}");
    let shared = json!({"public": true, "concurrency": 7, "budget_ucr": 500, "timeout_ms": made["timeout_ms"]});
    let view = put(&machine, "f", shared).await;
    assert_eq!(
        (
            &view["version"],
            &view["public"],
            &view["concurrency"],
            &view["budget"]["budget_ucr"]
        ),
        (&json!(1), &json!(true), &json!(7), &json!(500)),
        "{view}"
    );
    assert_eq!(view.get("deployed_version"), None, "{view}");
    let view = put(&machine, "f", json!({"public": false, "timeout_ms": 1234})).await;
    assert_eq!(
        (&view["deployed_version"], &view["version"]),
        (&json!(2), &json!(2)),
        "{view}"
    );
    let versions = machine.get("/functions/f/versions").await.ok();
    assert_eq!(versions["items"].as_array().map(Vec::len), Some(2), "{versions}");
    let audit = machine.get("/audit?action=function.").await.ok();
    let actions: Vec<&Value> = audit["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| &entry["action"])
        .collect();
    assert_eq!(actions, ["function.updated", "function.settings", "function.created"]);
}

#[tokio::test]
async fn a_sandbox_that_was_asked_for_can_be_left_to_the_controller_again() {
    let machine = Machine::start().await;
    let asked = machine
        .deploy_with("f", "return 1", json!({"sandbox": "wasm"}))
        .await
        .ok();
    assert_eq!(asked["sandbox_reason"], "it was asked for");
    let view = put(&machine, "f", json!({"sandbox": "auto"})).await;
    let reason = view["sandbox_reason"].as_str().expect("a sentence");
    assert!(reason.starts_with("the code loads in wasm"), "{view}");
}

#[tokio::test]
async fn a_canary_is_named_and_the_live_version_gets_the_rest() {
    let machine = Machine::start().await;
    machine.deploy("f", "return 1").await;
    let view = put(&machine, "f", json!({"code": "return 2", "canary": 20})).await;
    assert_eq!(
        (&view["version"], &view["deployed_version"]),
        (&json!(1), &json!(2)),
        "{view}"
    );
    let split = machine.ask(Method::PUT, "/functions/f/traffic", Some(json!({"weights": {"2": 50}})));
    let split = split.await.ok();
    let shares: Vec<_> = split["versions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|share| &share["weight"])
        .collect();
    assert_eq!(shares, [50, 50], "{split}");
    let mut answers = [0; 2];
    for _ in 0..100 {
        let output = machine.call("f", Value::Null).await.ok()["output"]
            .as_u64()
            .expect("a number");
        answers[usize::try_from(output - 1).expect("small")] += 1;
    }
    assert!(answers.iter().all(|count| *count > 10), "{answers:?}");

    // Without a number: out of the split, and then back.
    let back = async || {
        machine
            .ask(Method::POST, "/functions/f/rollback", Some(json!({})))
            .await
    };
    let view = back().await.ok();
    assert_eq!((&view["version"], view.get("traffic")), (&json!(1), None), "{view}");
    back().await.refused(404, Code::VersionNotFound);
    put(&machine, "f", json!({"code": "return 3"})).await;
    assert_eq!(back().await.ok()["version"], 2);
    assert_eq!(back().await.ok()["version"], 1);
}

#[tokio::test]
async fn a_change_holds_only_for_the_function_that_was_read() {
    let machine = Machine::start().await;
    machine.deploy("f", "return 1").await;
    let shown = machine.get("/functions/f").await;
    let tag = shown.headers["etag"].to_str().expect("text").to_owned();
    let request = |method, path: &str, name: &'static str| machine.request(method, path).header(name, &tag);
    let known = machine
        .send(request(Method::GET, "/functions/f", "if-none-match"), None)
        .await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);
    let changed = machine.send(
        request(Method::PUT, "/functions/f", "if-match"),
        Some(json!({"concurrency": 3})),
    );
    let changed = changed.await;
    assert_ne!(changed.headers["etag"], *tag, "another one after each change");
    changed.ok();
    for (method, path, body) in [
        (Method::PUT, "/functions/f", Some(json!({"concurrency": 4}))),
        (Method::POST, "/functions/f/rollback", Some(json!({"version": 1}))),
        (Method::DELETE, "/functions/f", None),
    ] {
        let late = machine.send(request(method, path, "if-match"), body).await;
        late.refused(412, Code::FunctionChanged);
    }
    let shown = machine.get("/functions/f").await.ok();
    assert_eq!((&shown["concurrency"], &shown["version"]), (&json!(3), &json!(1)));
}

#[tokio::test]
async fn the_platform_answers_preflights_without_a_job() {
    let machine = Machine::start().await;
    let cors = json!({"public": true, "cors": {"origins": ["https://app.example"]}});
    let view = machine.deploy_with("f", "return 1", cors).await.ok();
    assert_eq!(view["cors"]["origins"], json!(["https://app.example"]), "{view}");
    let asked = |method, origin: &'static str| {
        let request = axum::http::Request::builder().method(method).uri("/fn/operator/f");
        request.header("origin", origin)
    };
    let preflight = asked(Method::OPTIONS, "https://app.example").header("access-control-request-method", "PUT");
    let answer = machine.send(preflight, None).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
    let called = machine.send(asked(Method::POST, "https://app.example"), None).await;
    assert_eq!(called.headers["access-control-allow-origin"], "https://app.example");
    let foreign = machine.send(asked(Method::POST, "https://other.example"), None).await;
    assert!(
        !foreign.headers.contains_key("access-control-allow-origin"),
        "{foreign:?}"
    );
    let jobs = machine.get("/jobs").await.ok();
    assert_eq!(
        jobs["items"].as_array().map(Vec::len),
        Some(2),
        "the two calls alone: {jobs}"
    );

    let view = put(&machine, "f", json!({"cors": {"origins": []}})).await;
    assert_eq!(view.get("cors"), None, "{view}");
    let own = asked(Method::OPTIONS, "https://app.example").header("access-control-request-method", "PUT");
    let answer = machine.send(own, None).await;
    assert_eq!(
        answer.status,
        StatusCode::OK,
        "the function answers for itself: {answer:?}"
    );
    let bad = json!({"cors": {"origins": ["https://app.example/path"]}});
    let refused = machine.ask(Method::PUT, "/functions/f", Some(bad)).await;
    refused.refused(422, Code::FunctionBadCors);
}
