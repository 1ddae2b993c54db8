//! What one account takes from the others: slots, free computing, a good name; and what a newcomer's computer is given.

use std::time::{Duration, Instant};

use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{machine::Machine, providers::until, rogue::Rogue};

const ECHO: &str = "export default (event) => event;\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_sleeps_on_every_slot_it_gets_leaves_some_for_another() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let (sleeper, other) = (
        machine.person("sleeper", 50_000_000).await,
        machine.person("other", 10_000_000).await,
    );
    let sleeps = json!({"name": "sleeps", "language": "javascript", "concurrency": 1000, "timeout_ms": 120_000,
        "memory_limit_mb": 32,
        "code": "export default () => new Promise((done) => setTimeout(done, 100000, 1));\n"});
    let echo = json!({"name": "echo", "language": "javascript", "code": ECHO});
    for (token, body) in [(&sleeper, sleeps), (&other, echo)] {
        machine
            .ask_as(Some(token), Method::POST, "/functions", Some(body))
            .await
            .ok();
    }
    let slots = machine.get("/providers").await.ok()["items"][0]["slots"]
        .as_u64()
        .expect("slots");
    for _ in 0..slots + 10 {
        let request = machine
            .request_as(&sleeper, Method::POST, "/execute/sleeps")
            .header("prefer", "respond-async")
            .json(&json!({}));
        assert_eq!(machine.send(request).await.status.as_u16(), 202);
    }
    until("the sleeper has all that it gets", async || {
        let metrics = machine.get("/metrics").await.body;
        let waiting = |line: &str| {
            line.strip_prefix("piecework_jobs_in_line ")?
                .parse::<u64>()
                .ok()
                .filter(|jobs| *jobs >= 10)
        };
        metrics.as_str()?.lines().find_map(waiting).map(drop)
    })
    .await;
    // Far less than the sleepers take, and longer than a busy machine needs.
    for nth in 0..5 {
        let began = Instant::now();
        let answer = machine
            .ask_as(Some(&other), Method::POST, "/execute/echo", Some(json!({"input": nth})))
            .await;
        assert_eq!(answer.ok()["output"], nth);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
    // A deploy needs a slot for its check, and gets one of the reserve.
    let again = json!({"code": "export default () => 'new';\n"});
    machine
        .ask_as(Some(&other), Method::PUT, "/functions/echo", Some(again))
        .await
        .ok();
}

#[tokio::test]
async fn strangers_bring_no_public_function_into_quarantine() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let stranger = machine.person("stranger", 1_000_000).await;
    let dies = "export default (event) => { if ((event.body ?? event) !== 'live') process.exit(3); return 1; };\n";
    machine
        .deploy_with("open", "javascript", dies, json!({"public": true}))
        .await
        .ok();
    let path = "/fn/operator/open";
    for nth in 0..15 {
        let body = json!(format!("die {nth}"));
        let answer = machine.ask_as(None, Method::POST, path, Some(body.clone())).await;
        answer.refused(502, Code::FunctionCrashed);
        let answer = machine.ask_as(Some(&stranger), Method::POST, path, Some(body)).await;
        answer.refused(502, Code::FunctionCrashed);
    }
    let shown = machine.get("/functions/open").await.ok();
    assert_eq!(shown["status"], "ready");
    machine.call("open", json!("live")).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomers_computer_gets_no_job_with_secrets_unless_its_developer_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let newcomer = Rogue::join(&machine, "newcomer").await;
    let ada = machine.person("ada", 10_000_000).await;
    let deploy = async |name: &str, placement: Value| {
        let body = json!({"name": name, "language": "javascript", "code": ECHO, "sandbox": "wasm",
            "secrets": {"KEY": "s3cr3t-value"}, "placement": placement});
        machine.ask_as(Some(&ada), Method::POST, "/functions", Some(body)).await
    };
    let call = async |name: &str| {
        let path = format!("/execute/{name}");
        machine
            .ask_as(Some(&ada), Method::POST, &path, Some(json!({"input": 1})))
            .await
    };
    let cheapest = json!({"policy": "cheapest"});
    let view = deploy("secret", cheapest).await.ok();
    assert_eq!(
        (&view["confidential"], &view["placement"]),
        (&json!(true), &json!({"policy": "cheapest"}))
    );
    for _ in 0..10 {
        call("secret").await.ok();
    }
    assert_eq!(newcomer.jobs(), 0, "they ran on the operator's computer");
    let job = call("secret").await.headers["x-job-id"]
        .to_str()
        .expect("text")
        .to_owned();
    let path = format!("/jobs/{job}");
    let view = machine.ask_as(Some(&ada), Method::GET, &path, None).await.ok();
    assert_eq!(view["passed_over"]["providers"][0]["reason"], "not_confided", "{view}");
    let open = deploy("open", json!({"policy": "cheapest", "trust": "any"})).await.ok();
    assert_eq!(
        (&open["confidential"], &open["placement"]["trust"]),
        (&json!(false), &json!("any"))
    );
    until("the newcomer is the cheapest", async || {
        call("open").await.ok();
        (newcomer.jobs() > 0).then_some(())
    })
    .await;
    // Where nobody else is there, it is refused with the reason and the way out.
    let refused = deploy("alley", json!({"region": "alley"})).await;
    refused.refused(503, Code::ProviderNone);
    let error = refused.body["error"].to_string();
    assert!(
        error.contains("not_confided") && error.contains("--trust any"),
        "{error}"
    );
}
