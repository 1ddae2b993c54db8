//! Proofs and exports of a real run: checked by the command line, and again by the verifier that shares no code with it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::machine::Machine;
use piecework_ledger::Genesis;
use piecework_model::Code;
use piecework_proof::{Anchor, Proof};
use piecework_verifier::Wrong;
use serde_json::{Value, json};

const DOUBLE: &str = "def handler(event, context):\n    return event['n'] * 2\n";

struct Run {
    machine: Machine,
    folder: tempfile::TempDir,
    jobs: Vec<String>,
}

impl Run {
    /// Some jobs, called and paid.
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data/piecework");
        fs::create_dir_all(&data).expect("made");
        let machine = Machine::start(&data);
        machine.deploy("double", "python", DOUBLE).await;
        let mut jobs = Vec::new();
        for n in 0..5 {
            let answer = machine.call("double", json!({ "n": n })).await.ok();
            jobs.push(answer["job_id"].as_str().expect("an id").to_owned());
        }
        for job in &jobs {
            machine.paid(job).await;
        }
        Self { machine, folder, jobs }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn genesis(&self) -> PathBuf {
        self.file("data/piecework/peer/genesis.json")
    }

    /// As somebody else would, with nothing but what is named.
    fn elsewhere(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_piecework"))
            .env_remove("PIECEWORK_TOKEN")
            .env("PIECEWORK_URL", &self.machine.url)
            .env("HOME", self.file("nobody"))
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .args(arguments)
            .output()
            .expect("it runs")
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().chain(&["--json"]).copied().collect();
        let output = self.elsewhere(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], code: Code) {
        let output = self.elsewhere(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains(code.as_str()), "{said}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_and_an_account_are_proven_offline() {
    let run = Run::new().await;
    let (proof, genesis) = (run.file("job.proof"), run.genesis());
    let (job, genesis) = (&*run.jobs[3], text(&genesis));
    let shown = run.ok(&["job", job, "--proof", "-o", text(&proof), "--genesis", genesis]);
    let paid = run.machine.get(&format!("/jobs/{job}")).await.ok();
    let entry = &shown["entries"][0]["entry"];
    assert_eq!(entry["job"], json!(job));
    let steps = entry["steps"].as_array().expect("steps");
    let price = steps.iter().find_map(|step| step.get("price_ucr")).expect("it is paid");
    assert_eq!(price, &paid["price_ucr"]);
    assert!(fs::metadata(&proof).expect("kept").len() <= 1024);

    let balance = run.machine.posted("operator").await;
    let account = run.file("operator.proof");
    let shown = run.ok(&[
        "account",
        "operator",
        "--proof",
        "-o",
        text(&account),
        "--genesis",
        genesis,
    ]);
    assert_eq!(shown["state"]["posted"], json!(balance));

    let shown = run.machine.get("/accounts/operator?proof=true").await.ok();
    let bytes = hex::decode(shown["proof"]["proof"].as_str().expect("hex")).expect("hex");
    let Ok(Proof::Value(proven)) = Proof::from_bytes(&bytes) else {
        panic!("another proof than was asked for");
    };
    let own: Genesis = serde_json::from_slice(&fs::read(genesis).expect("there")).expect("a genesis");
    proven.verify(Anchor::genesis(&own)).expect("it holds");
    assert_eq!(
        proven.account().map(|(id, _)| id.to_string()).as_deref(),
        shown["id"].as_str()
    );

    // Another network's genesis, and bytes that somebody changed.
    let mut other: Value = serde_json::from_slice(&fs::read(genesis).expect("there")).expect("JSON");
    other["network_name"] = json!("another");
    let foreign = run.file("other.json");
    fs::write(&foreign, other.to_string()).expect("written");
    let url = run.machine.url.clone();
    assert!(run.machine.stop(), "nobody is asked from here on");
    let offline = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_piecework"))
            .args(arguments)
            .env("PIECEWORK_URL", &url)
            .env("HOME", run.folder.path().join("nobody"))
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    for file in [&proof, &account] {
        let checked = offline(&["ledger", "verify", text(file), "--genesis", genesis]);
        assert_eq!(checked.0, Some(0), "{}", checked.1);
        let refused = offline(&["ledger", "verify", text(file), "--genesis", text(&foreign)]);
        assert_eq!(refused.0, Some(3), "{}", refused.1);
        assert!(refused.1.contains(Code::ProofOtherNetwork.as_str()), "{}", refused.1);
        let mut bytes = fs::read(file).expect("there");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(file, bytes).expect("written");
        let refused = offline(&["ledger", "verify", text(file), "--genesis", genesis]);
        assert!(refused.1.contains(Code::ProofBadCertificate.as_str()), "{}", refused.1);
    }
}

/// Where the frames of an export begin and end, after its first eight bytes.
fn frames(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut frames, mut at) = (Vec::new(), 8);
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
        frames.push(at..at + 4 + length);
        at += 4 + length;
    }
    frames
}

fn without(bytes: &[u8], range: std::ops::Range<usize>) -> Vec<u8> {
    [&bytes[..range.start], &bytes[range.end..]].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_verifies_twice_and_a_changed_one_is_refused_and_named() {
    let run = Run::new().await;
    let (file, genesis) = (run.file("ledger"), run.genesis());
    let export = run.ok(&["ledger", "export", text(&file)]);
    let checked = run.ok(&["ledger", "verify", text(&file), "--genesis", text(&genesis)]);
    assert_eq!(checked["ledger"]["head"], export["head"]);
    assert_eq!(checked["ledger"]["blocks"], export["blocks"]);
    // The pools, the operator, the controller, the provider.
    assert_eq!(checked["ledger"]["values"], json!(4));
    run.ok(&["ledger", "verify", "--url", &run.machine.url]);

    let bytes = fs::read(&file).expect("written");
    let second = piecework_verifier::check(&*bytes).expect("the second verifier agrees");
    assert_eq!(json!(second.blocks), export["blocks"]);
    assert_eq!((second.values, second.accounts), (4, 3));

    let frames = frames(&bytes);
    // A block somewhere in the middle, with the settlement in it or not.
    let middle = frames[frames.len() / 2].clone();
    let refused = |bytes: &[u8], code: Code| -> Wrong {
        let changed = run.file("changed");
        fs::write(&changed, bytes).expect("written");
        run.refused(&["ledger", "verify", text(&changed)], code);
        piecework_verifier::check(bytes).expect_err("the second verifier refuses it too")
    };
    let dropped = refused(&without(&bytes, middle.clone()), Code::ProofMissingBlock);
    assert!(matches!(dropped, Wrong::Missing { .. }), "{dropped}");
    let short = refused(&bytes[..frames[frames.len() - 1].start], Code::ProofCutOff);
    assert!(short.to_string().contains("cut off"), "{short}");

    // The last bytes of a block are its certificate's.
    let mut flipped = bytes.clone();
    flipped[middle.end - 1] ^= 1;
    let flipped = refused(&flipped, Code::ProofBadCertificate);
    assert!(flipped.to_string().contains("certificate"), "{flipped}");

    // One ucr more for the operator, somewhere among the values.
    let values = frames[frames.len() - 2].clone();
    let posted = run.machine.posted("operator").await;
    let needle = i128::from(posted).to_le_bytes();
    let place = bytes[values.clone()].windows(16).position(|window| window == needle);
    let mut forged = bytes.clone();
    forged[values.start + place.expect("the operator's balance is there")] ^= 1;
    let forged = refused(&forged, Code::ProofBadValue);
    assert!(matches!(forged, Wrong::Value { .. }), "{forged}");
}
