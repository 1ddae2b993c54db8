//! A queue that nobody can jam: what waits for one provider, or for none, holds up nobody else.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    machine::Machine,
    providers::{ECHO, accepted, until},
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
