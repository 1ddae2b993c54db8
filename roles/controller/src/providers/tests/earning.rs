//! What providers have done, as everybody sees it.

use serde_json::json;

use crate::doubles::machine::{Machine, until};

#[tokio::test]
async fn what_a_provider_has_earned_is_shown_after_a_restart_too() {
    let machine = Machine::start().await;
    machine.deploy("f", "return 1").await;
    let done = machine.call("f", json!(1)).await.ok();
    machine.paid(done["job_id"].as_str().expect("an id")).await;
    let before = machine.shown("provider").await;
    assert_eq!(before["jobs_done"], 1, "{before}");
    let machine = machine.restart().await;
    // Before anybody calls.
    let after = until("the leases of the earlier run are known", async || {
        let shown = machine.shown("provider").await;
        (shown["jobs_done"] == 1).then_some(shown)
    });
    assert_eq!(after.await["earned_ucr"], before["earned_ucr"]);
}
