//! Whose word is worth what: reference jobs, claims that are refused or held, results that are compared.

use std::time::Duration;

use axum::http::Method;
use piecework_model::Code;
use piecework_sandbox::ERROR_TEXT_BYTES_MAX;
use serde_json::{Value, json};

use crate::{
    Tuning,
    doubles::{
        machine::{Machine, Setup, named, until},
        provider::{Double, Lie},
    },
};

/// The controller's own provider, and a cheaper stranger.
async fn with_a_rogue(tuning: Tuning) -> Machine {
    let mut rogue = named("rogue", 1);
    rogue.prices.cpu_ucr_per_s /= 2;
    rogue.prices.memory_ucr_per_gib_s /= 2;
    Machine::start_with(Setup {
        others: vec![rogue],
        tuning,
        ..Setup::default()
    })
    .await
}

/// The stranger alone.
async fn alone(reference_every: Duration) -> Machine {
    Machine::start_with(Setup {
        own: Vec::new(),
        others: vec![named("rogue", 0)],
        tuning: Tuning {
            reference_every,
            ..Setup::default().tuning
        },
        alerts: Vec::new(),
    })
    .await
}

fn rogue(machine: &Machine) -> &Double {
    machine.provider("rogue")
}

/// Runs where it is cheapest: at the rogue, as long as it gets jobs.
async fn deploy_echo(machine: &Machine, mut more: Value) {
    more["placement"] = json!({"policy": "cheapest"});
    machine.deploy_with("echo", "echo", more).await.ok();
}

async fn call(machine: &Machine, input: Value) -> (String, Value) {
    let answer = machine.call("echo", input).await;
    let job = answer.headers["x-job-id"].to_str().expect("text").to_owned();
    (job, answer.ok()["output"].clone())
}

async fn standing(machine: &Machine) -> Value {
    machine.shown("rogue").await["standing"].clone()
}

/// Jobs of the rogue that the ledger has paid.
fn paid_jobs(machine: &Machine) -> u64 {
    machine.jobs_paid_to("rogue")
}

const OFTEN: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_new_provider_earns_its_first_credits_without_any_developers_job() {
    let machine = alone(OFTEN).await;
    let earned = until("it is paid for the reference job", async || {
        let seen = machine.shown("rogue").await;
        seen["earned_ucr"].as_i64().filter(|earned| *earned > 0)
    })
    .await;
    let standing = standing(&machine).await;
    assert_eq!(
        (&standing["right"], &standing["wrong"]),
        (&json!(1), &json!(0)),
        "{standing}"
    );
    assert!(standing["cpu_us_per_unit"].as_u64() > Some(0), "measured: {standing}");
    let jobs = machine.get("/jobs").await.ok();
    let job = &jobs["items"][0];
    assert_eq!(job["function"], "piecework-reference");
    assert!(job["price_ucr"].as_i64() >= Some(earned), "{job} covers {earned}");
    assert_eq!(rogue(&machine).jobs(), 0);
}

#[tokio::test]
async fn who_fails_the_reference_job_gets_no_other_and_nothing_for_it() {
    let tuning = Tuning {
        reference_every: OFTEN,
        ..Setup::default().tuning
    };
    let machine = with_a_rogue(tuning).await;
    rogue(&machine).set_computes(false);
    let found = until("the reference job is over", async || {
        let standing = standing(&machine).await;
        (standing["right"].as_u64()? + standing["wrong"].as_u64()? > 0).then_some(standing)
    })
    .await;
    assert_eq!(
        (&found["trust"], &found["wrong"]),
        (&json!("suspended"), &json!(1)),
        "{found}"
    );
    deploy_echo(&machine, json!({})).await;
    let (id, output) = call(&machine, json!(1)).await;
    let view = machine.job(&id).await;
    assert_eq!((&view["provider"], &output), (&json!("provider"), &json!(1)));
    assert_eq!(
        view["passed_over"]["providers"],
        json!([{"provider": "rogue", "reason": "too_little_trust"}])
    );
    machine.paid(&id).await;
    assert_eq!((rogue(&machine).jobs(), paid_jobs(&machine)), (0, 0));
    // What was found is known after a restart.
    let machine = machine.restart().await;
    let refused = machine.get("/held").await.ok()["items"].clone();
    assert_eq!(
        (&refused[0]["provider"], &refused[0]["state"]),
        (&json!("rogue"), &json!("refused"))
    );
    assert_eq!(standing(&machine).await["trust"], "suspended");
}

/// Rows 5, 6, 7, 11 of what the originals were cheated by, and what a provider can make up beside them.
#[tokio::test]
async fn row_5_to_11_what_was_not_ordered_is_not_taken_and_another_provider_answers() {
    for lie in [
        Lie::ForAnotherJob,
        Lie::OfAnotherTicket,
        Lie::ForSomeoneElse,
        Lie::OtherDigest,
        Lie::TooMuch,
        Lie::TooManyLogs,
        Lie::Replayed,
    ] {
        let machine = with_a_rogue(Setup::default().tuning).await;
        deploy_echo(&machine, json!({})).await;
        let (honest, _) = call(&machine, json!("first")).await;
        assert_eq!(machine.paid(&honest).await["provider"], "rogue", "the cheapest gets it");
        rogue(&machine).lies(lie);
        let (id, output) = call(&machine, json!("asked")).await;
        assert_eq!((rogue(&machine).jobs(), &output), (2, &json!("asked")), "{lie:?}");
        let view = machine.paid(&id).await;
        assert_eq!(view["provider"], "provider", "{lie:?}: another one ran it: {view}");
        assert_eq!(machine.jobs_paid_to("provider"), 1, "{lie:?}: paid once");
        assert_eq!(paid_jobs(&machine), 1, "{lie:?}: for the honest one");
        let found = standing(&machine).await;
        assert_eq!(
            (&found["trust"], &found["wrong"]),
            (&json!("suspended"), &json!(1)),
            "{lie:?}"
        );
    }
}

#[tokio::test]
async fn where_nobody_else_can_run_it_the_caller_hears_of_the_bad_result() {
    let machine = alone(Duration::ZERO).await;
    machine.deploy("echo", "echo").await;
    rogue(&machine).lies(Lie::OtherDigest);
    let refused = machine.call("echo", json!(1)).await;
    refused.refused(503, Code::ProviderBadResult);
    assert_eq!(standing(&machine).await["trust"], "suspended");
}

#[tokio::test]
async fn an_error_that_says_megabytes_of_itself_is_cut() {
    let machine = alone(Duration::ZERO).await;
    machine.deploy("echo", "echo").await;
    rogue(&machine).lies(Lie::LongError);
    let raised = machine.call("echo", json!(1)).await;
    raised.refused(502, Code::FunctionRaised);
    let details = &raised.body["error"]["details"];
    for (field, letter) in [("type", "k"), ("message", "m"), ("stack", "s")] {
        assert_eq!(details[field], letter.repeat(ERROR_TEXT_BYTES_MAX), "{field}");
    }
}

#[tokio::test]
async fn row_5_who_claims_more_than_was_seen_gets_nothing_and_the_caller_the_answer() {
    for lie in [Lie::TooMuchTime, Lie::TooDear] {
        let machine = with_a_rogue(Setup::default().tuning).await;
        rogue(&machine).lies(lie);
        deploy_echo(&machine, json!({})).await;
        let mut cheated = Vec::new();
        for round in 0..3 {
            let (id, output) = call(&machine, json!(round)).await;
            let view = machine.job(&id).await;
            assert_eq!((&view["provider"], &output), (&json!("rogue"), &json!(round)));
            assert_eq!(
                (&view["price_ucr"], &view["received"]),
                (&json!(0), &json!(false)),
                "{view}"
            );
            cheated.push(id);
        }
        let found = standing(&machine).await;
        assert_eq!(
            (&found["trust"], &found["overclaimed"]),
            (&json!("suspended"), &json!(3)),
            "{lie:?}"
        );
        let (id, _) = call(&machine, json!("next")).await;
        machine.paid(&id).await;
        assert_eq!(rogue(&machine).jobs(), 3, "the fourth went elsewhere");
        assert_eq!(paid_jobs(&machine), 0, "{lie:?}");
        for id in cheated {
            assert_eq!(machine.job(&id).await["paid"], false);
        }
    }
}

#[tokio::test]
async fn a_claim_that_stands_out_is_held_until_an_operator_decides() {
    let machine = with_a_rogue(Setup::default().tuning).await;
    deploy_echo(&machine, json!({})).await;
    for round in 0..25 {
        call(&machine, json!(round)).await;
    }
    rogue(&machine).lies(Lie::Slow);
    let mut held = Vec::new();
    for round in 0..2 {
        held.push(call(&machine, json!(round)).await.0);
    }
    rogue(&machine).lies(Lie::Honest);
    let (after, _) = call(&machine, json!("after")).await;
    machine.paid(&after).await;
    for id in &held {
        let view = machine.job(id).await;
        assert_eq!(
            (&view["paid"], &view["held"]["state"]),
            (&json!(false), &json!("held")),
            "{view}"
        );
        let reason = view["held"]["reason"].as_str().expect("a sentence");
        assert!(reason.contains("CPU time"), "{view}");
    }
    // Held it stays over a restart.
    let machine = machine.restart().await;
    let list = machine.get("/held").await.ok();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2), "{list}");
    let stranger = machine.person("dora", 0).await;
    machine
        .ask_as(Some(&stranger), Method::GET, "/held", None)
        .await
        .refused(403, Code::AuthOperator);
    let decide = async |id: &str, decision: &str| {
        let body = json!({"decision": decision});
        machine.ask(Method::POST, &format!("/held/{id}"), Some(body)).await
    };
    decide(&held[0], "release").await.ok();
    decide(&held[1], "refuse").await.ok();
    decide(&held[1], "release").await.refused(409, Code::ReceiptNotHeld);
    machine.paid(&held[0]).await;
    let view = machine.job(&held[1]).await;
    assert_eq!(
        (&view["paid"], &view["held"]["state"]),
        (&json!(false), &json!("refused")),
        "{view}"
    );
    assert_eq!(standing(&machine).await["overclaimed"], 1);
}

#[tokio::test]
async fn garbage_is_found_by_a_second_run_unpaid_and_on_the_ledger() {
    let machine = with_a_rogue(Setup::default().tuning).await;
    deploy_echo(&machine, json!({"rerun_percent": 100})).await;
    let (id, _) = call(&machine, json!("right")).await;
    machine.paid(&id).await;
    until("the same result twice is known to be right", async || {
        (standing(&machine).await["right"] == 1).then_some(())
    })
    .await;
    rogue(&machine).lies(Lie::Garbage);
    let (id, output) = call(&machine, json!("wrong")).await;
    assert_eq!(output, json!("garbage"), "the first caller cannot know");
    let found = until("the contradiction is found", async || {
        let found = standing(&machine).await;
        (found["wrong"] == 1).then_some(found)
    })
    .await;
    assert_eq!(found["trust"], "suspended");
    until("it is on the ledger", async || {
        (machine.mismatches_of("rogue") == 1).then_some(())
    })
    .await;
    let view = machine.job(&id).await;
    assert_eq!(
        (&view["paid"], &view["held"]["state"]),
        (&json!(false), &json!("refused")),
        "{view}"
    );
    let jobs = machine.get("/jobs?function=echo").await.ok();
    let items = jobs["items"].as_array().expect("a list");
    let rerun = items.iter().find(|job| job["rerun_of"] == id.as_str());
    let rerun = rerun.expect("the second run");
    assert_eq!(rerun["provider"], "provider");
    machine.paid(rerun["id"].as_str().expect("an id")).await;
    let (_, output) = call(&machine, json!("again")).await;
    assert_eq!(
        (output, rogue(&machine).jobs()),
        (json!("again"), 2),
        "it gets no more jobs"
    );
    assert_eq!(paid_jobs(&machine), 1, "for the right one");
}
