//! Functions that stream: through `up`, and through a provider in a network namespace of its own.

use std::{
    io::{Read as _, Write as _},
    process::Command,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    carried_whole::connect,
    computer::{Computer, provide},
    machine::{self, Machine, SETTLED_WITHIN},
};

/// Counts up to `n`, with a pause before each but the first; then raises, if asked to.
const COUNT: &str = "import time

def handler(event, context):
    query = event.get('query', event)
    for n in range(int(query['n'])):
        if n:
            time.sleep(float(query.get('pause', 0)))
        yield f'{n}\\n'
    if query.get('raise'):
        raise ValueError('in the middle')
";

/// Server-sent events, a second apart.
const EVENTS: &str = "export default async function* events(event) {
  for (let n = 0; n < 3; n++) {
    if (n) await new Promise((done) => setTimeout(done, 1000));
    yield `data: ${n}\\n\\n`;
  }
}
";

/// So many MiB, in chunks of 64 KiB.
const POUR: &str = "CHUNK = bytes(range(256)) * 256

def handler(event, context):
    query = event.get('query', event)
    for _ in range(int(query['mib']) * 16):
        yield CHUNK
";

/// How long the body was, and what its bytes add up to.
const TAKE: &str = "def handler(event, context):
    total, length = 0, 0
    for part in context.body:
        length += len(part)
        total += part[0] + part[-1]
    return {'length': length, 'streamed': event.get('body_stream', False)}
";

async fn up() -> (Machine, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    (machine, directory)
}

async fn deploy(machine: &Machine, name: &str, language: &str, code: &str, more: Value) {
    let mut settings = json!({"timeout_ms": 120_000});
    let more = more.as_object().expect("an object").clone();
    settings.as_object_mut().expect("an object").extend(more);
    machine.deploy_with(name, language, code, settings).await.ok();
}

async fn open(machine: &Machine, path: &str) -> reqwest::Response {
    let request = machine.request(Method::GET, &format!("/fn/operator/{path}"));
    request.send().await.expect("it answers")
}

fn job_of(response: &reqwest::Response) -> String {
    let job = response.headers()["x-job-id"].to_str().expect("ASCII");
    job.to_owned()
}

/// The job, once it has ended.
async fn ended(machine: &Machine, job: &str) -> Value {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let answer = machine.get(&format!("/jobs/{job}?wait_ms=1000")).await;
        if answer.status.is_success() && answer.body["state"] != "running" && answer.body["state"] != "queued" {
            return answer.body;
        }
        assert!(Instant::now() < deadline, "never ended: {}", answer.body);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Resident bytes of a process.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .expect("a number");
    kib << 10
}

/// The most that a process holds while something runs, beyond what it held before.
async fn growth<T>(pid: u32, run: impl Future<Output = T>) -> (T, u64) {
    const EVERY: Duration = Duration::from_millis(20);
    let before = resident(pid);
    let mut most = before;
    let mut run = std::pin::pin!(run);
    loop {
        tokio::select! {
            done = &mut run => return (done, most.saturating_sub(before)),
            () = tokio::time::sleep(EVERY) => most = most.max(resident(pid)),
        }
    }
}

const GROWTH_MAX: u64 = 20 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_streams_arrives_and_is_paid() {
    let (machine, _directory) = up().await;
    for sandbox in ["wasm", "jail"] {
        deploy(&machine, sandbox, "python", COUNT, json!({"sandbox": sandbox})).await;
        let response = open(&machine, &format!("{sandbox}?n=1000")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        let job = job_of(&response);
        let text = response.text().await.expect("all of it");
        let due: String = (0..1000).map(|n| format!("{n}\n")).collect();
        assert_eq!(text, due, "{sandbox}");
        let view = machine.paid(&job).await;
        assert_eq!(
            (&view["state"], &view["received"]),
            (&json!("succeeded"), &json!(true)),
            "{view}"
        );
        assert_eq!(view["egress_bytes"], json!(due.len()), "{sandbox}");

        // Collected where it is not read as it comes.
        let done = machine.call(sandbox, json!({"n": 3})).await.ok();
        assert_eq!(done["output"], "0\n1\n2\n");
        // And broken off where it does not end well.
        let response = open(&machine, &format!("{sandbox}?n=3&raise=1")).await;
        let job = job_of(&response);
        response.bytes().await.expect_err("it has no end");
        let view = ended(&machine, &job).await;
        assert_eq!(
            (&view["state"], &view["error"]["code"]),
            (&json!("failed"), &json!(Code::FunctionRaised))
        );
        let view = machine.paid(&job).await;
        assert_eq!(view["egress_bytes"], 6, "what was streamed is billed: {view}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_before_the_function_ends() {
    let (machine, _directory) = up().await;
    for sandbox in ["wasm", "jail"] {
        deploy(&machine, sandbox, "javascript", EVENTS, json!({"sandbox": sandbox})).await;
        let began = Instant::now();
        let response = open(&machine, sandbox).await;
        let mut parts = response.bytes_stream();
        let first = parts.next().await.expect("a part").expect("whole");
        assert_eq!(first, "data: 0\n\n");
        assert!(
            began.elapsed() < Duration::from_millis(1_900),
            "{sandbox}: {:?}",
            began.elapsed()
        );
        let mut rest = Vec::new();
        while let Some(part) = parts.next().await {
            rest.extend_from_slice(&part.expect("whole"));
        }
        assert_eq!(rest, b"data: 1\n\ndata: 2\n\n");
        assert!(began.elapsed() >= Duration::from_secs(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_stops_the_run() {
    let (machine, _directory) = up().await;
    for sandbox in ["wasm", "jail"] {
        deploy(&machine, sandbox, "python", COUNT, json!({"sandbox": sandbox})).await;
        // While it sends, and while it is silent.
        for pause in ["0.001", "100"] {
            let response = open(&machine, &format!("{sandbox}?n=1000000&pause={pause}")).await;
            let job = job_of(&response);
            let mut parts = response.bytes_stream();
            parts.next().await.expect("a part").expect("whole");
            drop(parts);
            let began = Instant::now();
            let view = ended(&machine, &job).await;
            assert_eq!(view["state"], "cancelled", "{sandbox} {pause}: {view}");
            assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
            machine.paid(&job).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_up_the_function_and_no_memory() {
    let (machine, _directory) = up().await;
    deploy(&machine, "pour", "python", POUR, json!({})).await;
    let warm = open(&machine, "pour?mib=1").await;
    assert_eq!(warm.bytes().await.expect("all of it").len(), 1 << 20);
    let before = resident(machine.pid());
    let mut stream = connect(&machine);
    let request = format!(
        "GET /fn/operator/pour?mib=512 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        machine.token
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut some = vec![0; 1 << 20];
    stream.read_exact(&mut some).expect("the beginning");
    let head = String::from_utf8_lossy(&some[..500]).into_owned();
    let job = head
        .lines()
        .find_map(|line| line.strip_prefix("x-job-id: "))
        .expect("a job")
        .to_owned();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held = resident(machine.pid()).saturating_sub(before);
    assert!(
        held < GROWTH_MAX,
        "{held} bytes are held for a reader who does not read"
    );
    assert_eq!(machine.get(&format!("/jobs/{job}")).await.ok()["state"], "running");
    drop(stream);
    assert_eq!(ended(&machine, &job).await["state"], "cancelled");
}

/// Reads `mib` MiB from the function and throws them away.
async fn pour(machine: &Machine, mib: u64) {
    let response = open(machine, &format!("pour?mib={mib}")).await;
    assert_eq!(response.status(), 200);
    let job = job_of(&response);
    let mut parts = response.bytes_stream();
    let mut bytes = 0;
    while let Some(part) = parts.next().await {
        match part {
            Ok(part) => bytes += part.len() as u64,
            Err(error) => panic!("{error} after {bytes} bytes: {}", ended(machine, &job).await),
        }
    }
    assert_eq!(bytes, mib << 20);
    assert_eq!(ended(machine, &job).await["egress_bytes"], json!(bytes));
}

/// Sends `mib` MiB to the function, of unknown or of known length.
async fn send(machine: &Machine, mib: u64, is_known: bool) {
    let part = bytes::Bytes::from(vec![7u8; 1 << 20]);
    let parts = futures::stream::iter((0..mib).map(move |_| Ok::<_, std::io::Error>(part.clone())));
    let mut request = machine.request(Method::POST, "/fn/operator/take");
    if is_known {
        request = request.header("content-length", mib << 20);
    }
    let answer = machine.send(request.body(reqwest::Body::wrap_stream(parts))).await.ok();
    assert_eq!(answer, json!({"length": mib << 20, "streamed": true}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_passes_each_way_in_little_memory() {
    let (machine, _directory) = up().await;
    deploy(&machine, "pour", "python", POUR, json!({"sandbox": "jail"})).await;
    deploy(&machine, "take", "python", TAKE, json!({"sandbox": "jail"})).await;
    pour(&machine, 16).await;
    send(&machine, 16, true).await;
    let ((), grown) = growth(machine.pid(), pour(&machine, 1 << 10)).await;
    assert!(grown < GROWTH_MAX, "an answer of 1 GiB took {grown} bytes");
    for is_known in [true, false] {
        let ((), grown) = growth(machine.pid(), send(&machine, 1 << 10, is_known)).await;
        assert!(grown < GROWTH_MAX, "a body of 1 GiB took {grown} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_function_may_stream_is_cut_or_refused() {
    let (machine, _directory) = up().await;
    deploy(&machine, "pour", "python", POUR, json!({"stream_limit_mb": 8})).await;
    deploy(&machine, "take", "python", TAKE, json!({"stream_limit_mb": 8})).await;
    let response = open(&machine, "pour?mib=9").await;
    let job = job_of(&response);
    response.bytes().await.expect_err("it is cut");
    let view = ended(&machine, &job).await;
    assert_eq!(view["error"]["code"], Code::FunctionOutputTooLarge.as_str(), "{view}");
    assert_eq!(view["egress_bytes"], json!(8 << 20), "{view}");
    // Collected, the limit is that of an output.
    let collected = machine.call("pour", json!({"mib": 7})).await;
    collected.refused(502, Code::FunctionOutputTooLarge);
    send(&machine, 8, true).await;
    let request = machine.request(Method::POST, "/fn/operator/take");
    let answer = machine.send(request.body(vec![7u8; 9 << 20])).await;
    answer.refused(413, Code::BodyTooLarge);
    let bad = machine
        .deploy_with("bad", "python", POUR, json!({"stream_limit_mb": 16_385}))
        .await;
    bad.refused(422, Code::FunctionBadStreamLimit);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_prints_a_stream_as_it_comes() {
    let (machine, _directory) = up().await;
    deploy(&machine, "events", "javascript", EVENTS, json!({})).await;
    deploy(&machine, "count", "python", COUNT, json!({})).await;
    let call = |arguments: &[&str]| {
        let mut command = machine::piecework();
        command
            .env("PIECEWORK_URL", &machine.url)
            .env("PIECEWORK_TOKEN", &machine.token);
        command.arg("call").args(arguments);
        command
    };
    let mut child = call(&["--quiet", "events"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut out = child.stdout.take().expect("piped");
    let began = Instant::now();
    let mut first = [0; 9];
    out.read_exact(&mut first).expect("an event");
    let first_after = began.elapsed();
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).expect("the others");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(
        (&first, rest.as_slice()),
        (b"data: 0\n\n", &b"data: 1\n\ndata: 2\n\n"[..])
    );
    assert!(
        began.elapsed() > first_after + Duration::from_millis(1_500),
        "as they come"
    );
    let failed = call(&["count", r#"{"n": 2, "raise": 1}"#]).output().expect("it runs");
    assert_eq!(
        (failed.status.code(), failed.stdout.as_slice()),
        (Some(1), &b"0\n1\n"[..])
    );
    let said = String::from_utf8_lossy(&failed.stderr);
    assert!(
        said.contains(Code::FunctionRaised.as_str()) && said.contains("in the middle"),
        "{said}"
    );
}

/// A network namespace with one way out: to a relay on this side of a cable.
struct Space(String);

/// Of the range that RFC 2544 sets aside for tests.
const HERE: &str = "198.19.9.1";
const THERE: &str = "198.19.9.2";

impl Space {
    fn new() -> Option<Self> {
        let name = format!("pws{}", std::process::id() % 100_000);
        let (out, inside) = (format!("{name}o"), format!("{name}i"));
        if !ip(&["netns", "add", &name]) {
            return None;
        }
        let space = Self(name.clone());
        let made = ip(&[
            "link", "add", &out, "type", "veth", "peer", "name", &inside, "netns", &name,
        ]) && ip(&["addr", "add", &format!("{HERE}/24"), "dev", &out])
            && ip(&["link", "set", &out, "up"])
            && ip(&["-n", &name, "addr", "add", &format!("{THERE}/24"), "dev", &inside])
            && ip(&["-n", &name, "link", "set", &inside, "up"])
            && ip(&["-n", &name, "link", "set", "lo", "up"]);
        made.then_some(space)
    }

    /// The same command, as it runs in there.
    fn command(&self, inner: &Command) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.0])
            .arg(inner.get_program())
            .args(inner.get_args());
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip")
        .args(arguments)
        .status()
        .is_ok_and(|status| status.success())
}

/// What is connected to it goes on to the machine.
async fn relay(machine: &Machine) -> String {
    let listener = TcpListener::bind((HERE, 0)).await.expect("an address");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let to = machine.url.strip_prefix("http://").expect("plain HTTP").to_owned();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut to = TcpStream::connect(&to).await.expect("it listens");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generator_streams_through_a_provider_in_a_namespace_of_its_own() {
    let Some(space) = Space::new() else {
        return machine::skipped("no network namespaces can be made here: that takes root and iproute2");
    };
    let (machine, directory) = up().await;
    let url = relay(&machine).await;
    let invite = crate::computer::invite(&machine).await;
    let home = directory.path().join("afar");
    let command = space.command(&provide(&home, &url, "afar", &["--invite", &invite]));
    let afar = Computer::ready(command);
    let there = json!({"placement": {"pin": ["afar"]}});
    deploy(&machine, "count", "python", COUNT, there.clone()).await;
    deploy(&machine, "events", "javascript", EVENTS, there.clone()).await;
    let jailed = json!({"placement": {"pin": ["afar"]}, "sandbox": "jail"});
    deploy(&machine, "pour", "python", POUR, jailed.clone()).await;
    deploy(&machine, "take", "python", TAKE, jailed).await;

    let response = open(&machine, "count?n=1000").await;
    let job = job_of(&response);
    let due: String = (0..1000).map(|n| format!("{n}\n")).collect();
    assert_eq!(response.text().await.expect("all of it"), due);
    let view = machine.paid(&job).await;
    assert_eq!(
        (&view["provider"], &view["egress_bytes"]),
        (&json!("afar"), &json!(due.len())),
        "{view}"
    );

    let began = Instant::now();
    let mut parts = open(&machine, "events").await.bytes_stream();
    assert_eq!(parts.next().await.expect("a part").expect("whole"), "data: 0\n\n");
    assert!(began.elapsed() < Duration::from_millis(1_900), "{:?}", began.elapsed());
    drop(parts);

    let response = open(&machine, "count?n=3&raise=1").await;
    let job = job_of(&response);
    response.bytes().await.expect_err("it has no end");
    assert_eq!(
        ended(&machine, &job).await["error"]["code"],
        Code::FunctionRaised.as_str()
    );
    machine.paid(&job).await;

    let response = open(&machine, "count?n=1000000&pause=100").await;
    let job = job_of(&response);
    let mut parts = response.bytes_stream();
    parts.next().await.expect("a part").expect("whole");
    drop(parts);
    assert_eq!(ended(&machine, &job).await["state"], "cancelled");
    machine.paid(&job).await;

    pour(&machine, 16).await;
    send(&machine, 16, true).await;
    let (((), here), far) = growth(afar.pid(), growth(machine.pid(), pour(&machine, 256))).await;
    assert!(
        here < GROWTH_MAX && far < GROWTH_MAX,
        "an answer of 256 MiB took {here} here and {far} there"
    );
    let (((), here), far) = growth(afar.pid(), growth(machine.pid(), send(&machine, 256, false))).await;
    assert!(
        here < GROWTH_MAX && far < GROWTH_MAX,
        "a body of 256 MiB took {here} here and {far} there"
    );

    // A provider that is lost in the middle: the answer has no end, and nobody else begins it anew.
    let response = open(&machine, "count?n=1000000&pause=0.01").await;
    let job = job_of(&response);
    let mut parts = response.bytes_stream();
    parts.next().await.expect("a part").expect("whole");
    drop(afar);
    while let Some(part) = parts.next().await {
        if part.is_err() {
            let view = ended(&machine, &job).await;
            assert_eq!(view["error"]["code"], Code::ProviderLost.as_str(), "{view}");
            return;
        }
    }
    panic!("the answer ended well");
}
