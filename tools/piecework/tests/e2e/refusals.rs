//! Each refusal that no other test meets: its code, its status, a sentence.

use crate::machine::{Machine, SETTLED_WITHIN};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use piecework_ledger::Key;
use piecework_model::{Code, LeaseId};
use reqwest::Method;
use serde_json::{Value, json};

const JAVASCRIPT: &str = "export default () => 1;\n";

#[tokio::test]
async fn settings_that_no_function_can_have() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    for (more, status, code) in [
        (json!({"concurrency": 0}), 422, Code::FunctionBadConcurrency),
        (json!({"concurrency": 1_001}), 422, Code::FunctionBadConcurrency),
        (json!({"handler": "../main.mjs"}), 422, Code::FunctionBadHandler),
        (json!({"handler": "main.mjs:a b"}), 422, Code::FunctionBadHandler),
        (
            json!({"egress": ["example.com:443"], "egress_limit_mb": 0}),
            422,
            Code::EgressBadLimit,
        ),
        (json!({"egress": ["10.0.0.1:80"]}), 422, Code::EgressPrivateAddress),
        (
            json!({"egress": ["example.com:443"], "sandbox": "wasm"}),
            409,
            Code::SandboxUnsupported,
        ),
    ] {
        machine
            .deploy_with("f", "javascript", JAVASCRIPT, more)
            .await
            .refused(status, code);
    }
    let lacks = json!({"name": "f", "language": "python", "bundle": bundle("other.py", "x = 1\n")});
    machine
        .ask(Method::POST, "/functions", Some(lacks))
        .await
        .refused(422, Code::BundleNoEntry);
    let none = machine.get("/functions").await.ok();
    assert_eq!(none["items"], json!([]), "nothing of them is left");
}

/// A tar archive of one file, in base64.
fn bundle(path: &str, text: &str) -> String {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive
        .append_data(&mut header, path, text.as_bytes())
        .expect("appended");
    STANDARD.encode(archive.into_inner().expect("whole"))
}

#[tokio::test]
async fn a_provider_that_lets_nobody_out_takes_no_such_function() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start_with(directory.path(), &["--no-egress"]);
    let more = json!({"egress": ["example.com:443"]});
    machine
        .deploy_with("f", "javascript", JAVASCRIPT, more)
        .await
        .refused(409, Code::EgressUnavailable);
    machine.deploy("f", "javascript", JAVASCRIPT).await;
}

#[tokio::test]
async fn questions_that_have_no_answer() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    machine.deploy("f", "javascript", JAVASCRIPT).await;
    let nowhere = format!("/ledger/transactions/{}", "00".repeat(32));
    let nobodys = format!("/ledger/leases/{}", LeaseId([7; 20]));
    let params = hex::encode(borsh::to_vec(&Key::Params).expect("bytes"));
    let later = format!("/ledger/raw/values/{params}?at_least=99999999");
    for (path, status, code) in [
        ("/jobs?state=asleep", 422, Code::JobBadState),
        ("/ledger/blocks/first", 422, Code::BlockBadHeight),
        ("/ledger/blocks/99999999", 404, Code::BlockNotFound),
        (&*nowhere, 404, Code::TransactionNotFound),
        (&*nobodys, 404, Code::LeaseNotFound),
        (&*later, 503, Code::LedgerBehind),
        ("/ledger/raw/values/zz", 422, Code::ValueBadKey),
        ("/metrics/functions/f?step=week", 422, Code::MetricsBadStep),
        (
            "/metrics/system?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
            422,
            Code::MetricsBadRange,
        ),
        (
            "/metrics/system?from=2020-01-01T00:00:00Z&to=2026-01-01T00:00:00Z&step=minute",
            422,
            Code::MetricsBadRange,
        ),
    ] {
        machine.get(path).await.refused(status, code);
    }
    let keyed = machine
        .request(Method::POST, "/execute/f")
        .header("idempotency-key", "two words")
        .json(&json!({}));
    machine.send(keyed).await.refused(422, Code::IdempotencyBadKey);
    for memo in ["x".repeat(101), "\u{1b}[2J".to_owned()] {
        let body = json!({"to": "provider", "amount_ucr": 1, "memo": memo});
        machine
            .ask(Method::POST, "/transfers", Some(body))
            .await
            .refused(422, Code::TransferBadMemo);
    }
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let address = machine.url.strip_prefix("http://").expect("a URL");
    let mut connection = tokio::net::TcpStream::connect(address).await.expect("connected");
    let begun = "POST /ledger/transactions HTTP/1.1\r\nhost: here\r\ncontent-length: 100\r\n\r\n{";
    connection.write_all(begun.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    let whole = async {
        while !answer.contains(Code::BodyTooSlow.as_str()) {
            let mut bytes = [0; 4_096];
            let read = connection.read(&mut bytes).await.expect("an answer");
            assert!(read > 0, "cut without a word: {answer}");
            answer.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    };
    tokio::time::timeout(SETTLED_WITHIN, whole).await.expect("given up");
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn an_output_that_is_no_json_is_the_functions_failure_and_is_billed() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    for sandbox in ["wasm", "jail"] {
        let code = "def handler(event, context):\n    return {1, 2}\n";
        machine
            .deploy_with(sandbox, "python", code, json!({"sandbox": sandbox}))
            .await
            .ok();
        let answer = machine.call(sandbox, Value::Null).await;
        answer.refused(502, Code::FunctionOutputInvalid);
        let job = machine
            .paid(answer.body["error"]["job_id"].as_str().expect("an id"))
            .await;
        assert_eq!(job["state"], "failed", "{job}");
    }
}
