//! The container sandboxes as users meet them: called over HTTP and paid, or refused with a reason.

use piecework_model::Code;
use serde_json::json;

use crate::{
    dockerd::Dockerd,
    machine::{Machine, has, skipped},
};

const PYTHON: &str = "import os\ndef handler(event, context):\n    print('inside')\n    return {'hello': event, 'pid': os.getpid(), 'kernel': os.uname().release}\n";
const JAVASCRIPT: &str = "import os from 'node:os';\nexport default (event) => { console.log('inside'); return {hello: event, pid: process.pid, kernel: os.release()}; };\n";

async fn is_called_and_paid(machine: &Machine, sandbox: &str) -> Vec<String> {
    let mut kernels = Vec::new();
    for (language, code) in [("python", PYTHON), ("javascript", JAVASCRIPT)] {
        let name = format!("{sandbox}-{language}");
        let more = json!({"sandbox": sandbox, "timeout_ms": 60_000});
        let function = machine.deploy_with(&name, language, code, more).await.ok();
        assert_eq!(function["sandbox"], sandbox, "{function}");
        for round in 0..2 {
            let answer = machine.call(&name, json!(round)).await.ok();
            let output = &answer["output"];
            assert_eq!(
                (&output["hello"], &output["pid"]),
                (&json!(round), &json!(1)),
                "{answer}"
            );
            let job = machine.paid(answer["job_id"].as_str().expect("an id")).await;
            assert_eq!(
                (&job["state"], &job["sandbox"]),
                (&json!("succeeded"), &json!(sandbox)),
                "{job}"
            );
            assert!(job["price_ucr"].as_i64().is_some_and(|price| price > 0), "{job}");
            kernels.push(output["kernel"].as_str().expect("a text").to_owned());
        }
    }
    kernels
}

fn hosts_kernel() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    text.trim().to_owned()
}

#[tokio::test]
async fn functions_run_in_containers_of_crun_and_of_gvisor_and_are_paid() {
    if !has("crun") || !has("runsc") {
        return skipped("crun or runsc is not installed");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let kernels = is_called_and_paid(&machine, "oci").await;
    assert!(kernels.iter().all(|kernel| *kernel == hosts_kernel()), "{kernels:?}");
    let kernels = is_called_and_paid(&machine, "gvisor").await;
    assert!(kernels.iter().all(|kernel| *kernel != hosts_kernel()), "{kernels:?}");
    // `auto` takes none of them.
    let function = machine
        .deploy("auto", "python", "def handler(event, context):\n    return 1\n")
        .await;
    assert_eq!(function["sandbox"], "wasm");
    assert!(machine.stop(), "it stops cleanly");
}

#[tokio::test]
async fn functions_run_in_containers_of_docker_and_are_paid() {
    let Some(daemon) = Dockerd::start() else {
        return skipped("dockerd is not installed, or this is not root");
    };
    let directory = tempfile::tempdir().expect("a directory");
    let socket = format!("unix://{}", daemon.socket().display());
    let machine = Machine::start_in(directory.path(), &[("DOCKER_HOST", &socket)]);
    is_called_and_paid(&machine, "docker").await;
    assert!(machine.stop(), "it stops cleanly");
}

#[tokio::test]
async fn a_sandbox_that_is_not_here_is_refused_with_its_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start_in(directory.path(), &[("DOCKER_HOST", "unix:///nonexistent/docker.sock")]);
    for (sandbox, reason) in [
        ("microvm", "this build contains no microVM"),
        ("docker", "no Docker daemon"),
    ] {
        let more = json!({"sandbox": sandbox});
        let refused = machine.deploy_with("f", "python", PYTHON, more).await;
        refused.refused(409, Code::SandboxUnavailable);
        let said = refused.body["error"]["message"].as_str().expect("a sentence");
        assert!(said.contains(reason), "{said}");
    }
}

#[tokio::test]
async fn a_function_that_needs_the_network_does_not_load_in_a_container() {
    if !has("crun") {
        return skipped("crun is not installed");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let more = json!({"sandbox": "oci", "egress": ["example.com:443"]});
    let refused = machine.deploy_with("f", "python", PYTHON, more).await;
    refused.refused(409, Code::SandboxUnsupported);
    let said = refused.body["error"]["message"].as_str().expect("a sentence");
    assert!(said.contains("gives functions no network"), "{said}");
}

/// Of no other test: containers of others come and go beside this one.
const MEMORY_MIB: u64 = 92;

/// Processes of containers whose function has that memory, by the limit of Node's heap that is made of it.
fn runners() -> usize {
    let heap = format!("--max-old-space-size={}\0", MEMORY_MIB * 3 / 4).into_bytes();
    let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let is_ours = |line: &Vec<u8>| {
        line.ends_with(b"--container\0") && line.windows(heap.len()).any(|window| window == heap.as_slice())
    };
    lines.filter(is_ours).count()
}

#[tokio::test]
async fn nothing_of_a_container_outlives_an_agent_that_was_killed() {
    if !has("crun") {
        return skipped("crun is not installed");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let scratch = tempfile::tempdir().expect("a directory");
    let place = scratch.path().display().to_string();
    let mut machine = Machine::start_in(directory.path(), &[("TMPDIR", &place)]);
    let more = json!({"sandbox": "oci", "memory_limit_mb": MEMORY_MIB});
    machine.deploy_with("f", "javascript", JAVASCRIPT, more).await.ok();
    machine.call("f", json!(1)).await.ok();
    assert!(runners() > 0, "one waits for the next call");
    machine.kill();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while runners() > 0 {
        assert!(std::time::Instant::now() < deadline, "a container is left");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let stages = || {
        let names = std::fs::read_dir(scratch.path()).expect("a directory").flatten();
        let ours = names.filter(|entry| entry.file_name().to_string_lossy().starts_with("piecework-oci-"));
        ours.filter(|entry| std::fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_some()))
            .count()
    };
    assert_eq!(stages(), 0, "bundles and states went with their keeper");
}
