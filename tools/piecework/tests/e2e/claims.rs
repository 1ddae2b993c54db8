//! Providers that are paid without their controller, and claims that are refuted.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
};

use serde_json::{Value, json};

use crate::{
    computer::{Cable, Computer, invite, provide, provider},
    machine::Machine,
    peers::{Peer, done, found_with},
    providers::{ECHO, accepted, alone, running_on, until},
};

/// Asleep for as many milliseconds as it is told.
const SLEEPY: &str = "export default (ms) => new Promise((done) => setTimeout(done, ms, ms));\n";
/// On one core for 900 s it can cost some 254,000 ucr; of that, a million may be unsealed: the fourth has its own seal.
const SEALED_FROM: usize = 4;

/// A computer that waits for its controller; killed when dropped.
struct Waiting(Child);

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A ledger peer with blocks every 50 ms, and a controller that reaches it over a cable.
async fn apart(folder: &Path) -> (Peer, Cable, Machine) {
    apart_with(folder, &[]).await
}

/// The same with other settings of the peer.
pub async fn apart_with(folder: &Path, settings: &[(&str, &str)]) -> (Peer, Cable, Machine) {
    let mut ada = Peer::init(folder, "ada");
    for (setting, other) in settings {
        ada.set(setting, other);
    }
    let cable = Cable::to(&ada.api).await;
    let home = folder.join("controller");
    let data = home.to_str().expect("UTF-8");
    let url = cable.url();
    let arguments = ["--peer", &url, "--data", data, "--listen", "127.0.0.1:0"];
    let accounts = done(&[["controller", "init"].as_slice(), &arguments].concat());
    let grants: Vec<String> = accounts.lines().map(|account| format!("{account}:1000cr")).collect();
    let mut more = vec!["--window", "60"];
    more.extend(grants.iter().flat_map(|grant| ["--grant", grant]));
    let genesis = found_with(folder, &mut [&mut ada], &more);
    fs::copy(genesis, home.join("genesis.json")).expect("copies");
    ada.run();
    let controller = tokio::task::block_in_place(|| Machine::start_controller(&home));
    (ada, cable, controller)
}

/// What `piecework provider status` says of a computer.
fn status(directory: &Path) -> Value {
    let data = directory.to_str().expect("UTF-8");
    let said = done(&["provider", "status", "--json", "--data", data]);
    serde_json::from_str(&said).expect("JSON")
}

fn kinds(job: &Value) -> Vec<String> {
    let events = job["events"].as_array().cloned().unwrap_or_default();
    let kind = |event: &Value| event["kind"].as_str().unwrap_or_default().to_owned();
    events.iter().map(kind).collect()
}

async fn posted(peer: &Peer, name: &str) -> i64 {
    let account = peer.get(&format!("/ledger/accounts/{name}")).await;
    account["posted_ucr"].as_i64().expect("a small number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_whose_controller_is_gone_for_good_claims_what_it_is_owed_and_is_paid() {
    let (folder, away) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let (ada, cable, mut controller) = apart(folder.path()).await;
    let code = invite(&controller).await;
    let more = [
        "--invite",
        &code,
        "--ledger",
        &ada.api,
        "--claim-after",
        "1",
        "--window-min",
        "1",
    ];
    let laptop = Computer::start(away.path(), &controller.url, "laptop", &more);
    controller.deploy("echo", "javascript", ECHO).await;
    let settled = controller.call("echo", json!(1)).await.ok();
    controller.paid(settled["job_id"].as_str().expect("an id")).await;
    until("the settled job is known to be paid", async || {
        (status(away.path())["owed"]["jobs"] == 0).then_some(())
    })
    .await;

    // The controller loses the ledger, then its life: its caller was answered, its provider never paid.
    cable.cut();
    let answer = controller.call("echo", json!(2)).await.ok();
    let job = answer["job_id"].as_str().expect("an id").to_owned();
    let price = answer["price_ucr"].as_i64().expect("a price");
    until("the ticket is sealed", async || {
        (status(away.path())["owed"]["claimable_jobs"] == 1).then_some(())
    })
    .await;
    controller.kill();
    let before = posted(&ada, "laptop").await;
    assert!(laptop.stop(), "what it is owed is kept over a restart");
    let child = provide(away.path(), &controller.url, "laptop", &more[2..])
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let _waiting = Waiting(child);
    let paid = until("the claim is paid", async || {
        let shown = ada.get(&format!("/ledger/jobs/{job}")).await;
        (shown["paid"] == true).then_some(shown)
    })
    .await;
    let kinds = kinds(&paid);
    let count = |wanted: &str| kinds.iter().filter(|kind| *kind == wanted).count();
    assert_eq!((count("job_claimed"), count("job_paid")), (1, 1), "{paid}");
    assert_eq!(paid["provider"], "laptop");
    let earned = posted(&ada, "laptop").await - before;
    assert!(earned > 0 && earned <= price, "{earned} of {price}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_for_a_job_that_was_done_and_paid_elsewhere_is_refuted() {
    let (home, one, two) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let cable = Cable::to(&machine.url).await;
    let codes = [invite(&machine).await, invite(&machine).await];
    let more = [
        "--invite",
        &codes[0],
        "--ledger",
        &machine.url,
        "--claim-after",
        "1",
        "--cores",
        "1",
    ];
    let _one = Computer::start(one.path(), &cable.url(), "one", &more);
    let dear = json!({"timeout_ms": 900_000});
    machine.deploy_with("sleepy", "javascript", SLEEPY, dear).await.ok();
    let mut jobs = Vec::new();
    for _ in 0..SEALED_FROM {
        let job = accepted(&machine, "sleepy", json!(8_000)).await;
        running_on(&machine, &job).await;
        jobs.push(job);
    }
    cable.cut();
    let _two = Computer::start(two.path(), &machine.url, "two", &["--invite", &codes[1]]);
    for job in &jobs {
        let view = machine.paid(job).await;
        assert_eq!(view["provider"], "two", "{view}");
    }
    let sealed = jobs.last().expect("some");
    let shown = until("the claim is made and refuted", async || {
        let shown = machine.get(&format!("/ledger/jobs/{sealed}")).await.ok();
        kinds(&shown).contains(&"job_refuted".to_owned()).then_some(shown)
    })
    .await;
    let kinds = kinds(&shown);
    let count = |wanted: &str| kinds.iter().filter(|kind| *kind == wanted).count();
    assert_eq!((count("job_claimed"), count("job_paid")), (1, 1), "{shown}");
    assert_eq!(provider(&machine, "one").await["earned_ucr"], 0);
    // The one who was too late goes on to work.
    cable.mend();
    until("it is linked again", async || {
        (provider(&machine, "one").await["state"] == "ready").then_some(())
    })
    .await;
    machine.call("sleepy", json!(1)).await.ok();
}
