//! Whose word is worth what, with real sandboxes and over a real link: a reference job, and results that are compared. What
//! a controller makes of each lie is tested in `roles/controller`, in one process.

use serde_json::{Value, json};

use crate::{
    computer::{Computer, invite, provider},
    machine::Machine,
    providers::{payments_for, until},
    rogue::{Lie, Rogue},
};

const ECHO: &str = "export default (event) => event;\n";

/// Runs where it is cheapest: at the rogue, as long as it gets jobs.
fn cheapest() -> Value {
    json!({"sandbox": "wasm", "placement": {"policy": "cheapest"}})
}

async fn call(machine: &Machine, name: &str, input: Value) -> (String, Value) {
    let answer = machine.call(name, input).await;
    let job = answer.headers["x-job-id"].to_str().expect("text").to_owned();
    (job, answer.ok()["output"].clone())
}

async fn job(machine: &Machine, job: &str) -> Value {
    machine.get(&format!("/jobs/{job}")).await.ok()
}

/// Once its first reference job is behind it: then its standing changes by what the test does.
async fn after_the_reference(machine: &Machine, name: &str) -> Value {
    until("the reference job is over", async || {
        let standing = provider(machine, name).await["standing"].clone();
        let checked = standing["right"].as_u64()? + standing["wrong"].as_u64()?;
        (checked > 0).then_some(standing)
    })
    .await
}

async fn standing(machine: &Machine, name: &str) -> Value {
    provider(machine, name).await["standing"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_provider_earns_its_first_credits_without_any_developers_job() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = Machine::start_with(home.path(), &["--no-provider"]);
    let code = invite(&machine).await;
    let _laptop = Computer::start(away.path(), &machine.url, "laptop", &["--invite", &code]);
    let earned = until("it is paid for the reference job", async || {
        let seen = provider(&machine, "laptop").await;
        seen["earned_ucr"].as_i64().filter(|earned| *earned > 0)
    })
    .await;
    let standing = standing(&machine, "laptop").await;
    assert_eq!(
        (&standing["right"], &standing["wrong"]),
        (&json!(1), &json!(0)),
        "{standing}"
    );
    assert!(standing["cpu_us_per_unit"].as_u64() > Some(0), "measured: {standing}");
    let jobs = machine.get("/jobs").await.ok();
    let paid: i64 = jobs["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|job| {
            assert_eq!(job["function"], "piecework-reference");
            job["price_ucr"].as_i64().expect("a price")
        })
        .sum();
    assert!(paid >= earned, "{paid} covers {earned} and the commission");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_found_by_a_second_run_unpaid_and_on_the_ledger() {
    let home = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(home.path());
    let rogue = Rogue::join(&machine, "rogue").await;
    after_the_reference(&machine, "rogue").await;
    let mut settings = cheapest();
    settings["rerun_percent"] = json!(100);
    machine.deploy_with("echo", "javascript", ECHO, settings).await.ok();
    let (id, _) = call(&machine, "echo", json!("right")).await;
    machine.paid(&id).await;
    until("the same result twice is known to be right", async || {
        (standing(&machine, "rogue").await["right"] == 2).then_some(())
    })
    .await;
    rogue.lies(Lie::Garbage);
    let (id, output) = call(&machine, "echo", json!("wrong")).await;
    assert_eq!(output, json!("garbage"), "the first caller cannot know");
    let found = until("the contradiction is found", async || {
        let found = standing(&machine, "rogue").await;
        (found["wrong"] == 1).then_some(found)
    })
    .await;
    assert_eq!(found["trust"], "suspended");
    until("it is on the ledger", async || {
        let account = machine.get("/ledger/accounts/rogue").await.ok();
        (account["mismatches"] == 1).then_some(())
    })
    .await;
    let view = job(&machine, &id).await;
    assert_eq!(
        (&view["paid"], &view["held"]["state"]),
        (&json!(false), &json!("refused")),
        "{view}"
    );
    let jobs = machine.get("/jobs?function=echo").await.ok();
    let items = jobs["items"].as_array().expect("a list");
    let rerun = items
        .iter()
        .find(|job| job["rerun_of"] == id.as_str())
        .expect("the second run");
    assert_eq!(rerun["provider"], "provider");
    machine.paid(rerun["id"].as_str().expect("an id")).await;
    let (_, output) = call(&machine, "echo", json!("again")).await;
    assert_eq!((output, rogue.jobs()), (json!("again"), 2), "it gets no more jobs");
    assert_eq!(payments_for(&machine, &id).await, Vec::<Value>::new());
}
