//! Under `auto`, a version that computes goes where that costs less.

use serde_json::{Value, json};

use crate::machine::{Machine, has, skipped};

const FIB: &str = "const fib = (n) => (n < 2 ? n : fib(n - 1) + fib(n - 2));\nexport default (n) => fib(n);\n";
/// Some 70 ms in QuickJS, and 5 in Node.
const N: u32 = 27;
/// Far more than a trial takes, however its draws fall.
const CALLS_MAX: usize = 300;

async fn called(machine: &Machine) -> Value {
    let called = machine.call("fib", json!(N)).await.ok();
    assert_eq!(called["output"], 196_418, "the same in each sandbox");
    let job = called["job_id"].as_str().expect("an id");
    machine.get(&format!("/jobs/{job}")).await.ok()
}

/// The middle of what they cost.
fn price(jobs: &[Value]) -> u64 {
    let price = |job: &Value| job["price_ucr"].as_u64().expect("a price");
    let mut prices: Vec<u64> = jobs.iter().map(price).collect();
    prices.sort_unstable();
    prices[prices.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_computes_moves_to_the_jail_by_itself_and_its_bill_falls() {
    if !has("node") {
        return skipped("no node");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    assert_eq!(machine.deploy("fib", "javascript", FIB).await["sandbox"], "wasm");
    let mut before = Vec::new();
    for _ in 0..8 {
        before.push(called(&machine).await);
    }
    assert!(
        before.iter().all(|job| job["sandbox"] == "wasm"),
        "nothing is known yet"
    );
    let mut calls = 0;
    let shown = loop {
        called(&machine).await;
        let shown = machine.get("/functions/fib").await.ok();
        if shown["sandbox"] == "jail" {
            break shown;
        }
        calls += 1;
        assert!(calls < CALLS_MAX, "it stays: {shown}");
    };
    let reason = shown["sandbox_reason"].as_str().expect("text");
    assert!(reason.starts_with("its calls cost less there: "), "{reason}");
    let mut after = Vec::new();
    while after.len() < 9 {
        let job = called(&machine).await;
        if job["sandbox"] == "jail" {
            after.push(job);
        }
    }
    let (before, after) = (price(&before), price(&after));
    assert!(2 * after < before, "{after} ucr for a call, and {before} before");
}
