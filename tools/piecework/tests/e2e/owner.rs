//! A computer whose owner comes back: jobs stand still, go on, or go elsewhere.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    computer::{Computer, invite, provider},
    machine::{Machine, skipped},
    providers::{accepted, alone, payments_for, running_on, until},
};

/// Busy for as many milliseconds as it is told.
const BUSY: &str = "export default (ms) => { const end = Date.now() + ms; while (Date.now() < end); return ms; };\n";

/// The owner's session: a control group in which somebody may work.
struct Session {
    group: PathBuf,
    work: Option<Child>,
}

impl Session {
    /// None without root or control groups.
    fn open() -> io::Result<Self> {
        let roots = ["/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let root = roots.iter().map(Path::new).find(|root| {
            let there = ["cpuacct.usage", "cpu.stat"]
                .iter()
                .any(|file| root.join(file).is_file());
            there && root.join("cgroup.procs").is_file()
        });
        let root = root.ok_or(io::ErrorKind::NotFound)?;
        let group = root.join(format!("piecework-session-{}", std::process::id()));
        fs::create_dir(&group)?;
        Ok(Self { group, work: None })
    }

    /// One core of work, until [`Self::rest`].
    fn work(&mut self) {
        let procs = self.group.join("cgroup.procs");
        let script = format!("echo $$ > {} && while :; do :; done", procs.display());
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null());
        self.work = Some(command.spawn().expect("a shell"));
    }

    fn rest(&mut self) {
        if let Some(mut work) = self.work.take() {
            let _ = work.kill();
            let _ = work.wait();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.rest();
        let _ = fs::remove_dir(&self.group);
    }
}

/// What the computer's own agent answers on the command line.
fn ask(directory: &Path, words: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_piecework"));
    command
        .arg("--json")
        .arg("provider")
        .args(words)
        .arg("--data")
        .arg(directory);
    let output = command.output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {error}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

async fn is_paused(directory: &Path, paused: bool) {
    let directory = directory.to_owned();
    until("the agent sees its owner", async || {
        (ask(&directory, &["status"])["paused"] == paused).then_some(())
    })
    .await;
}

async fn state_is(machine: &Machine, name: &str, state: &str) {
    until(&format!("{name} is {state}"), async || {
        (provider(machine, name).await["state"] == state).then_some(())
    })
    .await;
}

/// User and system time of a process, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields = stat
        .rsplit_once(')')
        .expect("a name")
        .1
        .split_whitespace()
        .skip(11)
        .take(2);
    fields.map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_stands_still_while_the_owner_works_and_is_paid_once() {
    let mut session = match Session::open() {
        Ok(session) => session,
        Err(error) => return skipped(&format!("no control group can be made: {error}")),
    };
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let code = invite(&machine).await;
    let group = session.group.display().to_string();
    let rules = ["--invite", &code, "--when-idle", "--owner-group", &group];
    let desktop = Computer::start(away.path(), &machine.url, "desktop", &rules);
    // In wasm, whose work is that of the agent's own process.
    machine
        .deploy_with(
            "busy",
            "javascript",
            BUSY,
            json!({"sandbox": "wasm", "timeout_ms": 20_000}),
        )
        .await
        .ok();
    let job = accepted(&machine, "busy", json!(4_000)).await;
    running_on(&machine, &job).await;
    let begun = Instant::now();
    session.work();
    is_paused(away.path(), true).await;
    println!("others' work was seen after {:?}", begun.elapsed());
    let why = ask(away.path(), &["why-idle"]).to_string();
    assert!(why.contains("other programs use"), "{why}");
    let (before, looked) = (ticks(desktop.pid()), Instant::now());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (used_ms, passed_ms) = ((ticks(desktop.pid()) - before) * 10, looked.elapsed().as_millis());
    assert!(
        u128::from(used_ms) < passed_ms / 3,
        "{used_ms} ms of work in {passed_ms} ms: it did not stand still"
    );
    state_is(&machine, "desktop", "paused").await;
    session.rest();
    is_paused(away.path(), false).await;
    let view = machine.paid(&job).await;
    assert_eq!(view["state"], "succeeded", "{view}");
    assert_eq!(payments_for(&machine, &job).await.len(), 1);
    assert!(desktop.stop(), "it ends cleanly");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_stands_still_for_long_goes_elsewhere_and_is_paid_once() {
    let directories: Vec<_> = (0..3).map(|_| tempfile::tempdir().expect("a directory")).collect();
    let machine = alone(directories[0].path());
    let code = invite(&machine).await;
    let lent = Computer::start(directories[1].path(), &machine.url, "lent", &["--invite", &code]);
    machine
        .deploy_with("busy", "javascript", BUSY, json!({"timeout_ms": 20_000}))
        .await
        .ok();
    let job = accepted(&machine, "busy", json!(3_000)).await;
    let first = running_on(&machine, &job).await;
    let said = ask(directories[1].path(), &["pause"]);
    assert_eq!(said["paused"], true, "{said}");
    state_is(&machine, "lent", "paused").await;
    let code = invite(&machine).await;
    let spare = Computer::start(directories[2].path(), &machine.url, "spare", &["--invite", &code]);
    let view = machine.paid(&job).await;
    assert_eq!(view["state"], "succeeded", "{view}");
    assert_eq!((first.as_str(), &view["provider"]), ("lent", &json!("spare")), "{view}");
    let reasons = view["passed_over"].to_string();
    assert!(reasons.contains("paused"), "{reasons}");
    assert_eq!(payments_for(&machine, &job).await.len(), 1);
    drop((lent, spare));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_set_while_it_runs_and_callers_hear_why_nobody_takes_a_job() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let code = invite(&machine).await;
    let night = Computer::start(away.path(), &machine.url, "night", &["--invite", &code]);
    machine
        .deploy("echo", "javascript", "export default (event) => event;\n")
        .await;
    machine.call("echo", json!(1)).await.ok();
    // Two hours that are not now.
    let hour = jiff::Zoned::now().hour();
    let hours = format!("{:02}:00-{:02}:00", (hour + 10) % 24, (hour + 12) % 24);
    let rules = ask(away.path(), &["limits", "--hours", &hours, "--when-idle", "false"]);
    assert_eq!(rules["hours"], hours.as_str(), "{rules}");
    let why = ask(away.path(), &["why-idle"]).to_string();
    assert!(why.contains("it is not between"), "{why}");
    state_is(&machine, "night", "paused").await;
    let answer = machine.call("echo", json!(2)).await;
    // Whoever deploys hears the same, not that the sandbox does not work.
    let body = json!({"name": "new", "language": "javascript", "code": "export default () => 1;\n", "sandbox": "wasm"});
    let deployed = machine.ask(Method::POST, "/functions", Some(body)).await;
    for answer in [answer, deployed] {
        answer.refused(503, Code::ProviderNone);
        let details = answer.body["error"]["details"].to_string();
        assert!(details.contains("paused"), "{}", answer.body);
    }
    let rules = ask(away.path(), &["limits", "--hours", "any"]);
    assert_eq!(rules["hours"], Value::Null, "{rules}");
    state_is(&machine, "night", "ready").await;
    machine.call("echo", json!(3)).await.ok();
    drop(night);
}
