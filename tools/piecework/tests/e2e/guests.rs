//! What strangers' code may take of a machine as a whole.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::Command,
    time::{Duration, Instant},
};

use piecework_model::Code;
use serde_json::json;

use crate::{
    computer::{Computer, invite, provider},
    machine::Machine,
    providers::until,
};

const SLEEPY: &str = "export default (ms) => new Promise((done) => setTimeout(done, ms, ms));\n";

/// A computer that gives 320 MiB, and functions that need 144 MiB each: two at once, the others wait as for a slot.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_for_memory_as_for_a_slot() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = Machine::start_with(home.path(), &["--no-provider"]);
    let code = invite(&machine).await;
    let more = ["--invite", &code, "--memory", "320MiB"];
    let small = Computer::start(away.path(), &machine.url, "small", &more);
    until("it is there", async || {
        (provider(&machine, &small.name).await["state"] == "ready").then_some(())
    })
    .await;
    let settings = json!({"sandbox": "wasm", "concurrency": 10});
    machine.deploy_with("sleepy", "javascript", SLEEPY, settings).await.ok();
    machine.call("sleepy", json!(0)).await.ok();
    let began = Instant::now();
    let calls = (0..6).map(|_| machine.call("sleepy", json!(500)));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.ok()["output"], 500);
    }
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(1_400),
        "more than two ran at once: {took:?}"
    );
    let large = machine
        .deploy_with(
            "large",
            "javascript",
            SLEEPY,
            json!({"memory_limit_mb": 320, "sandbox": "wasm"}),
        )
        .await;
    large.refused(503, Code::ProviderNone);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_goes_last_where_memory_runs_out_and_code_stays_private() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let mode = |name: &str| fs::metadata(directory.path().join(name)).map(|found| found.permissions().mode() & 0o777);
    assert_eq!(mode("unpacked").expect("it is there"), 0o700);
    // Root may usually lower its score; a machine that lets nobody do so leaves it as it was.
    let lowered = Command::new("sh")
        .args(["-c", "echo -500 2>/dev/null >/proc/self/oom_score_adj"])
        .status();
    let due = match lowered.is_ok_and(|status| status.success()) {
        true => "-500".to_owned(),
        false => fs::read_to_string("/proc/self/oom_score_adj").expect("it runs"),
    };
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", machine.pid())).expect("it runs");
    assert_eq!(score.trim(), due.trim());
}
