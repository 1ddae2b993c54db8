//! A disk that somebody else fills to the last byte while the platform works: it lives, says so, loses nothing, and goes on.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    machine::{Machine, SETTLED_WITHIN},
    providers::{payments_for, until},
    small_disk::SmallDisk,
};

const CODE: &str = "export default (event) => event;\n";

/// Calls without end, each answered or refused; what they were told is kept.
struct Load {
    over: Arc<AtomicBool>,
    told: Arc<Mutex<Vec<String>>>,
    caller: tokio::task::JoinHandle<()>,
}

/// What a caller may hear while a disk is full. `server.disk_full`: it filled while the job was on its way.
const SAID: [Code; 3] = [Code::DiskLow, Code::ServerDiskFull, Code::LedgerUnavailable];

impl Load {
    fn start(machine: &Machine) -> Self {
        let (over, told) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (stop, kept) = (over.clone(), told.clone());
        let request = machine
            .request(Method::POST, "/execute/f")
            .json(&json!({"input": "x".repeat(10_000)}));
        let caller = tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let request = request.try_clone().expect("its body is in memory");
                let response = request.send().await.expect("the process lives and answers");
                let is_done = response.status().is_success();
                let body: Value = response.json().await.expect("JSON");
                match is_done {
                    true => kept
                        .lock()
                        .expect("no panics")
                        .push(body["job_id"].as_str().expect("an id").to_owned()),
                    false => {
                        let code = body["error"]["code"].as_str().and_then(Code::parse);
                        assert!(code.is_some_and(|code| SAID.contains(&code)), "{body}");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
        });
        Self { over, told, caller }
    }

    /// The jobs that were answered.
    async fn end(self) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        self.caller.await.expect("every answer was one that may be given");
        std::mem::take(&mut *self.told.lock().expect("no panics"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filled_to_the_last_byte_under_load_the_process_lives_says_so_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount("96m") else {
        return;
    };
    let data = disk.path().join("data");
    fs::create_dir(&data).expect("made");
    let machine = Machine::start(&data);
    machine.deploy("f", "javascript", CODE).await;
    let before = machine.call("f", json!("before")).await.ok();
    machine.paid(before["job_id"].as_str().expect("an id")).await;
    let pid = machine.pid();
    let load = Load::start(&machine);
    disk.fill();
    let refused = until("new work is refused", async || {
        let answer = machine.call("f", json!(1)).await;
        (answer.code() == Some(Code::DiskLow)).then_some(answer)
    })
    .await;
    refused.refused(503, Code::DiskLow);
    assert!(refused.headers.contains_key("retry-after"), "{:?}", refused.headers);
    for (method, path) in [
        (Method::POST, "/functions"),
        (Method::POST, "/tokens"),
        (Method::GET, "/fn/operator/f/"),
    ] {
        machine
            .ask(method, path, Some(json!({})))
            .await
            .refused(503, Code::DiskLow);
    }
    let queued = machine
        .request(Method::POST, "/execute/f")
        .header("prefer", "respond-async");
    machine
        .send(queued.json(&json!({"input": 1})))
        .await
        .refused(503, Code::DiskLow);
    let health = machine.get("/healthz").await.ok();
    assert_eq!(health["disk"]["level"], "reserved", "{health}");
    let ready = machine.get("/readyz").await;
    assert_eq!(
        (ready.status.as_u16(), &ready.body["status"]),
        (503, &json!("disk_low"))
    );
    let metrics = machine.get("/metrics").await;
    assert!(
        metrics
            .body
            .as_str()
            .is_some_and(|text| text.contains("piecework_disk_level 2"))
    );
    assert!(
        machine.get("/jobs").await.status.is_success(),
        "what is there can be read"
    );
    // With the disk as full as before: the reserve is for the ledger.
    let mut told = vec![before["job_id"].as_str().expect("an id").to_owned()];
    told.extend(load.end().await);
    for job in &told {
        assert_eq!(machine.paid(job).await["state"], "succeeded", "settled on the reserve");
    }
    disk.empty();
    let after = until("calls work again", async || {
        let answer = machine.call("f", json!("after")).await;
        answer.status.is_success().then_some(answer.body)
    })
    .await;
    told.push(after["job_id"].as_str().expect("an id").to_owned());
    for job in &told {
        machine.paid(job).await;
        assert_eq!(payments_for(&machine, job).await.len(), 1, "{job} is paid once");
    }
    assert_eq!(machine.pid(), pid, "one process all the while");
    let ready = machine.get("/readyz").await;
    assert!(ready.status.is_success(), "{}", ready.body);
    assert!(machine.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_job_waits_for_room_and_runs_when_there_is_some() {
    let Some(disk) = SmallDisk::mount("96m") else {
        return;
    };
    let data = disk.path().join("data");
    let machine = Machine::start(&data);
    machine.deploy("f", "javascript", CODE).await;
    machine.call("f", json!(0)).await.ok();
    let many: Vec<_> = (0..20)
        .map(|number| {
            let request = machine
                .request(Method::POST, "/execute/f")
                .header("prefer", "respond-async");
            request.json(&json!({ "input": number }))
        })
        .collect();
    let mut jobs = Vec::new();
    for request in many {
        let answer = machine.send(request).await.ok();
        jobs.push(answer["job_id"].as_str().expect("an id").to_owned());
    }
    disk.fill();
    let deadline = Instant::now() + SETTLED_WITHIN;
    while machine.call("f", json!(1)).await.code() != Some(Code::DiskLow) {
        assert!(Instant::now() < deadline, "it never notices");
    }
    disk.empty();
    for job in &jobs {
        assert_eq!(machine.paid(job).await["state"], "succeeded");
    }
}
