//! A data directory that is damaged, incomplete or somebody else's, and a disk that is full at the start.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    machine::{Machine, refused_start},
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
        (Box::new(remove_all("peer")), Code::LedgerOtherNetwork.as_str()),
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
        if sentence.starts_with("operator.key") {
            assert_eq!(code, Code::DirectoryDamaged.as_str());
        }
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

/// That a person can read it: the code, a sentence, and nothing of the engine's insides.
#[track_caller]
fn readable(said: &str) {
    let codes = ["chain.disk_full: ", "store.disk_full: "];
    assert!(codes.iter().any(|code| said.contains(code)), "{said}");
    assert!(!said.contains("panicked") && !said.contains("WriteFailed"), "{said}");
    assert!(said.lines().all(|line| line.len() < 300), "{said}");
}

#[tokio::test]
async fn a_full_disk_is_one_sentence_to_whoever_starts() {
    let Some(disk) = SmallDisk::mount("64m") else {
        return;
    };
    let data = disk.path().join("data");
    let mut machine = Machine::start(&data);
    machine.deploy("f", "javascript", CODE).await;
    machine.call("f", json!(1)).await.ok();
    machine.kill();
    // A start would make room by throwing away what it can unpack again, and the reserve.
    fs::remove_dir_all(data.join("unpacked")).expect("removed");
    let _ = fs::remove_file(data.join("reserve"));
    disk.fill();
    let (code, said) = refused_start(&data, "127.0.0.1:0");
    assert_eq!(code, Some(2), "{said}");
    readable(&said);
    disk.empty();
    assert!(Machine::start(&data).stop(), "and goes on where there is room");
}
