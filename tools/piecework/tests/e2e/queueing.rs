//! A queue that nobody can jam: what waits for one provider, or for none, holds up nobody else.

use std::time::{Duration, Instant};

use piecework_model::Code;
use serde_json::{Value, json};

use crate::{
    computer::{Computer, invite, provider},
    machine::Machine,
    providers::{ECHO, accepted, alone, until},
};

/// Waits for as many milliseconds as it is told.
const SLEEPY: &str = "export default (ms) => new Promise((done) => setTimeout(done, ms, ms));\n";
/// Six times the slots of one provider of a devnet.
const JAM: usize = 384;
/// What a call beside the jam may take in a test on a busy machine; alone it takes milliseconds.
const BESIDE_MAX: Duration = Duration::from_secs(2);

async fn gauge(machine: &Machine, name: &str) -> u64 {
    let answer = machine.get("/metrics").await;
    let text = answer.body.as_str().expect("text");
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("piecework_{name} ")));
    let value = line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jam_at_one_provider_holds_up_no_call_that_can_run_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let network = Machine::devnet(folder.path(), 1, 3);
    let pinned =
        json!({"sandbox": "wasm", "memory_limit_mb": 32, "concurrency": 1_000, "placement": {"pin": ["provider-1"]}});
    network.deploy_with("pinned", "javascript", SLEEPY, pinned).await.ok();
    network
        .deploy_with("free", "javascript", ECHO, json!({"sandbox": "wasm"}))
        .await
        .ok();
    network.call("free", json!(0)).await.ok();
    let jam: Vec<_> = (0..JAM).map(|_| accepted(&network, "pinned", json!(3_000))).collect();
    let jobs = futures::future::join_all(jam).await;
    until("the pinned provider is full", async || {
        (gauge(&network, "jobs_in_line").await >= (JAM as u64) / 2).then_some(())
    })
    .await;
    let mut times = Vec::new();
    for n in 0..40 {
        let began = Instant::now();
        let output = network.call("free", json!(n)).await.ok()["output"].clone();
        times.push(began.elapsed());
        assert_eq!(output, json!(n));
    }
    let left = gauge(&network, "jobs_in_line").await;
    times.sort();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("beside {left} jobs in line: median {median:?}, slowest {slowest:?}");
    assert!(left > 0, "the jam was over before the calls were");
    assert!(slowest < BESIDE_MAX, "{times:?}");
    let first = network.get(&format!("/jobs/{}", jobs[0])).await.ok();
    assert_eq!(first["provider"], "provider-1", "{first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_provider_callers_are_told_at_once_and_accepted_jobs_wait_for_one() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let code = invite(&machine).await;
    let mut laptop = Computer::start(away.path(), &machine.url, "laptop", &["--invite", &code]);
    machine.deploy("echo", "javascript", ECHO).await;
    laptop.kill();
    until("it is seen to be gone", async || {
        (provider(&machine, "laptop").await["state"] == "gone").then_some(())
    })
    .await;
    let jobs: Vec<_> = (0..200).map(|n| accepted(&machine, "echo", json!(n))).collect();
    let jobs = futures::future::join_all(jobs).await;
    // It might have been about to come back.
    machine.call("echo", json!(1)).await.refused(503, Code::ProviderNone);
    let began = Instant::now();
    let told = machine.call("echo", json!(2)).await;
    let took = began.elapsed();
    told.refused(503, Code::ProviderNone);
    println!("told after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(
        told.body["error"]["details"].to_string().contains("silent"),
        "{}",
        told.body
    );
    let waits = machine.get(&format!("/jobs/{}", jobs[0])).await.ok();
    assert_eq!(waits["state"], "queued", "{waits}");
    let _again = Computer::start(away.path(), &machine.url, "laptop", &[]);
    for job in &jobs {
        let view: Value = until("the job runs", async || {
            let view = machine.get(&format!("/jobs/{job}")).await.ok();
            (view["state"] == "succeeded").then_some(view)
        })
        .await;
        assert_eq!(view["provider"], "laptop");
    }
    assert_eq!(gauge(&machine, "jobs_in_line").await, 0);
}
