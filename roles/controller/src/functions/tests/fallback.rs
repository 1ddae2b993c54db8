//! A version whose sandbox was chosen for it moves to the jail when wasm falls short.

use axum::http::Method;
use piecework_model::{BackendName, Code};
use serde_json::{Value, json};

use crate::doubles::machine::{Machine, Setup, named};

/// A provider with wasm alone, and one that has the jail too.
async fn machine() -> Machine {
    let mut heavy = named("heavy", 1);
    let mut jail = heavy.probes[0].clone();
    jail.backend = BackendName::Jail;
    heavy.probes.push(jail);
    Machine::start_with(Setup {
        own: vec![named("light", 0), heavy],
        ..Setup::default()
    })
    .await
}

async fn sandbox(machine: &Machine, name: &str) -> (String, String) {
    let shown = machine.get(&format!("/functions/{name}")).await.ok();
    let text = |field: &str| shown[field].as_str().expect("text").to_owned();
    (text("sandbox"), text("sandbox_reason"))
}

/// Jobs that providers were paid for.
fn jobs(machine: &Machine) -> usize {
    machine.providers.iter().map(|double| double.jobs()).sum()
}

#[tokio::test]
async fn a_call_that_touches_what_wasm_lacks_is_answered_by_the_jail_and_billed_once() {
    let machine = machine().await;
    let deployed = machine.deploy("t", "touch").await;
    assert_eq!(deployed["sandbox"], "wasm");
    let called = machine.call("t", Value::Null).await.ok();
    assert_eq!(called["output"], "in the jail");
    let job = machine.job(called["job_id"].as_str().expect("an id")).await;
    assert_eq!((&job["sandbox"], &job["state"]), (&json!("jail"), &json!("succeeded")));
    let why = job["sandbox_reason"].as_str().expect("a sentence");
    assert!(
        why.starts_with("the run in wasm was given up") && why.contains("`Intl`"),
        "{why}"
    );
    assert_eq!(jobs(&machine), 1, "one run has a receipt");
    let logs = machine
        .get(&format!("/jobs/{}/logs", called["job_id"].as_str().expect("an id")))
        .await
        .ok();
    let text = logs["text"].as_str().expect("text");
    assert!(text.contains("[sandbox]") && text.contains("`Intl`"), "{text}");
    let (kind, reason) = sandbox(&machine, "t").await;
    assert!(kind == "jail" && reason.contains("`Intl`"), "{kind}: {reason}");
    // Remembered: at the next call, after a restart, and for the next version of the same code.
    let machine = machine.restart().await;
    let again = machine.call("t", Value::Null).await.ok();
    let logs = machine
        .get(&format!("/jobs/{}/logs", again["job_id"].as_str().expect("an id")))
        .await
        .ok();
    assert_eq!((&again["output"], &logs["text"]), (&json!("in the jail"), &json!("")));
    let settings = json!({"timeout_ms": 4_000});
    let updated = machine.ask(Method::PUT, "/functions/t", Some(settings)).await.ok();
    assert_eq!(updated["sandbox"], "jail");
    let other = json!({"code": "return 2"});
    let updated = machine.ask(Method::PUT, "/functions/t", Some(other)).await.ok();
    assert_eq!(updated["sandbox"], "wasm", "other code is tried anew");
}

#[tokio::test]
async fn a_sandbox_that_was_named_is_kept_and_the_error_names_what_was_touched() {
    let machine = machine().await;
    let deployed = machine.deploy_with("t", "touch", json!({"sandbox": "wasm"})).await.ok();
    assert_eq!(deployed["sandbox"], "wasm");
    let refused = machine.call("t", Value::Null).await;
    refused.refused(409, Code::SandboxUnsupported);
    assert!(
        refused.body["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("`Intl`")),
        "{}",
        refused.body
    );
    assert_eq!(sandbox(&machine, "t").await.0, "wasm");
}

#[tokio::test]
async fn a_trap_moves_a_version_only_if_the_jail_answers_the_call() {
    let machine = machine().await;
    machine.deploy("w", "trap in wasm").await;
    assert_eq!(machine.call("w", Value::Null).await.ok()["output"], "in the jail");
    assert_eq!(sandbox(&machine, "w").await.0, "jail");
    machine.deploy("b", "trap").await;
    machine.call("b", Value::Null).await.refused(502, Code::FunctionCrashed);
    assert_eq!(
        sandbox(&machine, "b").await.0,
        "wasm",
        "one input that crashes it anywhere"
    );
}

#[tokio::test]
async fn where_no_provider_has_the_jail_deploy_says_so_and_a_touch_is_an_error() {
    let machine = Machine::start().await;
    let deployed = machine.deploy("t", "touch").await;
    let reason = deployed["sandbox_reason"].as_str().expect("text");
    assert!(reason.contains("no provider has the jail"), "{reason}");
    machine
        .call("t", Value::Null)
        .await
        .refused(409, Code::SandboxUnsupported);
}
