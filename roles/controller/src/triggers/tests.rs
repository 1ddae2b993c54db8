//! Ticks through a whole controller. No pattern here falls due by itself while the tests run: the moment is handed in.

use axum::http::Method;
use jiff::Timestamp;
use piecework_model::Code;
use serde_json::{Value, json};

use crate::doubles::machine::Machine;

/// New year's day at noon; nobody runs the tests then.
const YEARLY: &str = "0 12 1 1 *";

fn noon(year: i16) -> u64 {
    let at: Timestamp = format!("{year}-01-01T12:00:00Z").parse().expect("a time");
    at.as_millisecond() as u64
}

/// The year of the first tick from now on.
fn next(view: &Value) -> i16 {
    let at = view["next_at"].as_str().expect("it runs");
    at[..4].parse().expect("a year")
}

fn yearly() -> Value {
    json!({"schedule": {"cron": YEARLY}})
}

async fn set(machine: &Machine, name: &str, body: Value) -> Value {
    let path = format!("/functions/echo/triggers/{name}");
    machine.ask(Method::PUT, &path, Some(body)).await.ok()
}

async fn listed(machine: &Machine) -> Vec<Value> {
    let list = machine.get("/triggers").await.ok();
    list["items"].as_array().expect("a list").clone()
}

async fn jobs(machine: &Machine) -> usize {
    let list = machine.get("/jobs?function=echo").await.ok();
    list["items"].as_array().expect("a list").len()
}

#[tokio::test]
async fn each_tick_is_one_job_over_restarts() {
    let machine = Machine::start().await;
    machine.deploy("echo", "echo").await;
    let year = next(&set(&machine, "new-year", yearly()).await);
    machine.tick(noon(year) - 1).await;
    assert_eq!(listed(&machine).await[0].get("last"), None, "it is not due");

    machine.tick(noon(year)).await;
    let view = &listed(&machine).await[0];
    let job = view["last"]["job_id"].as_str().expect("a job").to_owned();
    assert_eq!(next(view), year + 1);
    let done = machine.job_in(&job, "succeeded").await;
    let input = json!({"trigger": "new-year", "at": format!("{year}-01-01T12:00:00Z")});
    assert_eq!(machine.output(&job).await, input, "{done}");

    machine.tick(noon(year) + 5_000).await;
    let machine = machine.restart().await;
    machine.tick(noon(year) + 10_000).await;
    assert_eq!(listed(&machine).await[0]["last"]["job_id"], *job);
    assert_eq!(jobs(&machine).await, 1);
}

#[tokio::test]
async fn a_tick_that_was_started_and_not_noted_finds_its_job() {
    let machine = Machine::start().await;
    machine.deploy("echo", "echo").await;
    let year = next(&set(&machine, "new-year", yearly()).await);
    machine.tick(noon(year)).await;
    let job = listed(&machine).await[0]["last"]["job_id"].clone();
    machine.job_in(job.as_str().expect("a job"), "succeeded").await;
    // As after a crash between the job and the note; its input is another by now.
    machine
        .ask(Method::DELETE, "/functions/echo/triggers/new-year", None)
        .await
        .ok();
    set(&machine, "new-year", json!({"schedule": {"cron": YEARLY}, "input": 7})).await;
    machine.tick(noon(year)).await;
    assert_eq!(listed(&machine).await[0]["last"]["job_id"], job);
    assert_eq!(jobs(&machine).await, 1);
}

#[tokio::test]
async fn what_cannot_run_says_why_and_the_next_tick_runs() {
    let machine = Machine::start().await;
    machine.deploy("echo", "echo").await;
    let year = next(&set(&machine, "t", json!({"schedule": {"cron": YEARLY}, "input": {"a": 1}})).await);
    machine.ask(Method::POST, "/functions/echo/stop", None).await.ok();
    machine.tick(noon(year)).await;
    assert_eq!(
        listed(&machine).await[0]["last"]["refused"],
        Code::FunctionStopped.as_str()
    );
    machine.ask(Method::POST, "/functions/echo/start", None).await.ok();
    machine.tick(noon(year + 1)).await;
    let job = listed(&machine).await[0]["last"]["job_id"].clone();
    let job = job.as_str().expect("a job");
    machine.job_in(job, "succeeded").await;
    assert_eq!(machine.output(job).await, json!({"a": 1}));

    set(&machine, "t", json!({"schedule": {"cron": YEARLY}, "paused": true})).await;
    machine.tick(noon(year + 2)).await;
    let view = &listed(&machine).await[0];
    assert_eq!((view.get("next_at"), jobs(&machine).await), (None, 1));
}

#[tokio::test]
async fn a_function_that_is_gone_takes_its_triggers_along() {
    let machine = Machine::start().await;
    machine.deploy("echo", "echo").await;
    let year = next(&set(&machine, "t", yearly()).await);
    machine.ask(Method::DELETE, "/functions/echo", None).await;
    machine.tick(noon(year)).await;
    assert_eq!(
        listed(&machine).await[0]["last"]["refused"],
        Code::FunctionNotFound.as_str()
    );
    machine.ask(Method::DELETE, "/functions/echo?for_good=true", None).await;
    machine.tick(noon(year + 1)).await;
    assert_eq!(listed(&machine).await, [Value::Null; 0]);
    let machine = machine.restart().await;
    assert_eq!(listed(&machine).await, [Value::Null; 0]);
}

#[tokio::test]
async fn triggers_are_ones_own_checked_and_bounded() {
    let machine = Machine::start().await;
    machine.deploy("echo", "echo").await;
    let put = async |token: &str, name: &str, body: Value| {
        let path = format!("/functions/echo/triggers/{name}");
        machine.ask_as(Some(token), Method::PUT, &path, Some(body)).await
    };
    let own = machine.token.clone();
    let other = machine.person("other", 0).await;
    put(&other, "t", yearly()).await.refused(404, Code::FunctionNotFound);
    let bad = json!({"schedule": {"cron": "0 0 31 2 *"}});
    put(&own, "t", bad).await.refused(422, Code::TriggerBadSchedule);
    put(&own, "T!", yearly()).await.refused(422, Code::FunctionBadName);
    let large = json!({"schedule": {"cron": YEARLY}, "input": "x".repeat(16 << 10)});
    put(&own, "t", large).await.refused(413, Code::BodyTooLarge);
    for number in 0..100 {
        put(&own, &format!("t{number}"), yearly()).await.ok();
    }
    put(&own, "one-more", yearly()).await.refused(409, Code::TriggerTooMany);
    put(&own, "t0", json!({"schedule": {"cron": "@daily"}})).await.ok();
    let remove = async || {
        let path = "/functions/echo/triggers/t1";
        machine.ask(Method::DELETE, path, None).await
    };
    assert_eq!(remove().await.status.as_u16(), 204);
    remove().await.refused(404, Code::TriggerNotFound);
    let of_function = machine.get("/functions/echo/triggers").await.ok();
    assert_eq!(of_function["items"].as_array().map(Vec::len), Some(99));
    put(&own, "t1", yearly()).await.ok();
    // Those of a function that is gone take no places from others.
    machine.ask(Method::DELETE, "/functions/echo", None).await;
    machine.ask(Method::DELETE, "/functions/echo?for_good=true", None).await;
    machine.deploy("echo", "echo").await;
    put(&own, "one-more", yearly()).await.ok();
    assert_eq!(listed(&machine).await.len(), 1);
}
