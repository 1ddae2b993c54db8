//! What a function may cost in a month.

use axum::http::Method;
use piecework_model::Code;
use serde_json::{Value, json};

use crate::doubles::machine::Machine;

#[tokio::test]
async fn a_budget_stops_calls_and_tells_its_owner() {
    let machine = Machine::start().await;
    let view = machine
        .deploy_with("b", "return 1", json!({"budget_ucr": 100}))
        .await
        .ok();
    assert_eq!(
        (&view["budget"]["budget_ucr"], &view["budget"]["spent_ucr"]),
        (&json!(100), &json!(0))
    );
    let mut spent = 0;
    let refused = loop {
        let answer = machine.call("b", Value::Null).await;
        if !answer.status.is_success() {
            break answer;
        }
        assert!(spent < 100, "a call begins only below the budget");
        spent += answer.body["price_ucr"].as_u64().expect("a price");
    };
    refused.refused(402, Code::FunctionBudgetSpent);
    assert!(spent >= 100);
    machine
        .queue("b", Value::Null)
        .await
        .refused(402, Code::FunctionBudgetSpent);
    let audit = machine.get("/audit?action=budget.alert").await.ok();
    assert_eq!(audit["items"][0]["detail"]["percent"], 100, "{audit}");
    let machine = machine.restart().await;
    machine
        .call("b", Value::Null)
        .await
        .refused(402, Code::FunctionBudgetSpent);
    let shown = machine.get("/functions/b").await.ok();
    assert_eq!(
        shown["budget"]["spent_ucr"].as_u64(),
        Some(spent),
        "what was spent survives"
    );
    let raised = json!({"budget_ucr": spent + 1});
    machine.ask(Method::PUT, "/functions/b/budget", Some(raised)).await.ok();
    machine.call("b", Value::Null).await.ok();
    machine
        .call("b", Value::Null)
        .await
        .refused(402, Code::FunctionBudgetSpent);
    let none = json!({"budget_ucr": 0});
    machine.ask(Method::PUT, "/functions/b/budget", Some(none)).await.ok();
    machine.call("b", Value::Null).await.ok();
    let shown = machine.get("/functions/b").await.ok();
    assert_eq!((&shown["version"], &shown["budget"]), (&json!(1), &Value::Null));
}
