//! Results that go to their developer's own place, across restarts.

use axum::http::Method;
use piecework_model::Code;
use piecework_sink::{Parcel, Sink};
use serde_json::{Value, json};

use crate::doubles::machine::{Machine, until};

/// Larger than what is kept of synchronous calls otherwise.
const LARGE: usize = 40_000;

async fn result_is(machine: &Machine, job: &str, state: &str) -> Value {
    until(&format!("the result is {state}"), async || {
        let view = machine.job(job).await;
        (view["result"]["state"] == state).then_some(view)
    })
    .await
}

async fn called(machine: &Machine, name: &str, input: Value) -> String {
    let answer = machine.call(name, input).await.ok();
    answer["job_id"].as_str().expect("an id").to_owned()
}

/// What was sent of a job.
fn sent(machine: &Machine, job: &str) -> Vec<(Sink, Parcel)> {
    let all = machine.place.sent().into_iter();
    all.filter(|(_, parcel)| parcel.job.to_string() == job).collect()
}

#[tokio::test]
async fn what_a_sink_does_not_take_is_tried_again_across_a_restart_or_stays_here() {
    let machine = Machine::start().await;
    machine.place.refuse_with(Some(503));
    let sink = json!({"results": {"sink": {"kind": "http", "url": "https://example.org/in"}}});
    machine.deploy_with("echo", "echo", sink).await.ok();
    let output = "x".repeat(LARGE);
    let job = called(&machine, "echo", json!(output)).await;
    until("it was tried", async || {
        (!sent(&machine, &job).is_empty()).then_some(())
    })
    .await;
    let machine = machine.restart().await;
    let view = result_is(&machine, &job, "delivering").await;
    assert_eq!(view["output"], output.as_str(), "until then it is here");
    machine.place.refuse_with(None);
    let view = result_is(&machine, &job, "delivered").await;
    assert_eq!(view["output"], Value::Null, "it is there now");
    let (_, last) = sent(&machine, &job).pop().expect("sent");
    assert_eq!(last.output.as_deref(), Some(json!(output).to_string().as_bytes()));
    machine
        .get(&format!("/jobs/{job}/result"))
        .await
        .refused(404, Code::ResultElsewhere);

    machine.place.refuse_with(Some(410));
    let job = called(&machine, "echo", json!(2)).await;
    let view = result_is(&machine, &job, "undelivered").await;
    assert_eq!(
        (&view["output"], &view["result"]["detail"]),
        (&json!(2), &json!("it answered 410")),
        "{view}"
    );
    assert_eq!(machine.get(&format!("/jobs/{job}/result")).await.ok(), json!(2));
    assert_eq!(sent(&machine, &job).len(), 1, "it said never again");
}

#[tokio::test]
async fn a_webhook_hears_of_jobs_that_are_cancelled_wherever_they_are() {
    let machine = Machine::start().await;
    let hook = json!({"concurrency": 1, "results": {"sink": {"kind": "webhook", "url": "https://example.org/hook"}}});
    machine.deploy_with("busy", "wait", hook).await.ok();
    let mut jobs = vec![machine.accepted("busy", Value::Null).await];
    machine.job_in(&jobs[0], "running").await;
    for _ in 0..3 {
        jobs.push(machine.accepted("busy", Value::Null).await);
    }
    let cancel = async |machine: &Machine, job: &str| {
        let answer = machine.ask(Method::DELETE, &format!("/jobs/{job}"), None).await;
        assert_eq!(answer.status.as_u16(), 204, "{}", answer.body);
        let view = machine.job(job).await;
        assert_eq!(view["state"], "cancelled", "{view}");
    };
    // Waiting behind another; running; and of an earlier start, whether they have been taken up again or not.
    cancel(&machine, &jobs[3]).await;
    cancel(&machine, &jobs[0]).await;
    let machine = machine.restart().await;
    cancel(&machine, &jobs[1]).await;
    cancel(&machine, &jobs[2]).await;
    for job in &jobs {
        result_is(&machine, job, "delivered").await;
        let (_, parcel) = sent(&machine, job).pop().expect("it was told");
        let told: Value = serde_json::from_slice(&parcel.report).expect("JSON");
        assert_eq!(
            (&told["state"], &told["error"]["code"]),
            (&json!("cancelled"), &json!(Code::JobCancelled))
        );
        let again = machine.ask(Method::DELETE, &format!("/jobs/{job}"), None).await;
        again.refused(409, Code::JobFinished);
    }
}
