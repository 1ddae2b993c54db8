//! How often an account may ask.

use axum::http::Method;
use piecework_model::Code;
use serde_json::{Value, json};

use crate::doubles::machine::{Machine, until};

#[tokio::test]
async fn an_account_over_its_rate_waits_and_others_do_not() {
    let machine = Machine::start().await;
    let (ada, bob) = (machine.person("ada", 0).await, machine.person("bob", 0).await);
    let set = |body: Value| machine.ask(Method::PUT, "/accounts/ada/limits", Some(body));
    set(json!({"requests_per_s": 0}))
        .await
        .refused(422, Code::RateBadLimits);
    set(json!({"weight": 101})).await.refused(422, Code::RateBadLimits);
    let limits = json!({"requests_per_s": 1, "burst": 3});
    machine
        .ask_as(Some(&ada), Method::PUT, "/accounts/ada/limits", Some(limits.clone()))
        .await
        .refused(403, Code::AuthOperator);
    machine
        .ask_as(Some(&ada), Method::GET, "/accounts/bob/limits", None)
        .await
        .refused(403, Code::AuthOperator);
    set(limits).await.ok();
    let list = async |token: &str| machine.ask_as(Some(token), Method::GET, "/functions", None).await;
    let answers = futures::future::join_all((0..20).map(|_| list(&ada))).await;
    let refused: Vec<_> = answers.iter().filter(|answer| !answer.status.is_success()).collect();
    assert!(refused.len() >= 10, "{} of 20", refused.len());
    refused[0].refused(429, Code::RateLimited);
    assert_eq!(refused[0].headers["retry-after"], "1");
    for answer in futures::future::join_all((0..20).map(|_| list(&bob))).await {
        answer.ok();
    }
    until("the bucket has filled", async || {
        list(&ada).await.status.is_success().then_some(())
    })
    .await;
}
