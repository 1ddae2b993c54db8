//! What strangers without a token can do over HTTP: to the machine's connections, to logins, and by the answers of functions.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use piecework_api::accounts::sign_login;
use piecework_model::{Code, NetworkId, SecretKey};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    carried_whole::{connect, raw},
    machine::Machine,
};

const FINE: &str = "export default (event) => event;\n";
/// Fewer than strangers open: a process of a service manager has 1,024 of them, or some thousands.
const DESCRIPTORS: usize = 800;

fn limited(machine: &Machine) {
    let limit = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    let pid = machine.pid().to_string();
    let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(status.expect("prlimit is there").success());
}

fn resident_kib(machine: &Machine) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", machine.pid())).expect("it runs");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("Linux tells");
    line.trim()
        .split(' ')
        .next()
        .and_then(|kib| kib.parse().ok())
        .expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_take_no_descriptor_that_the_machine_needs() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    machine.deploy("f", "javascript", FINE).await;
    machine.call("f", json!(1)).await.ok();
    limited(&machine);
    let before = resident_kib(&machine);
    // This process may have 1,024 itself.
    let silent: Vec<TcpStream> = (0..DESCRIPTORS + 100).map(|_| connect(&machine)).collect();
    let grown = resident_kib(&machine).saturating_sub(before);
    assert!(grown < 10 << 10, "{} silent connections cost {grown} KiB", silent.len());
    // New connections are served, the store and the ledger open what they need, and jobs are paid.
    let called = machine.call("f", json!(2)).await.ok();
    machine.paid(called["job_id"].as_str().expect("an id")).await;
    machine.deploy("g", "javascript", FINE).await;
    machine.call("g", json!(3)).await.ok();
    drop(silent);
    machine.call("f", json!(4)).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_ends_soon_whatever_waits_and_loses_no_job() {
    const SLEEPS: &str = "export default async (event) => {
        if (event < 0) await new Promise((done) => setTimeout(done, 60000));
        return event;
    };\n";
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let settings = json!({"concurrency": 1, "timeout_ms": 120_000});
    machine.deploy_with("s", "javascript", SLEEPS, settings).await.ok();
    let queued = async |event: i64| {
        let request = machine
            .request(Method::POST, "/execute/s")
            .header("prefer", "respond-async");
        let accepted = machine.send(request.json(&json!({"input": event}))).await.ok();
        accepted["job_id"].as_str().expect("an id").to_owned()
    };
    let running = queued(-1).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while machine.get(&format!("/jobs/{running}")).await.ok()["state"] != "running" {
        assert!(Instant::now() < deadline, "it never began");
    }
    let waiting = queued(7).await;
    // A caller who waits, and strangers who say nothing.
    let caller = machine.request(Method::POST, "/execute/s").json(&json!({"input": 8}));
    let caller = tokio::spawn(async move { caller.send().await });
    let _silent: Vec<TcpStream> = (0..50).map(|_| connect(&machine)).collect();
    let pid = machine.pid();
    let began = Instant::now();
    let (clean, took) = tokio::task::spawn_blocking(move || (machine.stop(), began.elapsed()))
        .await
        .expect("no panic");
    assert!(
        clean && took < Duration::from_secs(10),
        "process {pid}: clean {clean}, {took:?}"
    );
    if let Ok(Ok(answer)) = caller.await {
        assert_eq!(answer.status().as_u16(), 503);
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["error"]["code"], Code::ServerStopping.as_str());
    }
    let machine = Machine::start(directory.path());
    // The one that had begun begins again; ended by hand, it lets the next one through.
    machine.ask(Method::DELETE, &format!("/jobs/{running}"), None).await;
    let view = machine.get(&format!("/jobs/{waiting}?wait_ms=60000")).await.ok();
    assert_eq!(
        (&view["state"], &view["output"]),
        (&json!("succeeded"), &json!(7)),
        "{view}"
    );
}

/// Another address of this machine.
async fn from_elsewhere(machine: &Machine, path: &str, body: Value) -> reqwest::Response {
    let client = reqwest::Client::builder()
        .local_address(Some([127, 0, 0, 2].into()))
        .build()
        .expect("a client");
    let request = client.post(format!("{}{path}", machine.url)).json(&body);
    request.send().await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_guesses_of_strangers_lock_a_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let ada = machine.person("ada", 0).await;
    let wrong = json!({"name": "ada", "password": "wrong horse"});
    let guesses = (0..40).map(|_| from_elsewhere(&machine, "/sessions", wrong.clone()));
    let (wrong, slowed): (Vec<_>, Vec<_>) = futures::future::join_all(guesses)
        .await
        .into_iter()
        .partition(|answer| answer.status().as_u16() == 401);
    assert!(
        !wrong.is_empty() && !slowed.is_empty(),
        "{} and {}",
        wrong.len(),
        slowed.len()
    );
    for answer in slowed {
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["retry-after"]),
            (429, &"60".parse().expect("a value"))
        );
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["error"]["code"], Code::AuthRateLimited.as_str());
    }
    let right = json!({"name": "ada", "password": "correct horse"});
    let owner = machine.ask_as(None, Method::POST, "/sessions", Some(right)).await;
    owner.ok();
    let seen = machine
        .ask_as(Some(&ada), Method::GET, "/audit?action=login.failed", None)
        .await
        .ok();
    let failed = seen["items"].as_array().expect("a list");
    assert!((1..=6).contains(&failed.len()), "told, and in few entries: {seen}");
    assert_eq!(failed[0]["owner"], "ada");
}

#[tokio::test(flavor = "multi_thread")]
async fn challenges_that_strangers_ask_for_end_nobodys() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let key = std::fs::read_to_string(directory.path().join("keys/operator.key")).expect("the operator's key");
    let seed = hex::decode(key.trim()).expect("hex").try_into().expect("32 bytes");
    let key = SecretKey::from_seed(seed);
    let challenge = async |name: &str| {
        let body = Some(json!({"name": name}));
        machine.ask_as(None, Method::POST, "/sessions/challenges", body).await
    };
    let given = challenge("operator").await.ok();
    for _ in 0..300 {
        challenge("operator").await.ok();
    }
    challenge(&"N".repeat(4_000)).await.refused(422, Code::AccountBadName);
    challenge(&"N".repeat(100_000)).await.refused(413, Code::BodyTooLarge);
    let network: NetworkId = serde_json::from_value(given["network"].clone()).expect("an id");
    let text = given["challenge"].as_str().expect("a text");
    let signature = sign_login(&key, &network, "operator", text);
    let body = json!({"name": "operator", "challenge": text, "signature": signature});
    let log_in = || machine.ask_as(None, Method::POST, "/sessions", Some(body.clone()));
    log_in().await.ok();
    log_in().await.refused(401, Code::AuthBadCredentials);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_makes_none_that_is_more_than_itself() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let ada = machine.person("ada", 0).await;
    let make = async |token: &str, body: Value| machine.ask_as(Some(token), Method::POST, "/tokens", Some(body)).await;
    let text = |made: &Value| made["token"].as_str().expect("a token").to_owned();
    let short = make(&ada, json!({"scopes": ["view"], "expires_in_s": 3_600}))
        .await
        .ok();
    let year = json!({"scopes": ["view"], "expires_in_s": 31_536_000});
    make(&text(&short), year).await.refused(422, Code::TokenOutlives);
    make(&text(&short), json!({"scopes": ["admin"]}))
        .await
        .refused(403, Code::TokenScopeNotHeld);
    let child = make(&text(&short), json!({"scopes": ["view"]})).await.ok();
    assert!(
        child["expires_at"].as_str() <= short["expires_at"].as_str(),
        "{child} {short}"
    );
    let grandchild = make(&text(&child), json!({"scopes": ["view"]})).await.ok();
    let see = async |token: &str| machine.ask_as(Some(token), Method::GET, "/functions", None).await;
    see(&text(&grandchild)).await.ok();
    let id = short["id"].as_str().expect("an id");
    machine
        .ask_as(Some(&ada), Method::DELETE, &format!("/tokens/{id}"), None)
        .await;
    for made in [&short, &child, &grandchild] {
        see(&text(made)).await.refused(401, Code::AuthBadToken);
    }
    see(&ada).await.ok();
    let mut made = 0;
    let refused = loop {
        let answer = make(&ada, json!({"scopes": ["view"]})).await;
        if !answer.status.is_success() {
            break answer;
        }
        made += 1;
        assert!(made < 1_000, "there is no end");
    };
    refused.refused(409, Code::TokenTooMany);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_reads_anothers_job_is_on_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let ada = machine.person("ada", 1_000_000).await;
    let as_ada = async |method: Method, path: &str, body: Option<Value>| {
        machine.ask_as(Some(&ada), method, path, body).await.ok()
    };
    let deploy = json!({"name": "f", "language": "javascript", "code": FINE});
    as_ada(Method::POST, "/functions", Some(deploy)).await;
    let called = as_ada(Method::POST, "/execute/f", Some(json!({"input": 1}))).await;
    let job = called["job_id"].as_str().expect("an id");
    as_ada(Method::GET, &format!("/jobs/{job}"), None).await;
    for path in ["", "/logs", "/history", ""] {
        machine.get(&format!("/jobs/{job}{path}")).await.ok();
    }
    let reads = as_ada(Method::GET, "/audit?action=job.read", None).await;
    let reads = reads["items"].as_array().expect("a list");
    assert_eq!(reads.len(), 1, "once, and not her own: {reads:?}");
    assert_eq!(
        (&reads[0]["actor"], &reads[0]["target"]),
        (&json!("operator"), &json!(job))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_the_platform_are_nobodys_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    for name in ["platform", "commission"] {
        let invite = machine
            .ask(Method::POST, "/invites", Some(json!({"grant_ucr": 0})))
            .await
            .ok();
        let body = json!({"name": name, "password": "correct horse", "invite": invite["code"]});
        let refused = machine.ask_as(None, Method::POST, "/accounts", Some(body)).await;
        refused.refused(422, Code::AccountReservedName);
    }
}

/// What a browser gets of a public function that answers so, at this host and path.
fn page(machine: &Machine, host: &str, path: &str, more: &str) -> crate::carried_whole::Raw {
    let mut stream = connect(machine);
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("read");
    raw(&bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_do_not_share_an_origin_with_the_platform() {
    const PAGE: &str = "export default (event) => ({status: 200, body: '<p>' + event.raw_path, headers: {
        'content-type': 'text/html', 'set-cookie': ['a=1', 'b=2; Domain=localhost'], 'clear-site-data': '\"*\"',
        'service-worker-allowed': '/', 'strict-transport-security': 'max-age=1', 'alt-svc': 'x', 'x-mine': '1'}});\n";
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let view = machine
        .deploy_with("page", "javascript", PAGE, json!({"public": true}))
        .await
        .ok();
    let own_url = view["own_url"].as_str().expect("a URL");
    assert!(own_url.starts_with("http://page.operator.fn.localhost:"), "{own_url}");

    let shared = page(&machine, "127.0.0.1", "/fn/operator/page/x", "");
    assert_eq!((shared.status(), &*shared.body), (200, &b"<p>/x"[..]));
    for name in [
        "set-cookie",
        "clear-site-data",
        "service-worker-allowed",
        "strict-transport-security",
        "alt-svc",
    ] {
        assert!(shared.values(name).is_empty(), "{name}");
    }
    assert_eq!(
        (shared.values("x-mine"), shared.values("x-content-type-options")),
        (vec!["1"], vec!["nosniff"])
    );
    assert!(shared.values("content-security-policy")[0].starts_with("sandbox "));
    let worker = page(&machine, "127.0.0.1", "/fn/operator/page", "service-worker: script\r\n");
    assert_eq!(worker.json()["error"]["code"], Code::PathNotFound.as_str());

    let own = page(&machine, "page.operator.fn.localhost:7433", "/functions?x=1", "");
    assert_eq!(
        (own.status(), &*own.body),
        (200, &b"<p>/functions"[..]),
        "all paths are the function's"
    );
    assert_eq!(own.values("set-cookie"), ["a=1"], "not for the host above");
    assert_eq!(own.values("service-worker-allowed"), ["/"]);
    assert!(own.values("clear-site-data").is_empty() && own.values("content-security-policy").is_empty());
    let nobody = page(&machine, "nothing.operator.fn.localhost", "/", "");
    assert_eq!(nobody.status(), 401);
    let platform = page(&machine, "127.0.0.1", "/functions", "");
    assert_eq!(
        (platform.status(), platform.values("x-content-type-options")),
        (401, vec!["nosniff"])
    );
}
