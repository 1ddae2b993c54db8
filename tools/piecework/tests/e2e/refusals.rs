//! Each refusal that no other test meets: its code, its status, a sentence.

use std::time::{Duration, Instant};

use crate::machine::{Machine, SETTLED_WITHIN};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use piecework_ledger::Key;
use piecework_model::{Code, LeaseId};
use reqwest::Method;
use serde_json::{Value, json};

const JAVASCRIPT: &str = "export default () => 1;\n";
const SLEEPER: &str = "import time\ndef handler(event, context):\n    time.sleep(60)\n";

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
async fn accounts_and_tokens_that_nobody_can_have() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let invite = machine.ask(Method::POST, "/invites", Some(json!({}))).await.ok();
    let code = invite["code"].as_str().expect("a code");
    let key = "00".repeat(32);
    for (body, status, refused) in [
        (
            json!({"name": "ada", "password": "correct horse"}),
            403,
            Code::InviteRequired,
        ),
        (
            json!({"name": "ada", "password": "correct horse", "invite": "inv_x"}),
            422,
            Code::InviteBad,
        ),
        (
            json!({"name": "ada", "password": "correct horse", "invite": code, "roles": ["controller"]}),
            422,
            Code::InviteBad,
        ),
        (
            json!({"name": "ada", "password": "short", "invite": code}),
            422,
            Code::AccountBadPassword,
        ),
        (
            json!({"name": "ada", "public_key": key, "registration": "00", "invite": code}),
            422,
            Code::AccountBadRegistration,
        ),
        (
            json!({"name": "operator", "password": "correct horse", "invite": code}),
            409,
            Code::AccountExists,
        ),
    ] {
        machine
            .ask_as(None, Method::POST, "/accounts", Some(body))
            .await
            .refused(status, refused);
    }
    let last = json!({"name": "ada", "password": "correct horse", "invite": code});
    machine
        .ask_as(None, Method::POST, "/accounts", Some(last.clone()))
        .await
        .ok();
    machine
        .ask_as(None, Method::POST, "/accounts", Some(last))
        .await
        .refused(422, Code::InviteBad);

    let token = async |body: Value| machine.ask(Method::POST, "/tokens", Some(body)).await;
    token(json!({"scopes": ["fly"]}))
        .await
        .refused(422, Code::BodyMalformed);
    token(json!({"scopes": []})).await.refused(422, Code::TokenBadScope);
    token(json!({"scopes": ["view"], "expires_in_s": 1}))
        .await
        .refused(422, Code::TokenBadExpiry);
    machine
        .ask(Method::DELETE, "/tokens/tok_nothing", None)
        .await
        .refused(404, Code::TokenNotFound);
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

/// The jobs of a function in a state, once there are `count`.
async fn jobs_in(machine: &Machine, function: &str, state: &str, count: usize) -> Vec<String> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let list = machine
            .get(&format!("/jobs?function={function}&state={state}"))
            .await
            .ok();
        let items = list["items"].as_array().expect("a list");
        if items.len() == count {
            let id = |item: &Value| item["id"].as_str().expect("an id").to_owned();
            return items.iter().map(id).collect();
        }
        assert!(Instant::now() < deadline, "{count} {state}: {list}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_waits_is_let_go_at_the_deadline_or_when_cancelled() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let more = json!({"timeout_ms": 60_000, "concurrency": 1});
    machine.deploy_with("slow", "python", SLEEPER, more).await.ok();
    let accept = async || {
        let request = machine
            .request(Method::POST, "/execute/slow")
            .header("prefer", "respond-async")
            .json(&json!({}));
        let accepted = machine.send(request).await.ok();
        accepted["job_id"].as_str().expect("an id").to_owned()
    };
    let first = accept().await;
    jobs_in(&machine, "slow", "running", 1).await;
    let hurried = machine
        .request(Method::POST, "/execute/slow")
        .header("x-deadline-ms", "200")
        .json(&json!({}));
    machine.send(hurried).await.refused(504, Code::JobExpired);

    let second = accept().await;
    let cancel = async |job: &str| machine.ask(Method::DELETE, &format!("/jobs/{job}"), None).await;
    assert_eq!(cancel(&second).await.status.as_u16(), 204, "while the first still runs");
    let view = machine.get(&format!("/jobs/{second}")).await.ok();
    assert_eq!((&view["state"], &view["price_ucr"]), (&json!("cancelled"), &json!(0)));
    assert_eq!(
        machine.get(&format!("/jobs/{first}")).await.ok()["state"],
        "running",
        "nobody else's run is touched"
    );

    cancel(&first).await;
    machine.paid(&first).await;
    let cancelling = async {
        let running = jobs_in(&machine, "slow", "running", 1).await;
        cancel(&running[0]).await
    };
    let (called, cancelled) = tokio::join!(machine.call("slow", Value::Null), cancelling);
    assert_eq!(cancelled.status.as_u16(), 204);
    called.refused(502, Code::JobCancelled);
}

#[tokio::test]
async fn pages_of_jobs_of_a_state_are_no_longer_than_asked_and_miss_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let code = "export default (event) => { if (event % 3 === 0) throw new Error('no'); return event; };\n";
    machine.deploy("f", "javascript", code).await;
    for number in 0..12 {
        machine.call("f", json!(number)).await;
    }
    for (state, count) in [("failed", 4), ("succeeded", 8)] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = machine.get(&format!("/jobs?state={state}&limit=3{cursor}")).await.ok();
            let items = page["items"].as_array().expect("a list");
            assert!(items.len() <= 3, "{page}");
            seen.extend(items.iter().map(|item| item["id"].to_string()));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let once: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), once.len()), (count, count), "{state}: {seen:?}");
    }
}
