//! What a run may take of its machine is set per function, and whoever meets a limit is told which one it was.

use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};

use crate::machine::Machine;

const PYTHON: &str = r#"
import os, threading, time

def handler(event, context):
    held = []
    if event == "disk":
        with open("/tmp/full", "wb", buffering=0) as file:
            while True:
                file.write(b"x" * (1 << 20))
    while event == "files":
        held.append(open("/tmp/one", "w"))
    while event == "threads":
        held.append(threading.Thread(target=time.sleep, args=(60,), daemon=True))
        held[-1].start()
    while event == "processes":
        if os.fork() == 0:
            time.sleep(60)
    return event
"#;

const JAVASCRIPT: &str = r#"
import fs from "node:fs";
import { spawn } from "node:child_process";

export default async (event) => {
    const file = event === "disk" && fs.openSync("/tmp/full", "w");
    while (event === "disk") fs.writeSync(file, Buffer.alloc(1 << 20, 7));
    while (event === "files") fs.openSync("/tmp/one", "w");
    while (event === "processes") await new Promise((done, failed) => {
        const child = spawn("/bin/sleep", ["60"], { stdio: "ignore" });
        child.on("error", failed);
        child.on("spawn", done);
    });
    return event;
};
"#;

#[tokio::test]
async fn a_limit_that_a_run_meets_is_named_and_its_neighbour_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    for (language, code) in [("python", PYTHON), ("javascript", JAVASCRIPT)] {
        let limits = json!({"sandbox": "jail", "process_limit": 8, "disk_limit_mb": 4, "timeout_ms": 10_000});
        let made = machine.deploy_with(language, language, code, limits).await.ok();
        assert_eq!((&made["process_limit"], &made["disk_limit_mb"]), (&json!(8), &json!(4)));
        let all = [
            ("disk", Code::FunctionDiskFull),
            ("files", Code::FunctionTooManyFiles),
            ("processes", Code::FunctionTooManyProcesses),
            ("threads", Code::FunctionTooManyProcesses),
        ];
        for (event, code) in all {
            if (language, event) == ("javascript", "threads") {
                continue;
            }
            let met = machine.call(language, json!(event)).await;
            met.refused(502, code);
            let details = &met.body["error"]["details"];
            assert!(details["type"].is_string() && details["stack"].is_string(), "{details}");
            // Not by the instance that is full.
            let calm = machine.call(language, json!("calm")).await.ok();
            assert_eq!(
                (&calm["output"], &calm["cold"]),
                (&json!("calm"), &json!(true)),
                "after {event}"
            );
        }
    }
}

#[tokio::test]
async fn limits_out_of_range_are_refused_and_those_in_range_are_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let code = "def handler(event, context):\n    return event\n";
    for (limits, refused) in [
        (json!({"process_limit": 0}), Code::FunctionBadProcesses),
        (json!({"process_limit": 257}), Code::FunctionBadProcesses),
        (json!({"disk_limit_mb": 0}), Code::FunctionBadDisk),
        (json!({"disk_limit_mb": 1_025}), Code::FunctionBadDisk),
    ] {
        machine
            .deploy_with("f", "python", code, limits)
            .await
            .refused(422, refused);
    }
    machine
        .deploy_with(
            "f",
            "python",
            code,
            json!({"process_limit": 64, "disk_limit_mb": 1_024}),
        )
        .await
        .ok();
    // A new version keeps what is not said again.
    let body = json!({"code": "def handler(event, context):\n    return 2\n"});
    let function = machine.ask(Method::PUT, "/functions/f", Some(body)).await.ok();
    assert_eq!(
        (
            &function["version"],
            &function["process_limit"],
            &function["disk_limit_mb"]
        ),
        (&json!(2), &json!(64), &json!(1_024))
    );
    assert_eq!(machine.call("f", Value::Null).await.ok()["output"], 2);
}
