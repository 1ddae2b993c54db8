//! A version that computes goes where that costs less, and back.

use axum::http::Method;
use piecework_model::BackendName;
use serde_json::{Value, json};

use crate::doubles::machine::{Machine, Setup, named};

/// A provider with wasm alone, and one that has the jail too.
async fn machine() -> Machine {
    let (mut light, mut heavy) = (named("light", 0), named("heavy", 1));
    let mut jail = heavy.probes[0].clone();
    jail.backend = BackendName::Jail;
    heavy.probes.push(jail);
    // What is said of CPU time is checked against the clock and the cores; these functions only say it.
    (light.cores, heavy.cores) = (64, 64);
    Machine::start_with(Setup {
        own: vec![light, heavy],
        ..Setup::default()
    })
    .await
}

async fn function(machine: &Machine, name: &str) -> (String, String) {
    let shown = machine.get(&format!("/functions/{name}")).await.ok();
    let text = |field: &str| shown[field].as_str().expect("text").to_owned();
    (text("sandbox"), text("sandbox_reason"))
}

/// Calls it so often; the jobs.
async fn called(machine: &Machine, name: &str, times: usize) -> Vec<Value> {
    let mut jobs = Vec::new();
    for _ in 0..times {
        let done = machine.call(name, Value::Null).await.ok();
        jobs.push(machine.job(done["job_id"].as_str().expect("an id")).await);
    }
    jobs
}

fn count(jobs: &[Value], sandbox: &str) -> usize {
    jobs.iter().filter(|job| job["sandbox"] == sandbox).count()
}

async fn log(machine: &Machine, job: &Value) -> String {
    let id = job["id"].as_str().expect("an id");
    let logs = machine.get(&format!("/jobs/{id}/logs")).await.ok();
    logs["text"].as_str().expect("text").to_owned()
}

/// More than a trial takes, however the draws fall.
const TRIAL: usize = 120;

#[tokio::test]
async fn a_version_that_computes_moves_where_its_calls_cost_less_and_says_so() {
    let machine = machine().await;
    assert_eq!(machine.deploy("b", "burn 30000 2000").await["sandbox"], "wasm");
    let before = called(&machine, "b", 8).await;
    assert_eq!(count(&before, "jail"), 0, "nothing is known yet");
    let trial = called(&machine, "b", TRIAL).await;
    let looks: Vec<&Value> = trial.iter().filter(|job| job["sandbox"] == "jail").collect();
    let told = log(&machine, looks[0]).await;
    assert!(told.starts_with("[sandbox] this call ran in the jail to see"), "{told}");
    let why = looks[0]["sandbox_reason"].as_str().expect("a sentence");
    assert!(why.starts_with("this call ran in the jail to see"), "{why}");
    let (sandbox, reason) = function(&machine, "b").await;
    assert!(
        sandbox == "jail" && reason.starts_with("its calls cost less there: "),
        "{sandbox}: {reason}"
    );
    let price = |job: &Value| job["price_ucr"].as_u64().expect("a price");
    let last = trial.iter().rev().find(|job| job["sandbox"] == "jail").expect("one");
    assert!(price(last) * 2 < price(&before[0]), "{last}");
    assert_eq!(log(&machine, last).await, "", "where the others run");
    assert_eq!(
        machine.job(last["id"].as_str().expect("an id")).await["sandbox_reason"],
        reason.as_str()
    );

    let machine = machine.restart().await;
    assert_eq!(function(&machine, "b").await, (sandbox, reason));
    let after = called(&machine, "b", 100).await;
    assert!(count(&after, "jail") > 85, "{} of 100", count(&after, "jail"));

    // Nobody here has the jail any more: they are answered all the same.
    machine.provider("heavy").set_here(false);
    let alone = called(&machine, "b", 3).await;
    assert_eq!(count(&alone, "wasm"), 3);
}

/// Who pays for none of them could choose inputs that make the owner's own calls dear.
#[tokio::test]
async fn calls_of_strangers_move_no_function_to_another_sandbox() {
    let machine = machine().await;
    let public = json!({"public": true});
    machine.deploy_with("p", "burn 30000 2000", public).await.ok();
    let strangers = async |times| {
        for _ in 0..times {
            machine.ask_as(None, Method::POST, "/fn/operator/p", None).await.ok();
        }
    };
    strangers(60).await;
    let page = machine.get("/jobs?function=p&limit=100").await.ok();
    let jobs = page["items"].as_array().expect("a list");
    assert_eq!(
        (jobs.len(), count(jobs, "wasm")),
        (60, 60),
        "one call in four would be a trial"
    );
    // The first eight of the owner's would be enough to begin one, had anything counted.
    let own = called(&machine, "p", 8).await;
    assert_eq!(count(&own, "wasm"), 8);
    let trial = called(&machine, "p", TRIAL).await;
    assert!(count(&trial, "jail") > 0);
    assert_eq!(function(&machine, "p").await.0, "jail");
}

#[tokio::test]
async fn a_version_stays_where_its_calls_cost_no_less_elsewhere() {
    let machine = machine().await;
    machine.deploy("dear", "burn 10000 40000").await;
    let jobs = called(&machine, "dear", TRIAL).await;
    assert!((8..40).contains(&count(&jobs, "jail")), "{}", count(&jobs, "jail"));
    let (sandbox, reason) = function(&machine, "dear").await;
    assert!(
        sandbox == "wasm" && reason.contains("its calls cost no less in the jail: "),
        "{sandbox}: {reason}"
    );
}

#[tokio::test]
async fn what_is_short_named_or_compared_is_tried_nowhere_else() {
    let machine = machine().await;
    machine.deploy("short", "burn 900 100").await;
    for (name, more) in [
        ("named", json!({"sandbox": "wasm"})),
        ("strict", json!({"strict": true})),
        ("twice", json!({"rerun_percent": 1})),
    ] {
        machine.deploy_with(name, "burn 30000 2000", more).await.ok();
    }
    for name in ["short", "named", "strict", "twice"] {
        let jobs = called(&machine, name, 60).await;
        assert_eq!(count(&jobs, "wasm"), 60, "{name}");
    }
    // A version that was found to need the jail does not look back.
    machine.deploy("t", "touch").await;
    let jobs = called(&machine, "t", 60).await;
    assert_eq!(count(&jobs, "jail"), 60);
    let updated = machine
        .ask(Method::PUT, "/functions/named", Some(json!({"sandbox": "auto"})))
        .await
        .ok();
    assert_eq!(updated["sandbox"], "wasm");
    let jobs = called(&machine, "named", TRIAL).await;
    assert!(count(&jobs, "jail") > 50, "{}", count(&jobs, "jail"));
}
