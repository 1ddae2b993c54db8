//! The audit log of changes.

use axum::http::Method;
use piecework_model::Code;
use serde_json::{Value, json};

use crate::doubles::machine::Machine;

fn actions(audit: &Value) -> Vec<String> {
    let items = audit["items"].as_array().expect("a list");
    let action = |item: &Value| item["action"].as_str().expect("an action").to_owned();
    items.iter().map(action).collect()
}

#[tokio::test]
async fn who_changed_what_is_recorded_and_shown_to_who_is_concerned() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 1_000).await;
    let as_ada =
        async |method: Method, path: &str, body: Option<Value>| machine.ask_as(Some(&ada), method, path, body).await;
    let deploy = json!({"name": "f", "language": "javascript", "code": "return 1",
        "secrets": {"KEY": "s3cr3t-value"}});
    as_ada(Method::POST, "/functions", Some(deploy)).await.ok();
    let token = as_ada(Method::POST, "/tokens", Some(json!({"scopes": ["view"]})))
        .await
        .ok();
    let id = token["id"].as_str().expect("an id").to_owned();
    as_ada(Method::DELETE, &format!("/tokens/{id}"), None).await;
    let transfer = json!({"to": "operator", "amount_ucr": 5});
    as_ada(Method::POST, "/transfers", Some(transfer)).await.ok();
    as_ada(Method::DELETE, "/functions/f", None).await;
    let own = as_ada(Method::GET, "/audit", None).await.ok();
    assert_eq!(
        actions(&own),
        [
            "function.deleted",
            "transfer.made",
            "token.deleted",
            "token.created",
            "function.created",
            "session.opened",
            "account.registered"
        ]
    );
    for item in own["items"].as_array().expect("a list") {
        assert_eq!((&item["actor"], &item["owner"]), (&json!("ada"), &json!("ada")));
    }
    let text = own.to_string();
    assert!(
        !text.contains("s3cr3t-value") && !text.contains("correct horse"),
        "{text}"
    );
    assert!(!text.contains(token["token"].as_str().expect("a token")));
    let first = machine.get("/audit?limit=2").await.ok();
    assert_eq!(
        actions(&first),
        ["function.deleted", "transfer.made"],
        "an operator sees everybody's"
    );
    let next = format!("/audit?limit=100&cursor={}", first["next"].as_str().expect("more"));
    let rest = actions(&machine.get(&next).await.ok());
    assert!(
        rest.contains(&"invite.created".to_owned()) && rest.contains(&"transfer.made".to_owned()),
        "{rest:?}"
    );
    machine.get("/audit?cursor=x").await.refused(422, Code::CursorMalformed);
    let machine = machine.restart().await;
    assert_eq!(
        actions(&machine.get("/audit?limit=2").await.ok()),
        ["function.deleted", "transfer.made"]
    );
}
