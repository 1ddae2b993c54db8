//! Jobs that were seen and never ran to their end.

use piecework_model::Code;
use serde_json::{Value, json};

use crate::doubles::machine::Machine;

#[tokio::test]
async fn a_job_that_a_provider_gave_back_does_not_vanish() {
    let machine = Machine::start().await;
    machine.deploy("f", "pause").await;
    let refused = machine.call("f", Value::Null).await;
    refused.refused(503, Code::ProviderNone);
    let jobs = machine.get("/jobs").await.ok();
    let job = &jobs["items"][0];
    assert_eq!(
        (&job["state"], &job["cold"], &job["price_ucr"]),
        (&json!("failed"), &Value::Null, &json!(0)),
        "{jobs}"
    );
    let shown = machine.job(job["id"].as_str().expect("an id")).await;
    assert_eq!(shown["error"]["code"], Code::ProviderNone.as_str(), "{shown}");
}
