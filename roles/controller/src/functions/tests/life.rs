//! Functions that are stopped, deleted and restored.

use axum::http::Method;
use piecework_model::Code;
use serde_json::Value;

use super::actions;
use crate::doubles::machine::{Machine, until};

#[tokio::test]
async fn a_stopped_function_takes_no_calls_until_it_is_started() {
    let machine = Machine::start().await;
    machine.deploy("s", "return 1").await;
    machine.call("s", Value::Null).await.ok();
    let post = async |verb: &str| machine.ask(Method::POST, &format!("/functions/s/{verb}"), None).await;
    for _ in 0..2 {
        assert_eq!(post("stop").await.ok()["status"], "stopped");
    }
    let machine = machine.restart().await;
    let post = async |verb: &str| machine.ask(Method::POST, &format!("/functions/s/{verb}"), None).await;
    machine.call("s", Value::Null).await.refused(409, Code::FunctionStopped);
    machine.get("/fn/operator/s").await.refused(409, Code::FunctionStopped);
    machine
        .queue("s", Value::Null)
        .await
        .refused(409, Code::FunctionStopped);
    for _ in 0..2 {
        assert_eq!(post("start").await.ok()["status"], "ready");
    }
    machine.call("s", Value::Null).await.ok();
    let audit = machine.get("/audit?target=s").await.ok();
    assert_eq!(
        actions(&audit),
        ["function.started", "function.stopped", "function.created"]
    );
}

#[tokio::test]
async fn a_deleted_function_is_restored_and_its_metrics_stay() {
    let machine = Machine::start().await;
    let id = machine.deploy("gone", "return 1").await["id"].clone();
    machine.deploy("other", "return 1").await;
    let id = id.as_str().expect("an id");
    machine.call("gone", Value::Null).await.ok();
    let remove = async || {
        machine
            .ask(Method::DELETE, "/functions/gone", None)
            .await
            .status
            .as_u16()
    };
    assert_eq!(remove().await, 204);
    machine
        .call("gone", Value::Null)
        .await
        .refused(404, Code::FunctionNotFound);
    until("the call is counted", async || {
        let view = machine.get(&format!("/metrics/functions/{id}?step=hour")).await.ok();
        (view["points"][0]["count"] == 1).then_some(())
    })
    .await;
    let named = async |query: &str| {
        let list = machine.get(&format!("/functions?{query}")).await.ok();
        let items = list["items"].as_array().expect("a list");
        items
            .iter()
            .map(|item| item["name"].as_str().expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (named("").await, named("deleted=true").await),
        (vec!["other".to_owned()], vec!["gone".to_owned()])
    );
    assert_eq!(named("name=oth").await, ["other"]);
    assert!(named("name=gone").await.is_empty() && named("name=x&deleted=true").await.is_empty());
    machine.ask(Method::POST, "/functions/gone/restore", None).await.ok();
    machine.call("gone", Value::Null).await.ok();
    machine
        .ask(Method::POST, "/functions/gone/restore", None)
        .await
        .refused(409, Code::FunctionNotDeleted);
    machine
        .ask(Method::POST, "/functions/never/restore", None)
        .await
        .refused(404, Code::FunctionNotFound);
    assert_eq!(remove().await, 204);
    machine.deploy("gone", "return 1").await;
    machine
        .ask(Method::POST, &format!("/functions/{id}/restore"), None)
        .await
        .refused(409, Code::FunctionExists);
}
