//! Somebody's own computer: no commission on what its owner runs there, and no price where it is said so.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    computer::{Computer, invite, provide, provider},
    machine::Machine,
    providers::alone,
};

const ECHO: &str = "export default (event) => event;\n";

/// Started by the operator, who is logged in.
fn own(machine: &Machine, directory: &Path, more: &[&str]) -> Computer {
    let mut command = provide(directory, &machine.url, "mine", more);
    command
        .env("PIECEWORK_URL", &machine.url)
        .env("PIECEWORK_TOKEN", &machine.token);
    Computer::ready(command)
}

/// A job of this person's function, once it is paid.
async fn run_for(machine: &Machine, token: &str) -> Value {
    let called = machine.ask_as(Some(token), Method::POST, "/execute/echo", Some(json!({"input": 1})));
    let job = called.await.ok()["job_id"].as_str().expect("an id").to_owned();
    let view = machine.paid(&job).await;
    assert_eq!(view["provider"], "mine", "{view}");
    view
}

async fn everybodys(machine: &Machine) -> [i64; 3] {
    [
        machine.posted("operator").await,
        machine.posted("mine").await,
        machine.posted("controller").await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ones_own_jobs_cost_nothing_on_ones_own_computer_and_strangers_pay() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let code = invite(&machine).await;
    let computer = own(
        &machine,
        away.path(),
        &["--invite", &code, "--mine", "--free-for-owner"],
    );
    assert_eq!(machine.get("/accounts/mine").await.ok()["owner"], "operator");
    let ada = machine.person("ada", 50_000_000).await;
    for token in [&machine.token, &ada] {
        let body = json!({"name": "echo", "language": "javascript", "code": ECHO});
        machine
            .ask_as(Some(token), Method::POST, "/functions", Some(body))
            .await
            .ok();
    }

    let before = everybodys(&machine).await;
    let mine = run_for(&machine, &machine.token).await;
    assert_eq!(
        (&mine["price_ucr"], &mine["commission_ucr"]),
        (&json!(0), &json!(0)),
        "{mine}"
    );
    assert_eq!(everybodys(&machine).await, before, "nothing moved");

    let hers = run_for(&machine, &ada).await;
    let (price, commission) = (
        hers["price_ucr"].as_i64().expect("a price"),
        hers["commission_ucr"].as_i64(),
    );
    assert!(price > 0, "{hers}");
    let earned = machine.posted("mine").await - before[1];
    assert_eq!(earned, price - commission.expect("a commission"), "{hers}");
    assert_eq!(provider(&machine, "mine").await["earned_ucr"], earned);

    assert!(computer.stop(), "it ends cleanly");
    let computer = own(&machine, away.path(), &["--mine"]);
    let before = machine.posted("mine").await;
    let priced = run_for(&machine, &machine.token).await;
    assert_ne!(priced["price_ucr"], 0, "{priced}");
    assert_eq!(priced["commission_ucr"], 0, "between accounts of one owner: {priced}");
    assert_eq!(
        machine.posted("mine").await - before,
        priced["price_ucr"].as_i64().expect("a price")
    );
    drop(computer);
}
