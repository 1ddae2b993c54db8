//! `scheduled()` of a module for Workers, with what a schedule sends to it.

use std::time::{Duration, Instant};

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

/// Of all ticks whose jobs there are: the times for which they ran.
async fn ticks(machine: &Machine) -> Vec<String> {
    let list = machine.get("/jobs?function=echo").await.ok();
    let jobs = list["items"].as_array().expect("a list").clone();
    let mut times = Vec::new();
    for job in jobs.iter().filter(|job| job["state"] == "succeeded") {
        let id = job["id"].as_str().expect("an id");
        let output = machine.get(&format!("/jobs/{id}/result")).await.ok();
        times.push(output["at"].as_str().expect("a time").to_owned());
    }
    times.sort();
    times
}

/// Once there are so many.
async fn ticks_at_least(machine: &Machine, count: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(200);
    loop {
        let times = ticks(machine).await;
        if times.len() >= count {
            return times;
        }
        assert!(Instant::now() < deadline, "no tick ran: {times:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_of_the_real_clock_runs_once_although_the_server_is_killed_before_and_after() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    machine
        .deploy("echo", "javascript", "export default (event) => event;\n")
        .await;
    let every_minute = json!({"schedule": {"cron": "* * * * *"}});
    let set = machine.ask(Method::PUT, "/functions/echo/triggers/often", Some(every_minute));
    set.await.ok();
    let machine = machine.kill_and_restart();
    ticks_at_least(&machine, 1).await;
    // What the first server knew of the tick may be lost; what it promised is not.
    let machine = machine.kill_and_restart();
    let listed = machine.get("/triggers").await.ok();
    assert!(listed["items"][0]["next_at"].is_string(), "{listed}");
    let called = machine.call("echo", json!({"at": "a call"})).await.ok();
    assert_eq!(called["output"]["at"], "a call", "it works again");
    let (calls, times): (Vec<String>, Vec<String>) = ticks_at_least(&machine, 2)
        .await
        .into_iter()
        .partition(|time| time == "a call");
    let mut once = times.clone();
    once.dedup();
    assert_eq!((calls.len(), &once), (1, &times), "each tick ran once");
    let minute = |time: &String| time.parse::<jiff::Timestamp>().expect("a time").as_second();
    let ticks: Vec<i64> = times.iter().map(minute).collect();
    assert!(ticks.iter().all(|second| second % 60 == 0), "{times:?}");
    assert!(
        ticks.windows(2).all(|pair| pair[1] - pair[0] == 60),
        "none is left out: {times:?}"
    );
}
