//! Versions that kill their instances are quarantined, and canaries that fail are withdrawn.

use axum::http::Method;
use piecework_model::Code;
use serde_json::{Value, json};

use super::actions;
use crate::doubles::machine::{Machine, until};

#[tokio::test]
async fn a_version_that_keeps_crashing_is_quarantined_until_released_or_replaced() {
    let machine = Machine::start().await;
    machine.deploy("q", "crash").await;
    let crash = async |machine: &Machine, nth: u32| {
        let input = json!(format!("crash {nth}"));
        machine.call("q", input).await.refused(502, Code::FunctionCrashed);
    };
    for nth in 0..9 {
        crash(&machine, nth).await;
    }
    machine.call("q", Value::Null).await.ok();
    for _ in 0..15 {
        crash(&machine, 0).await;
    }
    // One input that kills it, however often, is no reason.
    machine.call("q", Value::Null).await.ok();
    for nth in 0..10 {
        crash(&machine, nth).await;
    }
    let refused = machine.call("q", Value::Null).await;
    refused.refused(409, Code::FunctionQuarantined);
    assert!(
        refused.body["error"]["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("--release"))
    );
    machine
        .queue("q", Value::Null)
        .await
        .refused(409, Code::FunctionQuarantined);
    let machine = machine.restart().await;
    machine
        .call("q", Value::Null)
        .await
        .refused(409, Code::FunctionQuarantined);
    let shown = machine.get("/functions/q").await.ok();
    assert_eq!(
        (
            &shown["status"],
            &shown["quarantine"]["code"],
            &shown["quarantine"]["failures"]
        ),
        (&json!("quarantined"), &json!(Code::FunctionCrashed), &json!(10))
    );
    let released = machine.ask(Method::POST, "/functions/q/release", None).await.ok();
    assert_eq!(released["status"], "ready");
    machine.call("q", Value::Null).await.ok();
    for nth in 0..10 {
        crash(&machine, nth).await;
    }
    machine
        .call("q", Value::Null)
        .await
        .refused(409, Code::FunctionQuarantined);
    let fixed = json!({"code": "return \"fixed\""});
    machine.ask(Method::PUT, "/functions/q", Some(fixed)).await.ok();
    assert_eq!(machine.call("q", json!("crash")).await.ok()["output"], "fixed");
    let audit = machine.get("/audit?target=q").await.ok();
    assert_eq!(
        actions(&audit),
        [
            "function.updated",
            "quarantine.set",
            "quarantine.released",
            "quarantine.set",
            "function.created"
        ]
    );
    assert_eq!(audit["items"][1]["actor"], "platform");
}

#[tokio::test]
async fn exceptions_do_not_quarantine() {
    let machine = Machine::start().await;
    machine.deploy("r", "raise").await;
    for _ in 0..25 {
        machine.call("r", Value::Null).await.refused(502, Code::FunctionRaised);
    }
}

#[tokio::test]
async fn calls_are_split_by_weight_and_a_failing_canary_is_rolled_back() {
    let machine = Machine::start().await;
    machine.deploy("c", "return 1").await;
    let put = async |body: Value| machine.ask(Method::PUT, "/functions/c", Some(body)).await;
    put(json!({"code": "return 2", "canary": 100}))
        .await
        .refused(422, Code::TrafficBadWeights);
    let updated = put(json!({"code": "return 2", "canary": 50})).await.ok();
    assert_eq!(updated["version"], 1, "the live one stays live");
    let mut seen = [0, 0];
    for _ in 0..60 {
        let version = machine.call("c", Value::Null).await.ok()["output"]
            .as_u64()
            .expect("a number");
        seen[usize::try_from(version).expect("small") - 1] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "both get calls: {seen:?}");
    let traffic = machine.get("/functions/c/traffic").await.ok();
    assert_eq!(
        (&traffic["versions"][1]["version"], &traffic["versions"][1]["calls"]),
        (&json!(2), &json!(seen[1]))
    );
    for (version, calls) in [(1, seen[0]), (2, seen[1])] {
        until("the calls are counted", async || {
            let view = machine
                .get(&format!("/metrics/functions/c?step=hour&version={version}"))
                .await
                .ok();
            let points = view["points"].as_array().expect("points");
            let count: u64 = points.iter().filter_map(|point| point["count"].as_u64()).sum();
            (count == calls).then_some(())
        })
        .await;
    }

    put(json!({"code": "raise", "canary": 10})).await.ok();
    let set = json!({"weights": {"1": 1, "3": 9}, "calls_min": 5, "errors_permille_max": 200});
    machine.ask(Method::PUT, "/functions/c/traffic", Some(set)).await.ok();
    let mut failed = 0;
    for _ in 0..300 {
        let answer = machine.call("c", Value::Null).await;
        failed += u32::from(!answer.status.is_success());
    }
    assert_eq!(failed, 5, "the canary is gone after the calls it is judged by");
    let shown = machine.get("/functions/c").await.ok();
    assert_eq!((&shown["version"], &shown["traffic"]), (&json!(1), &Value::Null));
    let audit = machine.get("/audit?action=traffic.").await.ok();
    assert_eq!(actions(&audit), ["traffic.rolled_back", "traffic.set"]);
    assert_eq!(audit["items"][0]["detail"]["version"], 3);

    let split = async |weights: Value| {
        let body = json!({"weights": weights});
        machine.ask(Method::PUT, "/functions/c/traffic", Some(body)).await
    };
    split(json!({"9": 1})).await.refused(404, Code::VersionNotFound);
    split(json!({"1": 0})).await.refused(422, Code::TrafficBadWeights);
    split(json!({})).await.refused(422, Code::TrafficBadWeights);
    split(json!({"1": 0, "2": 100})).await.ok();
    assert_eq!(machine.call("c", Value::Null).await.ok()["output"], 2);
    machine
        .ask(Method::POST, "/functions/c/rollback", Some(json!({"version": 1})))
        .await
        .ok();
    assert_eq!(
        machine.call("c", Value::Null).await.ok()["output"],
        1,
        "a rollback takes all calls"
    );
}
