//! Leases that end: nobody works for what could be gone before it is claimed, and what was not spent comes back.

use std::path::Path;

use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    claims::apart_with,
    computer::{Computer, invite},
    machine::{self, Machine},
    peers::Peer,
    providers::{ECHO, until},
};

/// Works for as many milliseconds as it is told.
const BUSY: &str = "export default (ms) => { const end = Date.now() + ms; while (Date.now() < end); return ms; };\n";

/// A provider that is content with the window of 60 blocks.
async fn content(directory: &Path, ledger: &Peer, controller: &Machine) -> Computer {
    let code = invite(controller).await;
    let more = ["--invite", &code, "--ledger", &ledger.api, "--window-min", "1"];
    Computer::start(directory, &controller.url, "content", &more)
}

async fn leases_of(machine: &Machine, token: &str) -> Vec<Value> {
    let list = machine.ask_as(Some(token), Method::GET, "/leases", None).await.ok();
    list["items"].as_array().expect("a list").clone()
}

fn id(lease: &Value) -> String {
    lease["id"].as_str().expect("an id").to_owned()
}

async fn closed(ledger: &Peer, lease: &str) -> Value {
    until("the lease is closed", async || {
        let shown = ledger.get(&format!("/ledger/leases/{lease}")).await;
        (shown["state"] == "closed").then_some(shown)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_15_a_lease_that_could_be_emptied_before_the_provider_claims_is_not_worked_for() {
    let (folder, wary, bold) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    // A network whose windows are 60 blocks, some seconds of them.
    let (ada, _cable, controller) = apart_with(folder.path(), &[]).await;
    let code = invite(&controller).await;
    let more = ["--invite", &code, "--ledger", &ada.api];
    let _wary = Computer::start(wary.path(), &controller.url, "wary", &more);
    controller.deploy("echo", "javascript", ECHO).await;
    let refused = controller.call("echo", json!(1)).await;
    refused.refused(409, Code::LeaseShortWindow);
    // A strict function's job is on the ledger before it is refused; what is kept aside for it is free after its window.
    let strict = json!({"strict": true});
    let deployed = controller.deploy_with("strict", "javascript", ECHO, strict).await;
    deployed.ok();
    let refused = controller.call("strict", json!(1)).await;
    refused.refused(409, Code::LeaseShortWindow);
    let job = refused.body["error"]["job_id"].as_str().expect("an id").to_owned();
    let lease = id(&leases_of(&controller, &controller.token).await[0]);
    let path = format!("/ledger/leases/{lease}");
    let kept = ada.get(&path).await["reserved_ucr"].as_i64();
    until("it is free again", async || {
        (ada.get(&path).await["reserved_ucr"] == 0).then_some(())
    })
    .await;
    let released = until("the job is shown as released", async || {
        let shown = ada.get(&format!("/ledger/jobs/{job}")).await;
        let kinds = shown["events"].as_array()?.iter().map(|event| event["kind"].clone());
        let kinds: Vec<Value> = kinds.collect();
        (kinds == ["job_opened", "job_released"]).then_some(shown)
    })
    .await;
    assert_eq!(released["paid"], false);
    assert!(kept > Some(0), "it was kept aside before: {kept:?}");
    // Who is content with less does it.
    let code = invite(&controller).await;
    let more = ["--invite", &code, "--ledger", &ada.api, "--window-min", "1"];
    let _bold = Computer::start(bold.path(), &controller.url, "bold", &more);
    let job = until("the bold one is there", async || {
        let answer = controller.call("echo", json!(1)).await;
        answer.body["job_id"]
            .as_str()
            .map(str::to_owned)
            .filter(|_| answer.status.is_success())
    })
    .await;
    assert_eq!(controller.paid(&job).await["provider"], "bold");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_closed_lease_did_not_spend_comes_back_by_itself_and_the_next_call_opens_another() {
    let (folder, away) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let (ada, _cable, controller) = apart_with(folder.path(), &[]).await;
    let _content = content(away.path(), &ada, &controller).await;
    controller.deploy("echo", "javascript", ECHO).await;
    // All that she has is held by her first lease.
    let grace = controller.person("grace", 5_000_000).await;
    let body = json!({"name": "mine", "language": "javascript", "code": ECHO});
    let deployed = controller
        .ask_as(Some(&grace), Method::POST, "/functions", Some(body))
        .await;
    deployed.ok();
    let call = async || {
        let input = Some(json!({"input": 1}));
        controller
            .ask_as(Some(&grace), Method::POST, "/execute/mine", input)
            .await
    };
    let job = call().await.ok()["job_id"].as_str().expect("an id").to_owned();
    let first = leases_of(&controller, &grace).await.remove(0);
    assert_eq!(
        (&first["state"], &first["budget_ucr"]),
        (&json!("open"), &json!(5_000_000))
    );
    let lease = id(&first);

    let path = format!("/leases/{lease}/close");
    let eve = controller.person("eve", 0).await;
    let others = controller.ask_as(Some(&eve), Method::POST, &path, None).await;
    others.refused(404, Code::LeaseNotFound);
    let nobody = controller.ask_as(None, Method::POST, &path, None).await;
    nobody.refused(401, Code::AuthMissingToken);
    let closing = controller.ask_as(Some(&grace), Method::POST, &path, None).await.ok();
    assert_eq!(closing["state"], "draining");
    assert!(closing["expires_at_height"].as_u64().is_some(), "{closing}");
    // What ran is paid out of it, and nothing new is ordered: until its window is over there is nothing to open another with.
    let refused = call().await;
    refused.refused(402, Code::AccountInsufficientCredits);
    let hint = refused.body["error"]["hint"].as_str().expect("a hint");
    assert!(hint.contains(&lease), "{hint}");
    let again = controller.ask_as(Some(&grace), Method::POST, &path, None).await;
    assert!(
        matches!(again.code(), Some(Code::LeaseDraining | Code::LeaseClosed)),
        "{again:?}"
    );

    let ended = closed(&ada, &lease).await;
    let used = ended["used_ucr"].as_i64().expect("a small number");
    assert!(used > 0, "the job was paid while it drained: {ended}");
    let shown = ada.get(&format!("/ledger/jobs/{job}")).await;
    assert_eq!((&shown["paid"], &shown["lease"]), (&json!(true), &json!(lease)));
    let account = ada.get("/ledger/accounts/grace").await;
    assert_eq!(
        (&account["held_ucr"], &account["posted_ucr"]),
        (&json!(0), &json!(5_000_000 - used)),
        "all of it is free"
    );
    let open = until("another lease is open", async || {
        let answer = call().await;
        let leases = leases_of(&controller, &grace).await;
        let open = leases.into_iter().find(|lease| lease["state"] == "open");
        open.filter(|_| answer.status.is_success())
    })
    .await;
    assert_ne!(id(&open), lease);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_are_paid_their_share_and_close_what_a_lost_controller_does_not() {
    let (folder, away) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let settings = [
        ("every_s = 600", "every_s = 1"),
        ("least_ucr = 100000", "least_ucr = 1"),
    ];
    let (ada, _cable, mut controller) = apart_with(folder.path(), &settings).await;
    let _content = content(away.path(), &ada, &controller).await;
    controller.deploy("busy", "javascript", BUSY).await;
    let job = controller.call("busy", json!(1_500)).await.ok()["job_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    controller.paid(&job).await;
    until("the share is paid out", async || {
        let owner = ada.get("/ledger/accounts/ada").await;
        let status = ada.get("/ledger/status").await;
        (owner["posted_ucr"].as_i64() > Some(0) && status["peers_pool_ucr"] == 0).then_some(())
    })
    .await;

    let lease = id(&leases_of(&controller, &controller.token).await[0]);
    let mut command = machine::piecework();
    command
        .env("PIECEWORK_URL", &controller.url)
        .env("PIECEWORK_TOKEN", &controller.token);
    let said = command.args(["leases", "close"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.status.success() && text.starts_with(&format!("{lease} is closing")),
        "{said:?}"
    );
    controller.kill();
    closed(&ada, &lease).await;
}
