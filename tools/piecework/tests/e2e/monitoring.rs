//! What operators watch: metrics that Prometheus accepts, and alerts that really arrive.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::mpsc;

use crate::{
    machine::{Machine, has},
    network::processes::Devnet,
};

const HELLO: &str = "def handler(event, context):\n    return 1\n";

async fn text(machine: &Machine, path: &str) -> String {
    let answer = machine.request(Method::GET, path).send().await.expect("it answers");
    answer.text().await.expect("text")
}

/// The classic text format: each family once, with help and type before its samples, and no sample twice.
fn check_format(text: &str) {
    let (mut types, mut seen) = (BTreeMap::new(), BTreeSet::new());
    let mut helped = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a sentence");
            assert!(helped.insert(name.to_owned()) && !help.is_empty(), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a sample and a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(seen.insert(sample.to_owned()), "twice: {line}");
            let name = sample.split('{').next().unwrap_or_default();
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
                let family = name.strip_suffix(end)?;
                (types.get(family).map(String::as_str) == Some("histogram")).then_some(family)
            });
            let family = family.unwrap_or(name);
            assert!(types.contains_key(family) && helped.contains(family), "{line}");
        }
    }
    assert!(types.len() > 15, "{text}");
}

fn promtool(text: &str) {
    if !has("promtool") {
        // Where it is missing, the test's own rules have to do.
        return;
    }
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// The rules and the dashboard of packaging/monitoring.
fn what_comes_with_it_asks_for_metrics_that_are_there(metrics: &str) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/monitoring");
    let rules = fs::read_to_string(folder.join("alerts.yml")).expect("rules");
    let dashboard = fs::read_to_string(folder.join("dashboard.json")).expect("a dashboard");
    serde_json::from_str::<Value>(&dashboard).expect("JSON");
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families: BTreeSet<&str> = types.filter_map(|line| line.split(' ').next()).collect();
    let is_of_a_name = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
    let mut asked = BTreeSet::new();
    for word in [&rules, &dashboard]
        .iter()
        .flat_map(|text| text.split(|byte| !is_of_a_name(byte)))
    {
        if word.starts_with("piecework_") || word.starts_with("process_") {
            asked.insert(word.strip_suffix("_bucket").unwrap_or(word));
        }
    }
    assert!(asked.len() > 30, "{asked:?}");
    for name in asked {
        assert!(families.contains(name), "no metric is called {name}");
    }
    if has("promtool") {
        let checked = Command::new("promtool")
            .args(["check", "rules"])
            .arg(folder.join("alerts.yml"))
            .output();
        let checked = checked.expect("it starts");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_accepts_the_metrics_and_no_name_or_path_is_in_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let machine = Machine::start(folder.path());
    machine.deploy("secretname", "python", HELLO).await;
    machine.call("secretname", json!({})).await.ok();
    machine.get("/no/such/path").await;
    machine.get("/fn/operator/secretname/private/path").await;
    let metrics = text(&machine, "/metrics").await;
    check_format(&metrics);
    promtool(&metrics);
    for part in ["secretname", "such", "private"] {
        assert!(!metrics.contains(part), "{part} in {metrics}");
    }
    what_comes_with_it_asks_for_metrics_that_are_there(&metrics);
    for line in [
        "piecework_http_requests_total{route=\"execute\",status=\"2xx\"} 1\n",
        "piecework_http_requests_total{route=\"function\",status=\"2xx\"} 1\n",
        "piecework_http_requests_total{route=\"other\",status=\"4xx\"} 1\n",
        "piecework_http_request_duration_seconds_count{route=\"execute\"} 1\n",
        "piecework_http_requests_in_flight 1\n",
        "piecework_providers_by_state{state=\"ready\"} 1\n",
        "piecework_build_info{",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_accepts_the_metrics_of_peers_and_of_a_controller_apart() {
    let network = Devnet::start(1, 1).await;
    let url = network.process("peer-1").url.clone().expect("a peer has a URL");
    let peers = reqwest::get(format!("{url}/metrics")).await.expect("it answers");
    let peers = peers.text().await.expect("text");
    let controllers = text(&network.machine, "/metrics").await;
    for metrics in [&peers, &controllers] {
        check_format(metrics);
        promtool(metrics);
    }
    assert!(
        peers.contains("piecework_http_requests_total{route=\"blocks\",status=\"2xx\"}"),
        "{peers}"
    );
}

type Heard = mpsc::UnboundedReceiver<(HeaderMap, Bytes)>;

/// What a webhook does with a request.
struct Hook {
    tells: mpsc::UnboundedSender<(HeaderMap, Bytes)>,
    is_first: AtomicBool,
}

async fn hear(State(hook): State<Arc<Hook>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    hook.tells.send((headers, body)).expect("the test is there");
    match hook.is_first.swap(false, Ordering::Relaxed) {
        true => StatusCode::SERVICE_UNAVAILABLE,
        false => StatusCode::NO_CONTENT,
    }
}

/// A webhook; the first request is refused.
async fn webhook() -> (String, Heard) {
    let (tells, heard) = mpsc::unbounded_channel();
    let is_first = AtomicBool::new(true);
    let app = Router::new()
        .route("/hook", post(hear))
        .with_state(Arc::new(Hook { tells, is_first }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, heard)
}

/// A message, once its signature was checked.
async fn next(heard: &mut Heard) -> (String, Value) {
    let next = tokio::time::timeout(Duration::from_secs(120), heard.recv()).await;
    let (headers, body) = next.expect("it arrives").expect("a request");
    let header = |name: &str| headers[name].to_str().expect("text").to_owned();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"a secret").expect("every length");
    mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    mac.update(&body);
    let due = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(header("webhook-signature"), due);
    (header("webhook-id"), serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_budget_arrives_at_a_webhook_and_a_command_and_so_does_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let (url, mut heard) = webhook().await;
    let (secret, mails) = (folder.path().join("secret"), folder.path().join("mails"));
    fs::write(&secret, "a secret\n").expect("written");
    let options = [
        "--alert-webhook".to_owned(),
        url,
        "--alert-secret-file".to_owned(),
        secret.display().to_string(),
        "--alert-command".to_owned(),
        format!("cat >> {}", mails.display()),
    ];
    let options: Vec<&'static str> = options.into_iter().map(|option| &*option.leak()).collect();
    let machine = Machine::start_with(&folder.path().join("data"), options.leak());
    machine.deploy("costly", "python", HELLO).await;
    let budget = |ucr: u64| Some(json!({ "budget_ucr": ucr }));
    machine
        .ask(Method::PUT, "/functions/costly/budget", budget(1))
        .await
        .ok();
    machine.call("costly", json!({})).await.ok();
    let (first, refused) = next(&mut heard).await;
    let (again, message) = next(&mut heard).await;
    assert_eq!(
        (&first, &refused),
        (&again, &message),
        "it is sent again under the same id"
    );
    assert_eq!(
        (&message["status"], &message["rule"]),
        (&json!("firing"), &json!("budget")),
        "{message}"
    );
    assert_eq!(message["subject"], "operator/costly");
    let list = machine.get("/alerts").await.ok();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    machine
        .ask(Method::PUT, "/functions/costly/budget", budget(1_000_000_000))
        .await
        .ok();
    let (other, message) = next(&mut heard).await;
    assert_eq!(message["status"], "resolved", "{message}");
    assert_ne!(other, first);
    let deadline = Instant::now() + Duration::from_secs(120);
    let has_both = |mails: &str| {
        let subject = |status: &str| format!("Subject: [piecework] {status}: budget operator/costly\n");
        mails.contains(&subject("alert")) && mails.contains(&subject("resolved"))
    };
    while !fs::read_to_string(&mails).is_ok_and(|mails| has_both(&mails)) {
        assert!(Instant::now() < deadline, "{:?}", fs::read_to_string(&mails));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!fs::read_to_string(&mails).expect("mails").contains("a secret"));
}
