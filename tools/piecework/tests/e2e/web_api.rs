//! The common web API in the jail: Node's own, name by name. In wasm the same table is compared in `ports/sandbox-wasm`.

use std::process::Command;

use serde_json::{Value, json};

use crate::machine::{Machine, has, skipped};

#[tokio::test(flavor = "multi_thread")]
async fn the_jail_has_the_web_api_of_node() {
    if !has("node") {
        return skipped("no node");
    }
    let table = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../runtimes/wasm-javascript/likeness/web-api.mjs"
    );
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("main.mjs");
    let node = |arguments: &[&std::ffi::OsStr]| {
        Command::new("node")
            .arg(table)
            .args(arguments)
            .output()
            .expect("it runs")
    };
    assert!(node(&[program.as_os_str()]).status.success());
    let lines = String::from_utf8(node(&[]).stdout).expect("text");
    let code = std::fs::read_to_string(program).expect("a program");
    let machine = Machine::start(&directory.path().join("data"));
    machine
        .deploy_with("api", "javascript", &code, json!({"sandbox": "jail"}))
        .await
        .ok();
    let mut count = 0;
    for line in lines.lines() {
        let (expression, due): (String, String) = serde_json::from_str(line).expect("an expression and its value");
        let called = machine.call("api", Value::from(expression.as_str())).await.ok();
        assert_eq!(called["output"], due, "{expression}");
        count += 1;
    }
    assert!(count > 110, "{count}");
}
