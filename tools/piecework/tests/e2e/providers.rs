//! Computers that join from elsewhere, earn, vanish and come back.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    computer::{Cable, Computer, invite, provide, provider, says},
    machine::Machine,
};

/// Longer than anything here takes on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

pub const ECHO: &str = "export default (event) => event;\n";
/// Busy for as many milliseconds as it is told.
pub const BUSY: &str =
    "export default (ms) => { const end = Date.now() + ms; while (Date.now() < end); return ms; };\n";

pub fn alone(directory: &Path) -> Machine {
    Machine::start_with(directory, &["--no-provider"])
}

pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The job accepted; its id.
pub async fn accepted(machine: &Machine, name: &str, input: Value) -> String {
    let request = machine
        .request(Method::POST, &format!("/execute/{name}"))
        .header("prefer", "respond-async")
        .json(&json!({"input": input}));
    machine.send(request).await.ok()["job_id"]
        .as_str()
        .expect("an id")
        .to_owned()
}

pub async fn running_on(machine: &Machine, job: &str) -> String {
    until("the job runs", async || {
        let view = machine.get(&format!("/jobs/{job}")).await.ok();
        let runs = view["state"] == "running";
        runs.then(|| view["provider"].as_str().map(str::to_owned)).flatten()
    })
    .await
}

/// How often the ledger's blocks pay for a job, and how much.
pub async fn payments_for(machine: &Machine, job: &str) -> Vec<Value> {
    let head = machine.get("/ledger/status").await.ok()["height"]
        .as_u64()
        .expect("a height");
    let mut found = Vec::new();
    for height in 1..=head {
        let block = machine.get(&format!("/ledger/blocks/{height}")).await.ok();
        let items = block["items"].as_array().cloned().unwrap_or_default();
        for item in items
            .iter()
            .filter(|item| item["kind"] == "settle" && item["rejection"].is_null())
        {
            let jobs = item["body"]["settle"]["jobs"].as_array().cloned().unwrap_or_default();
            found.extend(jobs.into_iter().filter(|paid| paid["job"] == job));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_computer_joins_with_an_invite_runs_jobs_and_is_paid_for_them() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    machine
        .deploy_with("early", "javascript", ECHO, json!({}))
        .await
        .refused(503, Code::ProviderNone);
    let code = invite(&machine).await;
    let laptop = Computer::start(
        away.path(),
        &machine.url,
        "laptop",
        &["--invite", &code, "--region", "shelf"],
    );
    assert_eq!(laptop.name, "laptop");
    machine.deploy("echo", "javascript", ECHO).await;
    let answer = machine.call("echo", json!({"from": "afar"})).await;
    let body = answer.ok();
    assert_eq!(body["output"], json!({"from": "afar"}));
    let job = body["job_id"].as_str().expect("an id");
    let before = machine.posted("laptop").await;
    let view = machine.paid(job).await;
    assert_eq!(view["provider"], "laptop");
    let price = view["price_ucr"].as_i64().expect("a price");
    assert!(price > 0, "{view}");
    let earned = provider(&machine, "laptop").await["earned_ucr"]
        .as_i64()
        .expect("a sum");
    assert!(earned > 0 && before > 0, "{earned}");
    let seen = provider(&machine, "laptop").await;
    assert_eq!(
        (&seen["state"], &seen["region"]),
        (&json!("ready"), &json!("shelf")),
        "{seen}"
    );
    assert!(laptop.stop(), "it drains and ends cleanly");
    until("the controller sees that it left", async || {
        (provider(&machine, "laptop").await["state"] == "gone").then_some(())
    })
    .await;
    // The key, the name and the offer are kept: no invite the second time.
    let again = Computer::start(away.path(), &machine.url, "laptop", &[]);
    machine.call("echo", json!(2)).await.ok();
    drop(again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_9_a_killed_providers_job_is_answered_by_another_and_charged_once() {
    let home = tempfile::tempdir().expect("a directory");
    let (one, two) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let codes = [invite(&machine).await, invite(&machine).await];
    let mut computers = [
        Computer::start(one.path(), &machine.url, "one", &["--invite", &codes[0]]),
        Computer::start(two.path(), &machine.url, "two", &["--invite", &codes[1]]),
    ];
    machine.deploy("busy", "javascript", BUSY).await;
    let job = accepted(&machine, "busy", json!(1_500)).await;
    let first = running_on(&machine, &job).await;
    let names = ["one", "two"];
    let victim = names.iter().position(|name| *name == first).expect("one of both");
    computers[victim].kill();
    let view = machine.paid(&job).await;
    assert_eq!(view["state"], "succeeded", "{view}");
    assert_eq!(view["provider"], names[1 - victim], "the other one ran it");
    let paid = payments_for(&machine, &job).await;
    assert_eq!(paid.len(), 1, "{paid:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_whose_provider_is_killed_with_no_other_to_take_the_job_is_told_so() {
    let home = tempfile::tempdir().expect("a directory");
    let (one, two) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let codes = [invite(&machine).await, invite(&machine).await];
    let mut only = Computer::start(one.path(), &machine.url, "only", &["--invite", &codes[0]]);
    let more = json!({"timeout_ms": 600_000});
    machine.deploy_with("busy", "javascript", BUSY, more).await.ok();
    let killed = async {
        until("the job runs", async || {
            let running = machine.get("/jobs?state=running").await.ok();
            (running["items"].as_array().map(Vec::len) == Some(1)).then_some(())
        })
        .await;
        only.kill();
    };
    let (told, ()) = tokio::join!(machine.call("busy", json!(300_000)), killed);
    told.refused(503, Code::ProviderLost);
    let job = told.body["error"]["job_id"].as_str().expect("the job is named");
    assert!(
        told.body["error"]["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("run twice"))
    );
    let _next = Computer::start(two.path(), &machine.url, "next", &["--invite", &codes[1]]);
    let again = machine.call("busy", json!(1)).await.ok();
    machine.paid(again["job_id"].as_str().expect("an id")).await;
    assert_eq!(payments_for(&machine, job).await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_survives_the_controllers_death_and_is_paid_once() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let mut machine = alone(home.path());
    let cable = Cable::to(&machine.url).await;
    let code = invite(&machine).await;
    let _laptop = Computer::start(away.path(), &cable.url(), "laptop", &["--invite", &code]);
    machine.deploy("busy", "javascript", BUSY).await;
    let mut jobs = Vec::new();
    // Queued, running, delivered and unpaid when the controller is killed.
    for (round, pause_ms) in [0, 20, 150, 400, 700].into_iter().enumerate() {
        jobs.push(accepted(&machine, "busy", json!(100 + round)).await);
        jobs.push(accepted(&machine, "busy", json!(300)).await);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        machine = machine.kill_and_restart();
        cable.lead_to(&machine.url);
    }
    for job in &jobs {
        let view = machine.paid(job).await;
        assert_eq!(view["state"], "succeeded", "{view}");
        assert_eq!(payments_for(&machine, job).await.len(), 1, "{job} is paid once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_survives_its_providers_death_in_every_state_and_is_paid_once() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let code = invite(&machine).await;
    let mut laptop = Computer::start(away.path(), &machine.url, "laptop", &["--invite", &code]);
    machine.deploy("busy", "javascript", BUSY).await;
    let mut jobs = Vec::new();
    // Ordered, starting cold, running, delivered and unpaid, paid when the computer is killed; one more comes while it is away.
    for (round, pause_ms) in [0, 20, 150, 400, 700, 1_500].into_iter().enumerate() {
        jobs.push(accepted(&machine, "busy", json!(100 + round)).await);
        jobs.push(accepted(&machine, "busy", json!(300)).await);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        laptop.kill();
        jobs.push(accepted(&machine, "busy", json!(10)).await);
        laptop = Computer::start(away.path(), &machine.url, "laptop", &[]);
    }
    for job in &jobs {
        let view = machine.paid(job).await;
        assert_eq!(view["state"], "succeeded", "{view}");
        assert_eq!(payments_for(&machine, job).await.len(), 1, "{job} is paid once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_cut_of_the_link_is_not_noticed_and_a_long_one_moves_the_job() {
    let home = tempfile::tempdir().expect("a directory");
    let (one, two) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let cable = Cable::to(&machine.url).await;
    let codes = [invite(&machine).await, invite(&machine).await];
    let _one = Computer::start(one.path(), &cable.url(), "one", &["--invite", &codes[0]]);
    machine.deploy("busy", "javascript", BUSY).await;

    let job = accepted(&machine, "busy", json!(2_000)).await;
    running_on(&machine, &job).await;
    cable.cut();
    tokio::time::sleep(Duration::from_secs(1)).await;
    cable.mend();
    let view = machine.paid(&job).await;
    assert_eq!(
        (&view["provider"], &view["state"]),
        (&json!("one"), &json!("succeeded")),
        "{view}"
    );
    assert_eq!(payments_for(&machine, &job).await.len(), 1);

    let job = accepted(&machine, "busy", json!(1_000)).await;
    running_on(&machine, &job).await;
    cable.cut();
    let _two = Computer::start(two.path(), &machine.url, "two", &["--invite", &codes[1]]);
    let view = machine.paid(&job).await;
    assert_eq!(
        (&view["provider"], &view["state"]),
        (&json!("two"), &json!("succeeded")),
        "{view}"
    );
    // The job has ended at the first one as well: what it has to say about it comes too late.
    tokio::time::sleep(long_cut()).await;
    cable.mend();
    until("it is linked again", async || {
        (provider(&machine, "one").await["state"] == "ready").then_some(())
    })
    .await;
    machine.call("busy", json!(1)).await.ok();
    let paid = payments_for(&machine, &job).await;
    assert_eq!(paid.len(), 1, "the late result is stale and unpaid: {paid:?}");
}

/// How long the long cut lasts after the job has moved; `PIECEWORK_CUT_S` makes it longer, say 300.
pub fn long_cut() -> Duration {
    let seconds = std::env::var("PIECEWORK_CUT_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(25))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_altered_on_the_way_end_the_session_and_harm_no_job() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let cable = Cable::to(&machine.url).await;
    let code = invite(&machine).await;
    let _laptop = Computer::start(away.path(), &cable.url(), "laptop", &["--invite", &code]);
    machine.deploy("echo", "javascript", ECHO).await;
    for round in 0..5 {
        cable.flip(1 + round % 2);
        // Where the length of a frame was altered, the link is silent first; the job may then find no provider, or be lost with it.
        let output = until("the call is answered", async || {
            let answer = machine.call("echo", json!({"round": round})).await;
            match answer.code() {
                Some(Code::ProviderNone | Code::ProviderLost) => None,
                Some(_) | None => Some(answer.ok()["output"].clone()),
            }
        })
        .await;
        assert_eq!(output, json!({"round": round}));
        until("it is linked again", async || {
            (provider(&machine, "laptop").await["state"] == "ready").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_10_two_computers_with_one_key_the_second_is_told_so() {
    let (home, away, copy) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let code = invite(&machine).await;
    let laptop = Computer::start(away.path(), &machine.url, "laptop", &["--invite", &code]);
    for file in ["provider.key", "network", "controllers"] {
        std::fs::copy(away.path().join(file), copy.path().join(file)).expect("copies");
    }
    machine.deploy("echo", "javascript", ECHO).await;
    let twin = provide(copy.path(), &machine.url, "laptop", &[]);
    let said = says(twin, "another program with this provider's key is connected").await;
    assert!(
        said.contains(Code::LinkAlreadyConnected.as_str()) && said.contains("an account of its own"),
        "{said}"
    );
    machine.call("echo", json!(1)).await.ok();
    drop(laptop);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_computer_whose_clock_is_ten_minutes_wrong_works_by_the_controllers() {
    if !crate::machine::has("faketime") {
        return crate::machine::skipped("faketime is not installed");
    }
    // Its wrapper forks, and would outlive the computer: only the library is taken.
    let said = std::process::Command::new("faketime")
        .args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"])
        .output()
        .expect("faketime starts");
    let wrong_clock = String::from_utf8(said.stdout).expect("a path").trim().to_owned();
    let home = tempfile::tempdir().expect("a directory");
    let machine = alone(home.path());
    for (name, shift) in [("late", "-10m"), ("early", "+10m")] {
        let away = tempfile::tempdir().expect("a directory");
        let code = invite(&machine).await;
        let mut command = provide(away.path(), &machine.url, name, &["--invite", &code]);
        command.envs([
            ("LD_PRELOAD", wrong_clock.as_str()),
            ("FAKETIME", shift),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ]);
        let computer = Computer::ready(command);
        machine.deploy(name, "javascript", ECHO).await;
        let answer = machine.call(name, json!(name)).await;
        let body = answer.ok();
        assert_eq!(body["output"], json!(name));
        machine.paid(body["job_id"].as_str().expect("an id")).await;
        drop(computer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_of_a_new_provider_are_explained() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let run = |controller: &str, more: &[&str]| {
        let output = provide(away.path(), controller, "laptop", more)
            .output()
            .expect("it runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = run("http://127.0.0.1:1", &[]);
    assert!(said.contains("is the address right"), "{said}");
    let said = run(&machine.url, &[]);
    assert!(said.contains("invite"), "{said}");
    let said = run(&machine.url, &["--invite", "inv_unknown"]);
    assert!(said.contains("unknown, used or expired"), "{said}");
    let other = tempfile::tempdir().expect("a directory");
    let elsewhere = alone(other.path());
    let code = invite(&elsewhere).await;
    let said = run(&elsewhere.url, &["--invite", &code]);
    assert!(said.contains("belongs to another network"), "{said}");
}
