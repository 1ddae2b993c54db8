//! What a deploy said is its developer's.

use axum::http::Method;
use piecework_model::Code;
use serde_json::{Value, json};

use crate::doubles::machine::Machine;

fn text(log: &Value) -> &str {
    log["text"].as_str().expect("text")
}

#[tokio::test]
async fn each_version_has_the_log_of_its_deploy_which_nobody_else_sees() {
    let machine = Machine::start().await;
    machine.deploy_with("p", "return 1", json!({"public": true})).await.ok();
    let update = json!({"code": "return 2"});
    machine.ask(Method::PUT, "/functions/p", Some(update)).await.ok();
    let machine = machine.restart().await;
    for number in [1, 2] {
        let log = machine.get(&format!("/functions/p/versions/{number}/log")).await.ok();
        assert_eq!((&log["function"], &log["version"]), (&json!("p"), &json!(number)));
        assert!(text(&log).contains("check: loaded in wasm"), "{log}");
        assert!(log["at"].is_string(), "{log}");
    }
    let none = machine.get("/functions/p/versions/3/log").await;
    none.refused(404, Code::VersionNotFound);
    let ada = machine.person("ada", 0).await;
    let id = machine.get("/functions/p").await.ok()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for name in ["p", &id, "operator/p"] {
        let path = format!("/functions/{}/versions/1/log", name.replace('/', "%2F"));
        let refused = machine.ask_as(Some(&ada), Method::GET, &path, None).await;
        refused.refused(404, Code::FunctionNotFound);
    }
}

#[tokio::test]
async fn a_deploy_that_failed_leaves_its_log_without_secrets() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 100).await;
    let secrets = json!({"secrets": {"TOKEN": "s3cr3t-value"}});
    let refused = machine.deploy_as(&ada, "b", "broken", secrets).await;
    refused.refused(422, Code::FunctionLoadFailed);
    // Nothing was built of these.
    machine
        .deploy_as(&ada, "c", "", json!({}))
        .await
        .refused(422, Code::FunctionBadCode);
    machine
        .deploy_as(&ada, "d", "return 1", json!({"concurrency": 0}))
        .await
        .refused(422, Code::FunctionBadConcurrency);
    let list = async |token: &str, query: &str| {
        let path = format!("/failed-deploys{query}");
        machine.ask_as(Some(token), Method::GET, &path, None).await.ok()["items"].clone()
    };
    let failed = list(&ada, "").await;
    assert_eq!(failed.as_array().map(Vec::len), Some(1), "{failed}");
    let said = text(&failed[0]);
    assert!(
        said.contains("check: not loaded") && said.contains("failed: function.load_failed: "),
        "{said}"
    );
    assert!(said.contains("[secret]") && !said.contains("s3cr3t-value"), "{said}");
    assert_eq!(list(&ada, "?function=b").await, failed);
    assert_eq!(list(&ada, "?function=c").await, json!([]));
    assert_eq!(list(&machine.token, "").await, json!([]), "the operator's own");

    machine.deploy_as(&ada, "b", "return 1", json!({})).await.ok();
    let update = json!({"code": "broken"});
    let refused = machine
        .ask_as(Some(&ada), Method::PUT, "/functions/b", Some(update))
        .await;
    refused.refused(422, Code::FunctionLoadFailed);
    assert_eq!(list(&ada, "").await.as_array().map(Vec::len), Some(2));
}
