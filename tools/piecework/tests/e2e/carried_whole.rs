//! HTTP as it is on the wire, to a function and back: what clients do that libraries hide.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use piecework_model::Code;
use serde_json::{Value, json};

use crate::machine::Machine;

/// Answers what it is asked to answer, or its event.
const ECHO: &str = "def handler(event, context):
    body = event.get('body')
    if isinstance(body, dict) and 'status' in body:
        return body
    return event
";

/// Bytes of an answer as they came.
#[derive(Debug)]
pub struct Raw {
    pub head: String,
    pub body: Vec<u8>,
}

impl Raw {
    pub fn status(&self) -> u16 {
        self.head[9..12].parse().expect("a status")
    }

    /// All values of a header, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1);
        let pairs = lines.filter_map(|line| line.split_once(": "));
        pairs
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

pub fn connect(machine: &Machine) -> TcpStream {
    let address = machine.url.strip_prefix("http://").expect("plain HTTP");
    let stream = TcpStream::connect(address).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout");
    stream
}

/// Sends a request line and what follows it, with the token, on a connection of its own; reads until that ends.
fn ask(machine: &Machine, request: &str, rest: &str, body: &str) -> Raw {
    let mut stream = connect(machine);
    let head = format!(
        "{request} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n{rest}\r\n{body}",
        machine.token
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("read");
    raw(&bytes)
}

pub fn raw(bytes: &[u8]) -> Raw {
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no head: {}", String::from_utf8_lossy(bytes)));
    Raw {
        head: String::from_utf8_lossy(&bytes[..end]).into_owned(),
        body: bytes[end + 4..].to_vec(),
    }
}

/// With a body of JSON that says what to answer.
fn answered(machine: &Machine, method: &str, answer: &Value) -> Raw {
    let body = answer.to_string();
    let rest = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    ask(machine, &format!("{method} /fn/operator/echo"), &rest, &body)
}

async fn echo() -> (Machine, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    machine.deploy("echo", "python", ECHO).await;
    (machine, directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_arrives_as_it_was_sent() {
    let (machine, _directory) = echo().await;
    for (path, plain, raw) in [
        ("/fn/operator/echo", "/", "/"),
        ("/fn/operator/echo/", "/", "/"),
        ("/fn/operator/echo/a%2Fb/c%20d/", "/a/b/c d/", "/a%2Fb/c%20d/"),
        ("/fn/operator/echo/%ff", "/\u{fffd}", "/%ff"),
        ("/fn/operator/echo//x", "//x", "//x"),
    ] {
        let event = ask(&machine, &format!("GET {path}"), "", "").json();
        assert_eq!(
            (&event["path"], &event["raw_path"]),
            (&json!(plain), &json!(raw)),
            "{path}"
        );
        assert_eq!((&event["raw_query"], &event["query_list"]), (&json!(""), &json!([])));
    }
    let event = ask(
        &machine,
        "GET /fn/operator/echo?q=1&q=2&%C3%A9=+",
        "x-a: 1\r\nX-A: 2\r\n",
        "",
    )
    .json();
    assert_eq!(event["query_list"], json!([["q", "1"], ["q", "2"], ["é", " "]]));
    assert_eq!(
        (&event["query"]["q"], &event["raw_query"]),
        (&json!("2"), &json!("q=1&q=2&%C3%A9=+"))
    );
    let all: Vec<&Value> = event["header_list"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|pair| pair[0] == "x-a")
        .collect();
    assert_eq!(all, [&json!(["x-a", "1"]), &json!(["x-a", "2"])]);
    assert_eq!(event["headers"]["x-a"], "1, 2");
    assert_eq!(event["client"]["address"], "127.0.0.1");
    assert_eq!(
        (&event["base_path"], &event["scheme"]),
        (&json!("/fn/operator/echo"), &json!("http"))
    );
    assert_eq!(event.get("body"), Some(&Value::Null), "there is none");
    assert!(!event.to_string().contains("Bearer"), "the platform's own stays here");
    // Trailers are dropped.
    let chunked = "transfer-encoding: chunked\r\ntrailer: x-late\r\n";
    let event = ask(
        &machine,
        "POST /fn/operator/echo",
        chunked,
        "2\r\nhi\r\n0\r\nx-late: 1\r\n\r\n",
    )
    .json();
    assert_eq!(event["body"], "hi");
    assert!(event["headers"]["x-late"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_leaves_as_the_function_gave_it() {
    let (machine, _directory) = echo().await;
    let several = json!({"status": 201, "headers": {"vary": ["a", "b"], "x-one": "1"}, "body": "hello"});
    let answer = answered(&machine, "POST", &several);
    assert_eq!((answer.status(), answer.values("vary")), (201, vec!["a", "b"]));
    assert_eq!(
        (answer.values("content-length"), answer.body.as_slice()),
        (vec!["5"], &b"hello"[..])
    );
    assert_eq!(answer.values("x-job-id").len(), 1);
    let listed = json!({"status": 200, "header_list": [["link", "<a>"], ["link", "<b>"]]});
    assert_eq!(answered(&machine, "POST", &listed).values("link"), ["<a>", "<b>"]);

    // HEAD: what GET would say, and no body.
    let get = answered(&machine, "GET", &several);
    let head = answered(&machine, "HEAD", &several);
    assert_eq!((head.status(), head.body.len()), (201, 0));
    for name in ["content-length", "content-type", "vary", "x-one"] {
        assert_eq!(head.values(name), get.values(name), "{name}");
    }
    let long = json!({"status": 200, "headers": {"content-length": "12345"}});
    assert_eq!(answered(&machine, "HEAD", &long).values("content-length"), ["12345"]);
    assert_eq!(
        answered(&machine, "GET", &long).values("content-length"),
        ["0"],
        "it is counted"
    );

    for status in [204, 205, 304] {
        let answer = answered(
            &machine,
            "GET",
            &json!({"status": status, "headers": {"etag": "1"}, "body": "dropped"}),
        );
        let end: &[u8] = if status == 205 { b"0\r\n\r\n" } else { b"" };
        assert_eq!((answer.status(), &*answer.body), (status, end));
        assert_eq!(answer.values("etag"), ["1"]);
        let names: &[&str] = match status {
            // A client has to be told that nothing follows.
            205 => &["content-length", "content-type"],
            _ => &["content-length", "transfer-encoding", "content-type"],
        };
        for name in names {
            assert!(answer.values(name).is_empty(), "{status}: {name}: {}", answer.head);
        }
    }
    for status in [100, 101, 199, 600, 999] {
        let answer = answered(&machine, "GET", &json!({"status": status, "body": "x"}));
        assert_eq!(answer.status(), 502, "{status}");
        let error = &answer.json()["error"];
        assert_eq!(error["code"], Code::FunctionOutputInvalid.as_str(), "{status}");
        let job = error["job_id"].as_str().expect("its job");
        assert_eq!(answer.values("x-job-id"), [job]);
        let record = machine.get(&format!("/jobs/{job}")).await.ok();
        assert_eq!(record["state"], "failed", "{record}");
    }
}

/// As [`ask`], without a token.
fn as_a_stranger(machine: &Machine, request: &str, rest: &str) -> Raw {
    let mut stream = connect(machine);
    let head = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{rest}\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("read");
    raw(&bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_bring_tokens_of_their_own_and_see_no_inside() {
    let (machine, _directory) = echo().await;
    let code = "def handler(event, context):
    if event['path'] == '/raise':
        raise ValueError('the password is hunter2')
    if event['path'] == '/almost':
        return {'status': 200, 'headers': {'hunter2 ': 'x'}, 'body': ''}
    return event['headers'].get('authorization', 'none')
";
    machine
        .deploy_with("open", "python", code, json!({"public": true, "sandbox": "wasm"}))
        .await
        .ok();
    for own in [
        "Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
        "bearer my-app-key",
        "Basic dTpw",
        "Token abc",
    ] {
        let got = as_a_stranger(&machine, "GET /fn/operator/open", &format!("authorization: {own}\r\n"));
        assert_eq!((got.status(), &*got.body), (200, own.as_bytes()));
    }
    let got = as_a_stranger(&machine, "GET /fn/operator/open", "authorization: Bearer pw_none\r\n");
    assert_eq!(got.json()["error"]["code"], Code::AuthBadToken.as_str());
    let got = as_a_stranger(
        &machine,
        "GET /fn/operator/echo",
        "authorization: Bearer my-app-key\r\n",
    );
    assert_eq!(got.status(), 401, "it is not public");
    assert_eq!(
        ask(&machine, "GET /fn/operator/open", "", "").body,
        b"none",
        "the platform's own stays here"
    );

    for (path, code) in [("raise", Code::FunctionRaised), ("almost", Code::FunctionOutputInvalid)] {
        let request = format!("GET /fn/operator/open/{path}");
        let stranger = as_a_stranger(&machine, &request, "");
        assert_eq!(stranger.status(), 502);
        assert!(
            !String::from_utf8_lossy(&stranger.body).contains("hunter2"),
            "{stranger:?}"
        );
        let error = &stranger.json()["error"];
        assert_eq!(error["code"], code.as_str());
        assert_eq!(
            stranger.values("x-job-id"),
            [error["job_id"].as_str().expect("its job")]
        );
        let owner = ask(&machine, &request, "", "");
        assert!(String::from_utf8_lossy(&owner.body).contains("hunter2"), "{owner:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_asked_for_when_it_is_wanted() {
    let (machine, _directory) = echo().await;
    let mut stream = connect(&machine);
    let head = |token: &str| {
        format!(
            "POST /fn/operator/echo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
             expect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        )
    };
    stream.write_all(head(&machine.token).as_bytes()).expect("sent");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").expect("sent");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("read");
    assert_eq!(raw(&rest).json()["body"], "hi");

    // Who may not call is told so without sending it.
    let mut stream = connect(&machine);
    stream.write_all(head("pw_stranger").as_bytes()).expect("sent");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("read");
    assert_eq!(raw(&all).status(), 401);
}
