//! Backups as docs/operating-a-ledger.md says: made while all runs, restored elsewhere, and nothing is paid twice.

use std::{collections::BTreeSet, fs, process::Command, time::Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    founding::commands_of,
    network::processes::{Devnet, WITHIN, piecework},
};

/// The guide's command with this beginning, for these directories.
fn guided(beginning: &str, replaced: &[(&str, &str)]) -> String {
    let all = commands_of("Back up and restore");
    let found = all.iter().find(|command| command.starts_with(beginning));
    let mut command = found.unwrap_or_else(|| panic!("{beginning} is not in {all:?}")).clone();
    for (from, to) in replaced {
        assert!(command.contains(from), "{command}");
        command = command.replace(from, to);
    }
    command
}

fn run(command: &str) {
    let program = env!("CARGO_BIN_EXE_piecework");
    let command = command.replacen("piecework ", &format!("{program} "), 1);
    let output = Command::new("sh").args(["-c", &command]).output().expect("it runs");
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn lane_jobs(network: &Devnet) -> u64 {
    let list = network.machine.get("/providers").await.ok();
    list["items"][0]["jobs_done"].as_u64().expect("a number")
}

/// The jobs that the ledger has paid.
async fn paid_jobs(network: &Devnet) -> BTreeSet<String> {
    let list = network
        .look("peer-1", "/ledger/jobs?account=operator&limit=1000")
        .await
        .expect("it answers");
    let items = list["items"].as_array().expect("a list").iter();
    let paid = items.filter(|job| job["paid"] == true);
    paid.map(|job| job["id"].as_str().expect("an id").to_owned()).collect()
}

async fn all(network: &Devnet) -> Vec<Value> {
    let mut accounts = Vec::new();
    for name in ["operator", "owner-1", "owner-2"] {
        accounts.push(network.machine.get(&format!("/accounts/{name}")).await.ok()["posted_ucr"].clone());
    }
    accounts
}

/// Until it answers calls again.
async fn ready(network: &Devnet) {
    let deadline = Instant::now() + WITHIN;
    loop {
        let answer = network.machine.request(Method::GET, "/readyz").send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        assert!(Instant::now() < deadline, "it is not ready");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn deposit(network: &Devnet, reference: &str) -> Value {
    let body = json!({"account": "owner-2", "amount_ucr": 5, "reference": reference});
    network.machine.ask(Method::POST, "/deposits", Some(body)).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_restored_has_its_functions_and_money_and_pays_nothing_twice() {
    let mut network = Devnet::start(4, 1).await;
    let mut jobs = Vec::new();
    for n in 0..5 {
        jobs.push(network.count(n).await);
    }
    deposit(&network, "before").await;
    let controller = network.directory("controller");
    let (data, backup) = (
        controller.display().to_string(),
        network.directory("backup").display().to_string(),
    );
    let command = guided("piecework controller backup", &[("/backup/monday", &backup)]);
    let copying = std::thread::spawn({
        let command = format!("{command} --data {data}");
        move || run(&command)
    });
    for n in 5..15 {
        jobs.push(network.count(n).await);
    }
    copying.join().expect("it is copied");
    // All of this the backup does not know.
    for n in 15..25 {
        jobs.push(network.count(n).await);
    }
    network.all_paid(&jobs).await;
    let (had, paid) = (all(&network).await, lane_jobs(&network).await);

    network.kill("controller").await;
    restore(&mut network, &backup);
    ready(&network).await;
    assert_eq!(all(&network).await, had, "nothing moves by a restore");
    assert_eq!(deposit(&network, "before").await["is_repeated"], true);
    // Its function is there, a job that it knows is paid once, and new ones are paid.
    let known = network.machine.paid(&jobs[0]).await;
    assert_eq!(known["paid"], true, "{known}");
    let mut new = Vec::new();
    for n in 0..5 {
        new.push(network.count(n).await);
    }
    network.all_paid(&new).await;
    // What the ledger counts is as many payments as there are jobs: a job that was paid twice would be one more. Some are
    // reference jobs of the operator's.
    let deadline = Instant::now() + WITHIN;
    loop {
        let (counted, listed) = (lane_jobs(&network).await, paid_jobs(&network).await);
        if listed.len() as u64 == counted && counted >= paid + 5 {
            assert!(jobs.iter().chain(&new).all(|job| listed.contains(job)), "{listed:?}");
            break;
        }
        assert!(Instant::now() < deadline, "{counted} payments of {} jobs", listed.len());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    network.agree().await;
}

/// By the commands of the guide, in place of the one that was killed.
fn restore(network: &mut Devnet, backup: &str) {
    let controller = network.directory("controller");
    let data = controller.display().to_string();
    fs::rename(&controller, network.directory("gone")).expect("moved");
    let restore = guided("piecework controller restore", &[("/backup/monday", backup)]);
    run(&format!("{restore} --data {data}"));
    run(&format!(
        "{} --data {data}",
        guided("piecework controller config check", &[])
    ));
    network.start_again("controller");
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_jobs_and_open_withdrawals_are_in_a_backup() {
    let mut network = Devnet::start(4, 1).await;
    let ada = network.machine.person("ada", 1_000).await;
    let body = json!({"amount_ucr": 400, "pay_to": "DE00"});
    let asked = network
        .machine
        .ask_as(Some(&ada), Method::POST, "/withdrawals", Some(body));
    let withdrawal = asked.await.ok();
    network.kill("provider-1").await;
    let queued = network.machine.request(Method::POST, "/execute/next");
    let queued = queued
        .header("prefer", "respond-async")
        .json(&json!({"input": {"n": 1}}));
    let job = network.machine.send(queued).await.ok()["job_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let (data, backup) = (
        network.directory("controller"),
        network.directory("backup").display().to_string(),
    );
    let command = guided("piecework controller backup", &[("/backup/monday", &backup)]);
    run(&format!("{command} --data {}", data.display()));

    network.kill("controller").await;
    restore(&mut network, &backup);
    network.start_again("provider-1");
    ready(&network).await;
    network.all_paid(std::slice::from_ref(&job)).await;
    let shown = network.machine.get(&format!("/jobs/{job}")).await.ok();
    assert_eq!(
        (&shown["state"], &shown["output"]),
        (&json!("succeeded"), &json!(2)),
        "{shown}"
    );
    let id = withdrawal["id"].as_str().expect("an id");
    let decline = format!("/withdrawals/{id}/decline");
    for _ in 0..2 {
        let declined = network
            .machine
            .ask(Method::POST, &decline, Some(json!({"reason": "moved"})))
            .await;
        assert_eq!(declined.ok()["state"], "declined");
    }
    assert_eq!(network.machine.posted("ada").await, 1_000);
}

#[test]
fn what_is_no_controller_is_not_copied_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let refused = |arguments: &[&str], due: &str| {
        let output = piecework(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(due), "{arguments:?}: {said}");
    };
    for name in ["up/peer", "up/store", "one/store", "full/x"] {
        fs::create_dir_all(at(name)).expect("made");
    }
    // A ledger that is used cannot be copied.
    let (new, full) = (at("new"), at("full"));
    refused(
        &["controller", "backup", &new, "--data", &at("up")],
        "stop `piecework up`",
    );
    refused(
        &["controller", "backup", &new, "--data", &at("none")],
        "not the directory of a controller",
    );
    refused(&["controller", "backup", &full, "--data", &at("one")], "is not empty");
    refused(&["controller", "restore", &full, "--data", &new], "not a whole backup");
    let label = r#"{"version": 9, "program": "9.9", "made_at": "2026-01-01T00:00:00Z"}"#;
    fs::write(at("full/backup.json"), label).expect("written");
    refused(&["controller", "restore", &full, "--data", &new], "newer program (9.9)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_comes_back_from_its_four_files() {
    let mut network = Devnet::start(4, 1).await;
    let (data, backup) = (network.directory("peer-2"), network.directory("backup"));
    fs::create_dir(&backup).expect("made");
    let (data, backup) = (data.display().to_string(), format!("{}/", backup.display()));
    let places = [
        ("~/.local/share/piecework-peer", data.as_str()),
        ("/backup/peer/", backup.as_str()),
    ];
    run(&guided("cd ", &places));
    network.kill("peer-2").await;
    fs::rename(&data, network.directory("gone")).expect("moved");
    network.count(1).await;
    run(&guided("mkdir ", &places));
    let names: Vec<_> = fs::read_dir(&data)
        .expect("a folder")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    network.start_again("peer-2");
    let head = network.height("peer-1").await.expect("it answers");
    network.reach("peer-2", head).await;
    network.agree().await;
}
