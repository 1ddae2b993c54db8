//! A queue that nobody can jam: what waits for one provider, for one developer or for nobody holds up nobody else.

use std::time::{Duration, Instant};

use axum::http::Method;
use futures::future::join_all;
use piecework_model::Code;
use serde_json::{Value, json};

use crate::doubles::machine::{Machine, Setup, named, until};

/// Of one developer; times as many as there are slots.
const ROUNDS: usize = 10;
/// What a call beside a jam may take on a busy machine; alone it takes a millisecond.
const BESIDE_MAX: Duration = Duration::from_secs(2);

/// The slots of a provider of these tests.
fn slots() -> usize {
    named("provider", 0).slots as usize
}

async fn cancel(machine: &Machine, job: &str) -> u16 {
    let answer = machine.ask(Method::DELETE, &format!("/jobs/{job}"), None).await;
    answer.status.as_u16()
}

#[tokio::test]
async fn one_developers_queue_does_not_starve_anothers_call() {
    let machine = Machine::start().await;
    let (greedy, modest) = (
        machine.person("greedy", 50_000_000).await,
        machine.person("modest", 10_000_000).await,
    );
    let many = json!({"concurrency": 1_000});
    machine.deploy_as(&greedy, "waits", "wait", many).await.ok();
    machine.deploy_as(&modest, "quick", "return 2", json!({})).await.ok();
    let jobs = slots() * ROUNDS;
    let accept = || {
        let request = machine.request_as(&greedy, Method::POST, "/execute/waits");
        machine.send(request.header("prefer", "respond-async"), Some(json!({})))
    };
    for answer in join_all((0..jobs).map(|_| accept())).await {
        assert_eq!(answer.status.as_u16(), 202, "{}", answer.body);
    }
    until("the slots that one developer may have are taken", async || {
        (machine.gauge("jobs_in_line").await as usize >= jobs - slots()).then_some(())
    })
    .await;
    let called = machine.call_as(&modest, "quick", Value::Null).await;
    assert_eq!(called.ok()["output"], 2);
    let in_line = machine.gauge("jobs_in_line").await as usize;
    assert!(in_line >= jobs - slots(), "the others wait still: {in_line} of {jobs}");
    machine.provider("provider").release();
}

#[tokio::test]
async fn who_waits_is_let_go_at_the_deadline_or_when_cancelled() {
    let machine = Machine::start().await;
    let one = json!({"concurrency": 1});
    machine.deploy_with("slow", "wait", one).await.ok();
    let first = machine.accepted("slow", Value::Null).await;
    machine.job_in(&first, "running").await;
    let hurried = machine.request(Method::POST, "/execute/slow");
    let hurried = hurried.header("x-deadline-ms", "50");
    machine
        .send(hurried, Some(json!({})))
        .await
        .refused(504, Code::JobExpired);

    let second = machine.accepted("slow", Value::Null).await;
    assert_eq!(cancel(&machine, &second).await, 204, "while the first still runs");
    let view = machine.job(&second).await;
    assert_eq!((&view["state"], &view["price_ucr"]), (&json!("cancelled"), &json!(0)));
    assert_eq!(
        machine.job(&first).await["state"],
        "running",
        "nobody else's run is touched"
    );

    cancel(&machine, &first).await;
    let ended = machine.paid(&first).await;
    assert_eq!(ended["state"], "cancelled", "and what it used is paid: {ended}");
    let again = machine.ask(Method::DELETE, &format!("/jobs/{first}"), None).await;
    again.refused(409, Code::JobFinished);
    let cancelling = async {
        let running = until("it runs", async || {
            let list = machine.get("/jobs?function=slow&state=running").await.ok();
            list["items"][0]["id"].as_str().map(str::to_owned)
        });
        cancel(&machine, &running.await).await
    };
    let (called, cancelled) = tokio::join!(machine.call("slow", Value::Null), cancelling);
    assert_eq!(cancelled, 204);
    called.refused(502, Code::JobCancelled);
}

#[tokio::test]
async fn a_jam_at_one_provider_holds_up_no_call_that_can_run_elsewhere() {
    let setup = Setup {
        own: vec![named("first", 0), named("second", 1), named("third", 2)],
        ..Setup::default()
    };
    let machine = Machine::start_with(setup).await;
    let jam = slots() * 2 * ROUNDS;
    let pinned = json!({"concurrency": 1_000, "placement": {"pin": ["first"]}});
    machine.deploy_with("pinned", "wait", pinned).await.ok();
    machine.deploy("free", "echo").await;
    let jobs = join_all((0..jam).map(|_| machine.accepted("pinned", Value::Null))).await;
    until("the pinned provider is full", async || {
        (machine.gauge("jobs_in_line").await as usize == jam - slots()).then_some(())
    })
    .await;
    for n in 0..40 {
        let began = Instant::now();
        assert_eq!(machine.call("free", json!(n)).await.ok()["output"], n);
        assert!(began.elapsed() < BESIDE_MAX, "{n}: {:?}", began.elapsed());
    }
    assert_eq!(machine.gauge("jobs_in_line").await as usize, jam - slots());
    machine.provider("first").release();
    for job in &jobs {
        assert_eq!(machine.job_in(job, "succeeded").await["provider"], "first");
    }
}

#[tokio::test]
async fn without_a_provider_callers_are_told_at_once_and_accepted_jobs_wait_for_one() {
    let machine = Machine::start().await;
    machine.deploy("echo", "echo").await;
    machine.provider("provider").set_here(false);
    until("it is seen to be gone", async || {
        (machine.shown("provider").await["state"] == "gone").then_some(())
    })
    .await;
    let jobs = join_all((0..200).map(|n| machine.accepted("echo", json!(n)))).await;
    // It might have been about to come back.
    machine.call("echo", json!(1)).await.refused(503, Code::ProviderNone);
    let began = Instant::now();
    let told = machine.call("echo", json!(2)).await;
    let took = began.elapsed();
    told.refused(503, Code::ProviderNone);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(
        told.body["error"]["details"].to_string().contains("silent"),
        "{}",
        told.body
    );
    assert_eq!(machine.job(&jobs[0]).await["state"], "queued");
    machine.provider("provider").set_here(true);
    for job in &jobs {
        assert_eq!(machine.job_in(job, "succeeded").await["provider"], "provider");
    }
    assert_eq!(machine.gauge("jobs_in_line").await, 0);
}

#[tokio::test]
async fn two_jobs_never_share_the_last_slot_and_the_second_waits() {
    let mut narrow = named("shelf", 1);
    narrow.slots = 1;
    let setup = Setup {
        own: vec![named("provider", 0)],
        others: vec![narrow],
        ..Setup::default()
    };
    let machine = Machine::start_with(setup).await;
    let pinned = json!({"placement": {"pin": ["shelf"]}});
    machine.deploy_with("busy", "wait", pinned).await.ok();
    let calls = join_all((0..4).map(|_| machine.call("busy", Value::Null)));
    let beside = async {
        until("three wait", async || {
            (machine.gauge("jobs_in_line").await == 3).then_some(())
        })
        .await;
        // The one with the slot has its ticket written first.
        until("one runs", async || {
            let running = machine.get("/jobs?state=running").await.ok();
            let running = running["items"].as_array().map(Vec::len);
            assert!(running <= Some(1), "{running:?}");
            (running == Some(1)).then_some(())
        })
        .await;
        machine.provider("shelf").release();
    };
    let (answers, ()) = tokio::join!(calls, beside);
    for answer in answers {
        assert_eq!(answer.ok()["output"], "released");
    }
    assert_eq!(machine.provider("shelf").jobs(), 4);
}

#[tokio::test]
async fn a_call_with_a_key_runs_once() {
    let machine = Machine::start().await;
    machine.deploy("n", "count").await;
    let send = async |key: &str, input: u32| {
        let request = machine
            .request(Method::POST, "/execute/n")
            .header("idempotency-key", key);
        machine.send(request, Some(json!({ "input": input }))).await
    };
    let first = send("k1", 1).await.ok();
    let again = send("k1", 1).await.ok();
    assert_eq!(
        (&first["job_id"], &first["output"]),
        (&again["job_id"], &again["output"])
    );
    send("k1", 2).await.refused(409, Code::IdempotencyConflict);
    let request = machine
        .request(Method::POST, "/execute/n")
        .header("idempotency-key", "k2");
    let accepted = machine.send(request.header("prefer", "respond-async"), Some(json!({"input": 1})));
    let accepted = accepted.await;
    assert_eq!(accepted.status.as_u16(), 202);
    let job = accepted.body["job_id"].as_str().expect("an id");
    let paid = machine.paid(job).await;
    assert_eq!((&paid["state"], &paid["output"]), (&json!("succeeded"), &json!(2)));
    let machine = machine.restart().await;
    let request = machine
        .request(Method::POST, "/execute/n")
        .header("idempotency-key", "k1");
    let kept = machine.send(request, Some(json!({"input": 1}))).await.ok();
    assert_eq!(kept["job_id"], first["job_id"], "the key is remembered");
}
