//! Bad input gets its code and a sentence, and nothing else suffers.

use crate::machine::{Machine, refused_start};
use piecework_model::Code;
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
        .refused(422, Code::FunctionUnknownLanguage);
    deploy(json!({"name": "F!", "language": "python", "code": good}))
        .await
        .refused(422, Code::FunctionBadName);
    deploy(json!({"name": "f", "language": "python"}))
        .await
        .refused(422, Code::FunctionBadCode);
    deploy(json!({"name": "f", "language": "python", "code": good, "timeout_ms": 0}))
        .await
        .refused(422, Code::FunctionBadTimeout);
    deploy(json!({"name": "f", "language": "python", "code": good, "memory_limit_mb": 1}))
        .await
        .refused(422, Code::FunctionBadMemory);
    deploy(json!({"name": "f", "language": "python", "code": good, "colour": 1}))
        .await
        .refused(422, Code::BodyMalformed);
    deploy(json!({"name": "f", "language": "python", "bundle": "!!"}))
        .await
        .refused(422, Code::BodyBadEncoding);
    deploy(json!({"name": "f", "language": "python", "code": good, "env": {"1A": "x"}}))
        .await
        .refused(422, Code::FunctionBadEnv);
    let syntax = deploy(python("def handler(event, context):\n    return (\n")).await;
    syntax.refused(422, Code::FunctionSyntaxError);
    assert!(
        syntax.body["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("main.py")),
        "{}",
        syntax.body
    );
    let syntax =
        deploy(json!({"name": "f", "language": "javascript", "code": "export default () => {\n  let = ;\n}\n"})).await;
    syntax.refused(422, Code::FunctionSyntaxError);
    assert!(
        syntax.body["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains('2')),
        "{}",
        syntax.body
    );
    deploy(python("x = 1\n")).await.refused(422, Code::FunctionNoHandler);
    deploy(python("raise ValueError('at import')\n"))
        .await
        .refused(422, Code::FunctionLoadFailed);
    deploy(python(good)).await.ok();
    deploy(python(good)).await.refused(409, Code::FunctionExists);
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
    post(vec![b' '; 7 << 20]).await.refused(413, Code::BodyTooLarge);
    post(b"{\"input\": ".to_vec()).await.refused(422, Code::BodyMalformed);
    post(b"{\"input\": \"\xff\"}".to_vec())
        .await
        .refused(422, Code::BodyMalformed);
    post(b"[]".to_vec()).await.refused(422, Code::BodyMalformed);
    machine
        .call("nothing", Value::Null)
        .await
        .refused(404, Code::FunctionNotFound);
    machine.get("/jobs/job_1").await.refused(404, Code::JobNotFound);
    machine.get("/nowhere").await.refused(404, Code::PathNotFound);
    machine
        .ask(Method::PATCH, "/functions", None)
        .await
        .refused(405, Code::MethodNotAllowed);
    machine
        .get("/functions?limt=1")
        .await
        .refused(422, Code::QueryMalformed);
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
    let said: Vec<_> = refused.iter().map(|answer| &answer.body).collect();
    assert_eq!(refused.len(), 3, "one runs, ten wait, three are refused: {said:?}");
    for answer in refused {
        answer.refused(429, Code::FunctionTooMany);
        assert!(answer.headers.contains_key("retry-after"));
    }
}

#[tokio::test]
async fn a_taken_port_a_taken_directory_and_a_foreign_one_are_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let (code, said) = refused_start(directory.path(), "127.0.0.1:0");
    assert_eq!(code, Some(2));
    assert!(
        said.contains(&format!("{}: another `piecework` uses", Code::DirectoryInUse)),
        "{said}"
    );
    let other = tempfile::tempdir().expect("a directory");
    let port = machine.url.strip_prefix("http://").expect("a URL");
    let (code, said) = refused_start(other.path(), port);
    assert_eq!(code, Some(2));
    assert!(
        said.starts_with(&format!("{}: cannot listen on", Code::ListenRefused)) && said.contains("--listen"),
        "{said}"
    );
    assert!(!other.path().join("store").exists(), "nothing was begun");
    let foreign = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(foreign.path().join("store")).expect("made");
    std::fs::write(foreign.path().join("store/holiday.txt"), "sun").expect("written");
    let (code, said) = refused_start(foreign.path(), "127.0.0.1:0");
    assert_eq!(code, Some(2));
    assert!(said.starts_with(Code::DirectoryForeign.as_str()), "{said}");
    assert!(
        foreign.path().join("store/holiday.txt").exists(),
        "nothing of anybody's is deleted"
    );
}
