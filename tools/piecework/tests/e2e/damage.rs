//! A data directory that is damaged, incomplete or somebody else's, and a disk that is full.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    machine::{Machine, SETTLED_WITHIN, piecework, refused_start},
    small_disk::SmallDisk,
};
use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};

const CODE: &str = "export default (event) => event;\n";

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "not copied");
}

fn flip_a_byte_of_the_newest_block(root: &Path) {
    let path = root.join("peer/ledger/chain/blocks-value/0000000000000000");
    let mut bytes = fs::read(&path).expect("blocks");
    let last = bytes.iter().rposition(|byte| *byte != 0).expect("a block");
    bytes[last - 20] ^= 1;
    fs::write(&path, bytes).expect("written");
}

#[tokio::test]
async fn half_a_directory_and_a_damaged_one_are_refused_by_name_and_not_begun_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let whole = directory.path().join("whole");
    fs::create_dir(&whole).expect("made");
    let machine = Machine::start(&whole);
    machine.deploy("f", "javascript", CODE).await;
    let called = machine.call("f", json!(1)).await.ok();
    machine.paid(called["job_id"].as_str().expect("an id")).await;
    assert!(machine.stop());

    let remove = |path: &'static str| move |root: &Path| fs::remove_file(root.join(path)).expect("removed");
    let remove_all = |path: &'static str| move |root: &Path| fs::remove_dir_all(root.join(path)).expect("removed");
    let write =
        |path: &'static str, text: &'static [u8]| move |root: &Path| fs::write(root.join(path), text).expect("written");
    type Damage<'a> = Box<dyn Fn(&Path) + 'a>;
    let cases: Vec<(Damage, &str)> = vec![
        (Box::new(remove_all("keys")), "operator.key is missing"),
        (Box::new(write("keys/operator.key", b"zz")), "operator.key is not a key"),
        (
            Box::new(remove_all("peer")),
            "ledger.other_network: cannot start the controller: the store belongs to another ledger",
        ),
        (Box::new(remove("peer/peer.key")), "peer.key"),
        (
            Box::new(write("peer/genesis.json", b"{")),
            "genesis.json\" is not a genesis file",
        ),
        (Box::new(remove_all("peer/ledger/chain")), "its data is gone"),
        (
            Box::new(flip_a_byte_of_the_newest_block),
            ": corrupt or gone, as is all up to the last",
        ),
        (Box::new(remove("store/master.key")), "master.key is missing"),
        (
            Box::new(write("store/master.key", &[7; 32])),
            "the master key does not match",
        ),
        (Box::new(write("store/master.key", b"short")), "is not 32 bytes long"),
        (Box::new(remove("store/store.sqlite")), "store.sqlite is missing"),
        (
            Box::new(write("store/store.sqlite", &[7; 8_192])),
            "the database is damaged",
        ),
        (
            Box::new(write("store/VERSION", b"piecework store 99\n")),
            "run the newer program",
        ),
        (Box::new(remove("store/VERSION")), "not from a Piecework store"),
        (
            Box::new(|root: &Path| {
                fs::remove_dir_all(root.join("blobs")).expect("removed");
                fs::write(root.join("blobs"), "").expect("written");
            }),
            "blobs",
        ),
    ];
    for (damage, sentence) in cases {
        let damaged = directory.path().join("damaged");
        copy(&whole, &damaged);
        damage(&damaged);
        let (code, said) = refused_start(&damaged, "127.0.0.1:0");
        assert_eq!(code, Some(2), "{sentence}: {said}");
        assert!(
            said.contains(sentence) && !said.contains("panicked"),
            "{sentence}: {said}"
        );
        let said = said.lines().find(|line| line.contains(sentence)).unwrap_or_default();
        let code = said.split(": ").next().unwrap_or_default();
        assert!(
            code.split_once('.').is_some_and(|_| !code.contains(' ')),
            "no code first: {said}"
        );
        fs::remove_dir_all(&damaged).expect("removed");
    }
    let machine = Machine::start(&whole);
    assert_eq!(machine.call("f", json!(2)).await.ok()["output"], 2);
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

#[tokio::test]
async fn a_rotten_bundle_is_not_run_and_deploying_it_again_heals_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    machine.deploy("rotten", "javascript", CODE).await;
    let bundles = files(&directory.path().join("blobs"));
    machine
        .deploy("sound", "javascript", "export default () => 'sound';\n")
        .await;
    assert!(machine.stop());
    for bundle in bundles {
        let mut bytes = fs::read(&bundle).expect("a bundle");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&bundle, bytes).expect("written");
    }
    let machine = Machine::start(directory.path());
    machine
        .call("rotten", Value::Null)
        .await
        .refused(500, Code::SandboxFailed);
    assert_eq!(machine.call("sound", Value::Null).await.ok()["output"], "sound");
    let again = json!({"code": CODE});
    machine.ask(Method::PUT, "/functions/rotten", Some(again)).await.ok();
    assert_eq!(machine.call("rotten", json!(1)).await.ok()["output"], 1);
}

#[tokio::test]
async fn a_full_disk_is_said_to_callers_and_loses_nothing_that_was_told() {
    let Some(disk) = SmallDisk::mount("64m") else {
        return;
    };
    let data = disk.path().join("data");
    fs::create_dir(&data).expect("made");
    let mut machine = Machine::start(&data);
    machine.deploy("f", "javascript", CODE).await;
    let before = machine.call("f", json!("before")).await.ok();
    machine.paid(before["job_id"].as_str().expect("an id")).await;
    disk.fill();
    let mut told = Vec::new();
    let large = "x".repeat(10_000);
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        assert!(Instant::now() < deadline, "the disk never seemed full: {}", told.len());
        let request = machine.request(Method::POST, "/execute/f");
        let Ok(response) = request.json(&json!({"input": large})).send().await else {
            break;
        };
        let refused = !response.status().is_success();
        let Ok(body) = response.json::<Value>().await else {
            break;
        };
        if refused {
            assert_eq!(body["error"]["code"], Code::ServerDiskFull.as_str(), "{body}");
            break;
        }
        told.push(body["job_id"].as_str().expect("an id").to_owned());
    }
    disk.empty();
    tokio::time::sleep(Duration::from_millis(500)).await;
    if machine.request(Method::GET, "/healthz").send().await.is_err() {
        machine = machine.kill_and_restart();
    }
    told.push(before["job_id"].as_str().expect("an id").to_owned());
    for job in &told {
        assert_eq!(machine.paid(job).await["state"], "succeeded");
    }
    let after = machine.call("f", json!("after")).await.ok();
    machine.paid(after["job_id"].as_str().expect("an id")).await;
}

/// That a person can read it: the code, a sentence, and nothing of the engine's insides.
#[track_caller]
fn readable(said: &str) {
    assert!(said.contains("chain.disk_full: "), "{said}");
    assert!(!said.contains("panicked") && !said.contains("WriteFailed"), "{said}");
    assert!(said.lines().all(|line| line.len() < 300), "{said}");
}

#[test]
fn a_full_disk_is_one_sentence_to_whoever_starts_and_to_whoever_runs() {
    let Some(disk) = SmallDisk::mount("64m") else {
        return;
    };
    let (data, log) = (
        disk.path().join("data"),
        tempfile::NamedTempFile::new().expect("a file"),
    );
    let mut command = piecework();
    command.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    command.stderr(log.reopen().expect("the same file"));
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut ready = String::new();
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    lines.read_line(&mut ready).expect("it says something");
    assert!(ready.starts_with("ready "), "{ready}");
    disk.fill();
    let deadline = Instant::now() + SETTLED_WITHIN;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is there") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it runs on without a disk");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status.code(), Some(2));
    readable(&fs::read_to_string(log.path()).expect("text"));
    let (code, said) = refused_start(&data, "127.0.0.1:0");
    assert_eq!(code, Some(2), "{said}");
    readable(&said);
    disk.empty();
    assert!(Machine::start(&data).stop(), "and goes on where there is room");
}
