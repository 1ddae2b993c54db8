//! Golden fixtures of every format that a released build has written: each later build opens them and goes on.
//!
//! `tests/fixtures/NAME/` holds what `tests/fixtures/make` wrote with the build of that time; nothing in them is ever changed.

use std::{
    collections::BTreeMap,
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use piecework_model::{Code, Digest, JobId, MARK};
use piecework_store::{Jobs as _, Options, Sqlite};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::machine::{Machine, SETTLED_WITHIN, piecework, refused_start};

struct Fixture {
    folder: PathBuf,
    expected: Value,
}

fn fixtures() -> Vec<Fixture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let folders = fs::read_dir(root)
        .expect("fixtures")
        .map(|entry| entry.expect("readable").path());
    let found: Vec<Fixture> = folders
        .filter(|path| path.is_dir())
        .map(|folder| {
            let text = fs::read_to_string(folder.join("expected.json")).expect("what is in it");
            let expected = serde_json::from_str(&text).expect("JSON");
            Fixture { folder, expected }
        })
        .collect();
    assert!(
        !found.is_empty(),
        "the first is of the build before records had versions"
    );
    found
}

impl Fixture {
    fn bytes(&self, file: &str) -> Vec<u8> {
        let packed = fs::read(self.folder.join(file)).expect("a file of the fixture");
        zstd::decode_all(&*packed).expect("whole")
    }

    fn unpacked(&self, file: &str) -> TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let mut archive = tar::Archive::new(Cursor::new(self.bytes(file)));
        archive.unpack(directory.path()).expect("unpacked");
        directory
    }

    /// The jobs that must be there with their outputs.
    fn jobs(&self, key: &str) -> Vec<(JobId, &Value)> {
        let jobs = self.expected[key].as_object().expect("jobs");
        jobs.iter()
            .map(|(id, output)| (id.parse().expect("an id"), output))
            .collect()
    }
}

#[tokio::test]
async fn an_older_directory_opens_with_its_functions_balances_and_payments_and_goes_on() {
    for fixture in fixtures() {
        let directory = fixture.unpacked("stopped.tar.zst");
        for _ in ["as the older build left it", "as this one did"] {
            let machine = Machine::start(directory.path());
            let status = machine.get("/ledger/status").await.ok();
            assert_eq!(status["network"], fixture.expected["network"]);
            for name in ["provider", "ada"] {
                let path = format!("/ledger/accounts/{name}");
                let posted = machine.get(&path).await.ok()["posted_ucr"].clone();
                // The second time the provider has been paid for the calls below.
                let expected = &fixture.expected["balances"][name];
                assert!(posted == *expected || (name == "provider" && posted.as_i64() > expected.as_i64()));
            }
            shown_as_paid(&machine, fixture.jobs("jobs")).await;
            goes_on(&machine, &fixture).await;
            assert!(machine.stop(), "it stops cleanly");
        }
    }
}

/// The ledger shows each job as paid, once a start has read the blocks.
async fn shown_as_paid(machine: &Machine, jobs: Vec<(JobId, &Value)>) {
    let deadline = Instant::now() + SETTLED_WITHIN;
    for (job, _) in jobs {
        while machine.get(&format!("/ledger/jobs/{job}")).await.body["paid"] != true {
            assert!(Instant::now() < deadline, "{job} is never paid");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Lists its functions, runs them all, deploys another version, and gets them paid.
async fn goes_on(machine: &Machine, fixture: &Fixture) {
    let listed = machine.get("/functions").await.ok();
    let mut names: Vec<&Value> = listed["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|f| &f["name"])
        .collect();
    names.sort_by_key(|name| name.to_string());
    assert_eq!(json!(names), fixture.expected["functions"]);
    let twice = machine.get("/functions/twice").await.ok();
    assert_eq!(
        (&twice["version"], &twice["concurrency"]),
        (&json!(3), &json!(7)),
        "{twice}"
    );
    let called = machine.call("twice", json!({"n": 21})).await.ok();
    assert_eq!(called["output"], json!({"twice": 42}));
    let greeted = machine.call("greet", json!({"name": "Edsger"})).await.ok();
    assert_eq!(greeted["output"], json!({"greeting": "Hello, Edsger"}));
    for job in [&called["job_id"], &greeted["job_id"]] {
        machine.paid(job.as_str().expect("an id")).await;
    }
    let statement = machine.get("/statement?limit=100").await.ok();
    let details = statement["items"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| &line["detail"]);
    assert!(details.clone().any(|detail| detail == "for the fixture"), "{statement}");
}

/// At the store itself: a controller prunes records that are a week old.
#[tokio::test(flavor = "multi_thread")]
async fn every_job_of_an_older_store_is_there_with_its_output_those_in_the_journal_too() {
    for fixture in fixtures() {
        for (file, jobs) in [
            ("stopped.tar.zst", vec!["jobs"]),
            ("killed.tar.zst", vec!["jobs", "killed_jobs"]),
        ] {
            let directory = fixture.unpacked(file);
            for _ in ["as the older build left it", "as this one did"] {
                let store = Sqlite::open(Options::new(directory.path().join("store")))
                    .await
                    .expect("it opens");
                for (id, output) in jobs.iter().flat_map(|key| fixture.jobs(key)) {
                    let job = store
                        .job(id)
                        .await
                        .expect("it can be read")
                        .unwrap_or_else(|| panic!("{id} is not there"));
                    let kept: Value = serde_json::from_slice(&job.output.expect("it has an output")).expect("JSON");
                    assert_eq!(kept, *output, "{id}");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_an_older_build_had_not_settled_when_it_was_killed_is_paid() {
    for fixture in fixtures() {
        let directory = fixture.unpacked("killed.tar.zst");
        let machine = Machine::start(directory.path());
        shown_as_paid(&machine, fixture.jobs("killed_jobs")).await;
        goes_on(&machine, &fixture).await;
    }
}

#[test]
fn an_older_export_is_verified_by_both_verifiers() {
    for fixture in fixtures() {
        let (directory, bytes) = (fixture.unpacked("stopped.tar.zst"), fixture.bytes("ledger.zst"));
        let file = directory.path().join("export");
        fs::write(&file, &bytes).expect("written");
        let genesis = directory.path().join("peer/genesis.json");
        let mut command = piecework();
        command
            .args(["ledger", "verify"])
            .arg(&file)
            .arg("--genesis")
            .arg(&genesis);
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let checked = piecework_verifier::check(&*bytes).expect("it holds");
        let network = fixture.expected["network"].as_str().expect("a network");
        assert_eq!(format!("net_{}", hex::encode(checked.network)), network);
        assert!(checked.transactions > 0 && checked.values > 0, "{checked:?}");
    }
}

/// Every file with what is in it.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).expect("read"))),
        }
    }
    found
}

/// The mark of a ledger's directory that a build of another format would leave.
fn mark_of(format: u32, mark: &[u8]) -> Vec<u8> {
    let mut of: (u32, [u8; 32], [u8; 32]) = borsh::from_slice(&mark[..68]).expect("format, network, key");
    of.0 = format;
    borsh::to_vec(&(of, Digest::of_value("piecework 2026 chain directory", &of))).expect("memory does not fail")
}

#[test]
fn a_directory_of_an_unknown_version_is_refused_by_code_and_left_untouched() {
    let fixture = fixtures().remove(0);
    let newer = [&[MARK, 99][..], b"what nobody knows yet"].concat();
    type Write<'a> = (&'a str, Box<dyn Fn(&[u8]) -> Vec<u8> + 'a>, [&'a str; 3]);
    let cases: [Write; 4] = [
        (
            "store/VERSION",
            Box::new(|_| b"piecework store 99\n".to_vec()),
            ["store.newer: ", "format 99", "up to 5"],
        ),
        (
            "peer/ledger/chain.mark",
            Box::new(|mark| mark_of(99, mark)),
            ["chain.newer: ", "version 99", "up to 1"],
        ),
        (
            "begun",
            Box::new(|_| newer.clone()),
            [Code::DirectoryNewer.as_str(), "version 99", "up to 1"],
        ),
        (
            "papers",
            Box::new(|_| newer.clone()),
            [Code::DirectoryNewer.as_str(), "version 99", "up to 2"],
        ),
    ];
    for (file, write, says) in cases {
        let directory = fixture.unpacked("stopped.tar.zst");
        let path = directory.path().join(file);
        fs::write(&path, write(&fs::read(&path).unwrap_or_default())).expect("written");
        let before = contents(directory.path());
        let (code, said) = refused_start(directory.path(), "127.0.0.1:0");
        assert_eq!(code, Some(2), "{file}: {said}");
        for word in says {
            assert!(
                said.contains(word) && !said.contains("panicked"),
                "{file}: {word}: {said}"
            );
        }
        assert!(
            contents(directory.path()) == before,
            "{file}: the directory was changed"
        );
    }
}
