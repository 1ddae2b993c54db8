//! Bad input gets its code and a sentence, and nothing else suffers.

use crate::machine::{Machine, refused_start};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn what_cannot_be_deployed_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let deploy = async |body: Value| machine.ask(Method::POST, "/functions", Some(body)).await;
    let python = |code: &str| json!({"name": "f", "language": "python", "code": code});
    let good = "def handler(event, context):\n    return 1\n";
    deploy(json!({"name": "f", "language": "ruby", "code": "x"}))
        .await
        .refused(422, "function.unknown_language");
    deploy(json!({"name": "F!", "language": "python", "code": good}))
        .await
        .refused(422, "function.bad_name");
    deploy(json!({"name": "f", "language": "python"}))
        .await
        .refused(422, "function.bad_code");
    deploy(json!({"name": "f", "language": "python", "code": good, "timeout_ms": 0}))
        .await
        .refused(422, "function.bad_timeout");
    deploy(json!({"name": "f", "language": "python", "code": good, "memory_limit_mb": 1}))
        .await
        .refused(422, "function.bad_memory");
    deploy(json!({"name": "f", "language": "python", "code": good, "colour": 1}))
        .await
        .refused(422, "body.malformed");
    deploy(json!({"name": "f", "language": "python", "bundle": "!!"}))
        .await
        .refused(422, "body.bad_encoding");
    deploy(json!({"name": "f", "language": "python", "code": good, "env": {"1A": "x"}}))
        .await
        .refused(422, "function.bad_env");
    let syntax = deploy(python("def handler(event, context):\n    return (\n")).await;
    syntax.refused(422, "function.syntax_error");
    assert!(
        syntax.body["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("main.py")),
        "{}",
        syntax.body
    );
    let syntax =
        deploy(json!({"name": "f", "language": "javascript", "code": "export default () => {\n  let = ;\n}\n"})).await;
    syntax.refused(422, "function.syntax_error");
    assert!(
        syntax.body["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains('2')),
        "{}",
        syntax.body
    );
    deploy(python("x = 1\n")).await.refused(422, "function.no_handler");
    deploy(python("raise ValueError('at import')\n"))
        .await
        .refused(422, "function.load_failed");
    deploy(python(good)).await.ok();
    deploy(python(good)).await.refused(409, "function.exists");
    assert_eq!(machine.call("f", Value::Null).await.ok()["output"], 1);
}

#[tokio::test]
async fn bodies_that_are_too_large_or_not_json_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    machine
        .deploy("f", "javascript", "export default (event) => event;\n")
        .await;
    let post = |body: Vec<u8>| machine.send(machine.request(Method::POST, "/execute/f").body(body));
    post(vec![b' '; 7 << 20]).await.refused(413, "body.too_large");
    post(b"{\"input\": ".to_vec()).await.refused(422, "body.malformed");
    post(b"{\"input\": \"\xff\"}".to_vec())
        .await
        .refused(422, "body.malformed");
    post(b"[]".to_vec()).await.refused(422, "body.malformed");
    machine
        .call("nothing", Value::Null)
        .await
        .refused(404, "function.not_found");
    machine.get("/jobs/job_1").await.refused(404, "job.not_found");
    machine.get("/nowhere").await.refused(404, "path.not_found");
    machine
        .ask(Method::PATCH, "/functions", None)
        .await
        .refused(405, "method.not_allowed");
    machine.get("/functions?limt=1").await.refused(422, "query.malformed");
    assert_eq!(
        machine.call("f", json!({"deep": ["ünïcode", 1.5]})).await.ok()["output"],
        json!({"deep": ["ünïcode", 1.5]})
    );
}

#[tokio::test]
async fn more_calls_than_the_function_takes_are_held_then_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let code = "import time\ndef handler(event, context):\n    time.sleep(1)\n    return 1\n";
    machine
        .deploy_with("slow", "python", code, json!({"concurrency": 1}))
        .await
        .ok();
    let answers = futures::future::join_all((0..14).map(|_| machine.call("slow", Value::Null))).await;
    let refused: Vec<_> = answers.iter().filter(|answer| !answer.status.is_success()).collect();
    assert_eq!(refused.len(), 3, "one runs, ten wait, three are refused");
    for answer in refused {
        answer.refused(429, "function.too_many");
        assert!(answer.headers.contains_key("retry-after"));
    }
}

#[tokio::test]
async fn a_taken_port_a_taken_directory_and_a_foreign_one_are_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let (code, said) = refused_start(directory.path(), "127.0.0.1:0");
    assert_eq!(code, Some(2));
    assert!(said.contains("directory.in_use: another `piecework` uses"), "{said}");
    let other = tempfile::tempdir().expect("a directory");
    let port = machine.url.strip_prefix("http://").expect("a URL");
    let (code, said) = refused_start(other.path(), port);
    assert_eq!(code, Some(2));
    assert!(
        said.starts_with("listen.refused: cannot listen on") && said.contains("--listen"),
        "{said}"
    );
    assert!(!other.path().join("store").exists(), "nothing was begun");
    let foreign = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(foreign.path().join("store")).expect("made");
    std::fs::write(foreign.path().join("store/holiday.txt"), "sun").expect("written");
    let (code, said) = refused_start(foreign.path(), "127.0.0.1:0");
    assert_eq!(code, Some(2));
    assert!(said.starts_with("directory.foreign: "), "{said}");
    assert!(
        foreign.path().join("store/holiday.txt").exists(),
        "nothing of anybody's is deleted"
    );
}
