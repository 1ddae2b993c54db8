//! `scheduled()` of a module for Workers, with what a schedule sends to it.

use piecework_model::Code;
use reqwest::Method;
use serde_json::json;

use crate::machine::Machine;

const MODULE: &str = "let seen = null;
export default {
  fetch: () => Response.json(seen),
  async scheduled(event, env, ctx) {
    ctx.waitUntil(new Promise((done) => setTimeout(done, 50)).then(() => console.log('waited until')));
    seen = [event.cron, event.scheduledTime, event.type, event.input, typeof event.noRetry, env.KEY];
    console.log(JSON.stringify(seen));
  },
};
";

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_calls_scheduled_and_a_module_without_it_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let tick = json!({"type": "scheduled", "cron": "*/5 * * * *", "scheduledTime": 1_800_000_000_000_u64, "trigger": "often", "input": [1]});
    let more = json!({"env": {"KEY": "value"}, "public": true});
    let view = machine.deploy_with("worker", "javascript", MODULE, more).await.ok();
    assert_eq!(view["contract"], "fetch");
    let called = machine.call("worker", tick.clone()).await.ok();
    assert_eq!(called["output"], json!(null));
    let job = called["job_id"].as_str().expect("a job");
    let logs = machine.get(&format!("/jobs/{job}/logs")).await.ok();
    let due = "[\"*/5 * * * *\",1800000000000,\"scheduled\",[1],\"function\",\"value\"]\nwaited until\n";
    assert_eq!(logs["text"], due);

    let stranger = machine.person("ada", 0).await;
    let id = view["id"].as_str().expect("an id");
    let path = format!("/execute/{id}");
    let asked = machine
        .ask_as(Some(&stranger), Method::POST, &path, Some(json!({"input": tick})))
        .await;
    asked.refused(403, Code::AuthRole);

    let only_fetch = "export default { fetch: () => new Response('x') };\n";
    machine
        .deploy_with("page", "javascript", only_fetch, json!({}))
        .await
        .ok();
    let refused = machine.call("page", tick).await;
    refused.refused(501, Code::FunctionNoScheduled);
}
