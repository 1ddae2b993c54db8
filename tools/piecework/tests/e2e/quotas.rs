//! What one account may keep: refused by name, dropped oldest first, and gone from the disk when nothing refers to it.

use std::path::Path;

use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{machine::Machine, providers::until};

const ECHO: &str = "export default (event) => event;\n";

/// Code that nobody else has, of so many KiB that do not compress.
fn code(kib: usize) -> String {
    let noise: Vec<u8> = (0..kib << 10).map(|_| rand::random::<u8>()).collect();
    format!("// {}\n{ECHO}", hex::encode(noise))
}

/// Bytes of all bundles on the server's disk.
fn bundles(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bundles(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

async fn limit(machine: &Machine, limits: Value) {
    machine
        .ask(Method::PUT, "/accounts/ada/limits", Some(limits))
        .await
        .ok();
}

async fn used(machine: &Machine, kind: &str) -> u64 {
    let usage = machine.get("/accounts/ada/usage").await.ok();
    let mut items = usage["items"].as_array().expect("a list").iter();
    let item = items.find(|item| item["kind"] == kind);
    item.expect("each kind")["used"].as_u64().expect("a number")
}

struct Ada<'a> {
    machine: &'a Machine,
    token: String,
}

impl Ada<'_> {
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> crate::machine::Answer {
        self.machine.ask_as(Some(&self.token), method, path, body).await
    }

    async fn deploy(&self, name: &str, code: &str) -> crate::machine::Answer {
        let body = json!({"name": name, "language": "javascript", "code": code});
        self.ask(Method::POST, "/functions", Some(body)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_and_bundles_have_an_end_and_what_is_deleted_leaves_the_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut machine = Machine::start(directory.path());
    let token = machine.person("ada", 1_000_000).await;
    limit(&machine, json!({"functions": 2, "versions": 3, "bundles_mb": 1})).await;
    let blobs = directory.path().join("blobs");
    let ada = Ada {
        machine: &machine,
        token: token.clone(),
    };
    ada.deploy("one", &code(150)).await.ok();
    ada.deploy("two", &code(150)).await.ok();
    ada.deploy("three", ECHO).await.refused(403, Code::QuotaFunctions);
    let large = json!({"code": code(900)});
    let refused = ada.ask(Method::PUT, "/functions/one", Some(large)).await;
    refused.refused(403, Code::QuotaBundles);
    assert!(
        refused.body["error"]["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("--for-good")),
        "{}",
        refused.body
    );
    ada.ask(Method::PUT, "/functions/one", Some(json!({"timeout_ms": 900})))
        .await
        .ok();
    let more = json!({"timeout_ms": 901});
    ada.ask(Method::PUT, "/functions/one", Some(more))
        .await
        .refused(403, Code::QuotaVersions);
    until("what was refused is gone", async || {
        (bundles(&blobs) < 500 << 10).then_some(())
    })
    .await;
    assert!(used(&machine, "bundles").await > 250 << 10);
    ada.ask(Method::DELETE, "/functions/one", None).await.ok();
    ada.deploy("three", ECHO).await.refused(403, Code::QuotaFunctions);
    machine = machine.kill_and_restart();
    let ada = Ada {
        machine: &machine,
        token,
    };
    assert_eq!(
        (used(&machine, "functions").await, used(&machine, "versions").await),
        (2, 3),
        "exact after a crash"
    );
    ada.ask(Method::DELETE, "/functions/one?for_good=true", None).await.ok();
    assert_eq!(
        (used(&machine, "functions").await, used(&machine, "versions").await),
        (1, 1)
    );
    until("its bundle is gone", async || {
        (bundles(&blobs) < 250 << 10).then_some(())
    })
    .await;
    ada.deploy("three", ECHO).await.ok();
    assert_eq!(
        ada.ask(Method::POST, "/execute/two", Some(json!({"input": 7})))
            .await
            .ok()["output"],
        7
    );
    let other = machine.person("eve", 1_000).await;
    let spied = machine
        .ask_as(Some(&other), Method::GET, "/accounts/ada/usage", None)
        .await;
    spied.refused(403, Code::AuthOperator);
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_beyond_their_quota_are_refused_and_outputs_are_dropped_oldest_first() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let token = machine.person("ada", 1_000_000).await;
    let ada = Ada {
        machine: &machine,
        token: token.clone(),
    };
    ada.deploy("echo", ECHO).await.ok();
    ada.deploy(
        "slow",
        "export default () => new Promise((done) => setTimeout(done, 4000));\n",
    )
    .await
    .ok();
    limit(&machine, json!({"outputs_mb": 1, "inputs_mb": 1})).await;
    let text = "x".repeat(400 << 10);
    let mut jobs = Vec::new();
    for _ in 0..4 {
        let request = machine
            .request_as(&token, Method::POST, "/execute/echo")
            .header("idempotency-key", format!("{}", jobs.len()));
        let answer = machine.send(request.json(&json!({"input": text}))).await.ok();
        assert_eq!(
            answer["output"].as_str().map(str::len),
            Some(text.len()),
            "answered whole"
        );
        jobs.push(answer["job_id"].as_str().expect("an id").to_owned());
    }
    let dropped = until("the oldest goes", async || {
        let view = ada.ask(Method::GET, &format!("/jobs/{}", jobs[0]), None).await.ok();
        (view["result"]["state"] == "dropped" && view["output"].is_null()).then_some(view)
    })
    .await;
    assert_eq!(dropped["state"], "succeeded");
    ada.ask(Method::GET, &format!("/jobs/{}/result", jobs[0]), None)
        .await
        .refused(404, Code::ResultNotKept);
    let newest = ada.ask(Method::GET, &format!("/jobs/{}", jobs[3]), None).await.ok();
    assert_eq!(newest["output"].as_str().map(str::len), Some(text.len()));
    assert!(used(&machine, "outputs").await <= 1 << 20);
    let order = || {
        let request = machine
            .request_as(&token, Method::POST, "/execute/slow")
            .header("prefer", "respond-async");
        request.json(&json!({"input": text}))
    };
    machine.send(order()).await.ok();
    machine.send(order()).await.ok();
    let refused = machine.send(order()).await;
    refused.refused(429, Code::QuotaInputs);
    assert!(refused.headers.contains_key("retry-after"));
    until("there is room again", async || {
        machine.send(order()).await.status.is_success().then_some(())
    })
    .await;
}
