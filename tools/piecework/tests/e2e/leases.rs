//! Leases that end: nobody works for what could be gone before it is claimed, and what was not spent comes back.

use crate::{
    claims::apart,
    computer::{Computer, invite},
    providers::{ECHO, until},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_15_a_lease_that_could_be_emptied_before_the_provider_claims_is_not_worked_for() {
    let (folder, wary, bold) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    // A network whose windows are 60 blocks, some seconds of them.
    let (ada, _cable, controller) = apart(folder.path()).await;
    let code = invite(&controller).await;
    let more = ["--invite", &code, "--ledger", &ada.api];
    let _wary = Computer::start(wary.path(), &controller.url, "wary", &more);
    controller.deploy("echo", "javascript", ECHO).await;
    let refused = controller.call("echo", json!(1)).await;
    refused.refused(409, "lease.short_window");
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
