//! Logs with levels and times, what they never show, and what a cancelled run leaves behind.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::machine::{Machine, SETTLED_WITHIN};
use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};

const PYTHON: &str = "import logging, sys
def handler(event, context):
    print('plain')
    print('wrong', file=sys.stderr)
    logging.warning('careful')
    logging.getLogger('mine').error('broken')
    return 1
";
const JAVASCRIPT: &str = "export default () => {
  console.log('plain');
  console.error('wrong');
  console.warn('careful');
  console.debug('detail');
  console.error('broken');
  return 1;
};
";

fn lines(logs: &Value) -> Vec<(String, String)> {
    let items = logs["lines"].as_array().expect("lines");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    items
        .iter()
        .map(|line| (text(&line["level"]), text(&line["text"])))
        .collect()
}

#[tokio::test]
async fn lines_have_levels_in_both_languages_and_sandboxes() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    for (language, code) in [("python", PYTHON), ("javascript", JAVASCRIPT)] {
        for sandbox in ["wasm", "jail"] {
            let name = format!("{language}-{sandbox}");
            machine
                .deploy_with(&name, language, code, json!({"sandbox": sandbox}))
                .await
                .ok();
            let call = machine.call(&name, Value::Null).await.ok();
            let job = call["job_id"].as_str().expect("an id");
            let logs = machine.get(&format!("/jobs/{job}/logs")).await.ok();
            let found = lines(&logs);
            for (level, part) in [
                ("info", "plain"),
                ("error", "wrong"),
                ("warn", "careful"),
                ("error", "broken"),
            ] {
                assert!(
                    found.iter().any(|(found, text)| found == level && text.contains(part)),
                    "{name}: {part} as {level} in {logs}"
                );
            }
            assert!(
                logs["text"]
                    .as_str()
                    .is_some_and(|text| text.starts_with("plain\nwrong\n")),
                "{logs}"
            );
            let some = machine.get(&format!("/jobs/{job}/logs?level=warn")).await.ok();
            assert!(
                lines(&some)
                    .iter()
                    .all(|(level, _)| level == "warn" || level == "error"),
                "{some}"
            );
            assert_eq!(lines(&some).len(), 3, "{some}");
            let of_function = machine.get(&format!("/functions/{name}/logs?level=error")).await.ok();
            assert_eq!(of_function["items"][0]["job_id"], call["job_id"]);
            assert_eq!(lines(&of_function["items"][0]).len(), 2, "{of_function}");
        }
    }
    machine
        .get("/functions/python-wasm/logs?level=loud")
        .await
        .refused(422, Code::QueryMalformed);
}

#[tokio::test]
async fn secrets_are_in_no_log_and_no_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let code = "import os, sys
def handler(event, context):
    print('key', os.environ['KEY'])
    print(os.environ['PEM'], file=sys.stderr)
    if event == 'flood':
        while True:
            print(os.environ['KEY'] * 1000, end='')
    raise ValueError('no use for ' + os.environ['KEY'])
";
    let secrets = json!({"KEY": "s3cr3t-value-of-some-length", "PEM": "-----BEGIN\nabcdef\n-----END"});
    machine
        .deploy_with("leaky", "python", code, json!({"secrets": secrets, "timeout_ms": 500}))
        .await
        .ok();
    let answer = machine.call("leaky", Value::Null).await;
    answer.refused(502, Code::FunctionRaised);
    let shown = answer.body.to_string();
    assert!(!shown.contains("s3cr3t") && shown.contains("[secret]"), "{shown}");
    let job = answer.body["error"]["job_id"].as_str().expect("an id");
    let record = machine.get(&format!("/jobs/{job}")).await.ok().to_string();
    let logs = machine.get(&format!("/jobs/{job}/logs")).await.ok().to_string();
    for text in [&record, &logs] {
        assert!(!text.contains("s3cr3t") && !text.contains("abcdef"), "{text}");
    }
    assert!(logs.contains("key [secret]"), "{logs}");
    let flood = machine.call("leaky", json!("flood")).await;
    let job = flood.body["error"]["job_id"].as_str().expect("an id");
    let logs = machine.get(&format!("/jobs/{job}/logs")).await.ok();
    assert_eq!(logs["truncated"], true);
    assert!(
        !logs.to_string().contains("s3cr"),
        "not even at the cut: {}",
        &logs.to_string()[..300]
    );
    assert!(machine.stop(), "all is written");
    let holders = files_with(directory.path(), b"s3cr3t-value");
    assert!(holders.is_empty(), "secrets are sealed at rest: {holders:?}");
    assert!(
        !files_with(directory.path(), b"leaky").is_empty(),
        "what is not secret is found"
    );
}

/// Files below the directory that hold these bytes.
fn files_with(directory: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if fs::read(&path).is_ok_and(|text| text.windows(bytes.len()).any(|window| window == bytes)) {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn a_cancelled_run_is_billed_by_its_counters_and_keeps_its_logs() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let code = "import time
def handler(event, context):
    print('begun', flush=True)
    time.sleep(60)
";
    for sandbox in ["wasm", "jail"] {
        let more = json!({"timeout_ms": 60_000, "sandbox": sandbox});
        machine.deploy_with(sandbox, "python", code, more).await.ok();
        let request = machine
            .request(Method::POST, &format!("/execute/{sandbox}"))
            .header("prefer", "respond-async")
            .json(&json!({}));
        let accepted = machine.send(request).await.ok();
        let job = accepted["job_id"].as_str().expect("an id");
        let deadline = Instant::now() + SETTLED_WITHIN;
        while machine.get(&format!("/jobs/{job}")).await.ok()["state"] != "running" {
            assert!(Instant::now() < deadline, "never ran");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(800)).await;
        machine.ask(Method::DELETE, &format!("/jobs/{job}"), None).await;
        let view = machine.paid(job).await;
        assert_eq!(view["state"], "cancelled", "{view}");
        let (ran_ms, cpu_us) = (
            view["duration_ms"].as_f64().expect("a time"),
            view["cpu_us"].as_f64().expect("a time"),
        );
        assert!(ran_ms > 500.0, "{view}");
        assert!(cpu_us < ran_ms * 1_000.0 / 2.0, "it slept nearly all the time: {view}");
        let logs = machine.get(&format!("/jobs/{job}/logs")).await.ok();
        assert_eq!(logs["text"], "begun\n");
    }
}

#[tokio::test]
async fn a_syntax_error_says_its_place_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    for sandbox in ["wasm", "jail"] {
        let code = "def handler(event, context):\n    return (\n";
        let refused = machine
            .deploy_with("f", "python", code, json!({"sandbox": sandbox}))
            .await;
        refused.refused(422, Code::FunctionSyntaxError);
        let message = refused.body["error"]["message"].as_str().expect("a sentence");
        assert_eq!(
            (message.matches("main.py").count(), message.matches("line").count()),
            (1, 1),
            "{message}"
        );
    }
}
