//! A provider whose disk is small, or full: what it offers, what it says, and that it loses nothing.

use std::{fs, path::Path, time::Instant};

use piecework_model::Code;
use serde_json::{Value, json};

use crate::{
    computer::{Computer, invite, provide, provider},
    machine::{Answer, Machine, SETTLED_WITHIN, piecework},
    providers::{BUSY, ECHO, accepted, alone, payments_for, running_on, until},
    small_disk::SmallDisk,
};

const MIB: u64 = 1 << 20;

async fn offered(machine: &Machine, name: &str) -> u64 {
    let offers = machine.get("/ledger/offers").await.ok();
    let mut items = offers["items"].as_array().expect("a list").iter();
    let offer = items.find(|offer| offer["provider"] == name);
    offer.expect("it stands")["disk_bytes"].as_u64().expect("bytes")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_says_how_much_disk_there_is() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let code = invite(&machine).await;
    let laptop = Computer::start(
        away.path(),
        &machine.url,
        "laptop",
        &["--invite", &code, "--disk", "256m"],
    );
    assert_eq!(offered(&machine, "laptop").await, 256 * MIB);
    assert!(laptop.stop());
    let _laptop = Computer::start(away.path(), &machine.url, "laptop", &["--disk", "128m"]);
    assert_eq!(offered(&machine, "laptop").await, 128 * MIB);
    let Some(disk) = SmallDisk::mount("32m") else {
        return;
    };
    let code = invite(&machine).await;
    let data = disk.path().join("data");
    let _tiny = Computer::start(&data, &machine.url, "tiny", &["--invite", &code]);
    let room = offered(&machine, "tiny").await;
    assert!((16 * MIB..=32 * MIB).contains(&room), "{room}");
}

fn refused_start(directory: &Path, machine: &Machine, more: &[&str]) {
    let mut command = provide(directory, &machine.url, "tiny", more);
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let last = said
        .lines()
        .find(|line| line.starts_with(Code::ProviderDiskFull.as_str()));
    assert!(last.is_some_and(|line| line.len() < 300), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// While its disk is full a provider is passed over, or refuses what was on its way to it.
#[track_caller]
fn full(answer: &Answer) {
    assert_eq!(answer.status.as_u16(), 503, "{}", answer.body);
    assert!(
        matches!(answer.code(), Some(Code::ProviderDiskFull | Code::ProviderNone)),
        "{}",
        answer.body
    );
}

async fn state(machine: &Machine, name: &str) -> String {
    provider(machine, name).await["state"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn why_idle(data: &Path) -> String {
    let mut command = piecework();
    let output = command.args(["provider", "why-idle", "--data"]).arg(data).output();
    String::from_utf8_lossy(&output.expect("it runs").stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_with_a_full_disk_says_so_ends_what_it_took_and_recovers() {
    let Some(disk) = SmallDisk::mount("32m") else {
        return;
    };
    let home = tempfile::tempdir().expect("a directory");
    let machine = alone(home.path());
    let (code, data) = (invite(&machine).await, disk.path().join("data"));
    let mut tiny = Computer::start(&data, &machine.url, "tiny", &["--invite", &code]);
    machine.deploy("echo", "javascript", ECHO).await;
    machine.deploy("busy", "javascript", BUSY).await;
    let mut told = vec![accepted(&machine, "busy", json!(1_500)).await];
    running_on(&machine, &told[0]).await;
    disk.fill();
    // Its journal has room to the end of a page.
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let answer = machine.call("echo", json!(told.len())).await;
        if !answer.status.is_success() {
            full(&answer);
            break;
        }
        told.push(answer.body["job_id"].as_str().expect("an id").to_owned());
        assert!(Instant::now() < deadline, "it never notices: {}", told.len());
    }
    until("it says that it takes no jobs", async || {
        (state(&machine, "tiny").await == "paused").then_some(())
    })
    .await;
    // Code that it has not unpacked yet has no place there either.
    let large = format!("// {}\n{ECHO}", "x".repeat(100_000));
    let refused = machine.deploy_with("large", "javascript", &large, json!({})).await;
    full(&refused);
    let why = why_idle(&data);
    assert!(why.contains("disk is nearly full"), "{why}");
    for job in &told {
        let view = machine.paid(job).await;
        assert_eq!(
            (&view["state"], &view["provider"]),
            (&json!("succeeded"), &json!("tiny"))
        );
    }
    // There is room: it goes on by itself.
    disk.empty();
    until("it takes jobs again", async || {
        let answer = machine.call("large", Value::Null).await;
        let deployed = match answer.code() {
            Some(Code::FunctionNotFound) => {
                machine
                    .deploy_with("large", "javascript", &large, json!({}))
                    .await
                    .status
            }
            _ => answer.status,
        };
        (answer.status.is_success() && deployed.is_success()).then_some(())
    })
    .await;
    disk.fill();
    tiny.kill();
    // A start would make room by throwing away what it can unpack again.
    fs::remove_dir_all(data.join("unpacked")).expect("removed");
    // And by giving up what it holds.
    let _ = fs::remove_file(data.join("reserve"));
    disk.fill();
    refused_start(&data, &machine, &[]);
    let code = invite(&machine).await;
    refused_start(&disk.path().join("new"), &machine, &["--invite", &code]);

    disk.empty();
    let _tiny = Computer::start(&data, &machine.url, "tiny", &[]);
    let after = until("it takes jobs again", async || {
        let answer = machine.call("large", Value::Null).await;
        answer.status.is_success().then_some(answer.body)
    })
    .await;
    told.push(after["job_id"].as_str().expect("an id").to_owned());
    for job in &told {
        machine.paid(job).await;
        assert_eq!(payments_for(&machine, job).await.len(), 1, "{job} is paid once");
    }
}
