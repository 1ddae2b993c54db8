//! Whose word is worth what: reference jobs, claims that are refused or held, results that are compared.

use piecework_model::Code;
use piecework_sandbox::ERROR_TEXT_BYTES_MAX;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    computer::{Computer, invite, provider},
    machine::Machine,
    providers::{payments_for, until},
    rogue::{Lie, Rogue},
};

const ECHO: &str = "export default (event) => event;\n";

/// Runs where it is cheapest: at the rogue, as long as it gets jobs.
fn cheapest() -> Value {
    json!({"sandbox": "wasm", "placement": {"policy": "cheapest"}})
}

async fn call(machine: &Machine, name: &str, input: Value) -> (String, Value) {
    let answer = machine.call(name, input).await;
    let job = answer.headers["x-job-id"].to_str().expect("text").to_owned();
    (job, answer.ok()["output"].clone())
}

async fn job(machine: &Machine, job: &str) -> Value {
    machine.get(&format!("/jobs/{job}")).await.ok()
}

/// Once its first reference job is behind it: then its standing changes by what the test does.
async fn after_the_reference(machine: &Machine, name: &str) -> Value {
    until("the reference job is over", async || {
        let standing = provider(machine, name).await["standing"].clone();
        let checked = standing["right"].as_u64()? + standing["wrong"].as_u64()?;
        (checked > 0).then_some(standing)
    })
    .await
}

async fn standing(machine: &Machine, name: &str) -> Value {
    provider(machine, name).await["standing"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_provider_earns_its_first_credits_without_any_developers_job() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = Machine::start_with(home.path(), &["--no-provider"]);
    let code = invite(&machine).await;
    let _laptop = Computer::start(away.path(), &machine.url, "laptop", &["--invite", &code]);
    let earned = until("it is paid for the reference job", async || {
        let seen = provider(&machine, "laptop").await;
        seen["earned_ucr"].as_i64().filter(|earned| *earned > 0)
    })
    .await;
    let standing = standing(&machine, "laptop").await;
    assert_eq!(
        (&standing["right"], &standing["wrong"]),
        (&json!(1), &json!(0)),
        "{standing}"
    );
    assert!(standing["cpu_us_per_unit"].as_u64() > Some(0), "measured: {standing}");
    let jobs = machine.get("/jobs").await.ok();
    let paid: i64 = jobs["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|job| {
            assert_eq!(job["function"], "piecework-reference");
            job["price_ucr"].as_i64().expect("a price")
        })
        .sum();
    assert!(paid >= earned, "{paid} covers {earned} and the commission");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fails_the_reference_job_gets_no_other_and_nothing_for_it() {
    let home = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(home.path());
    let rogue = Rogue::join(&machine, "rogue", Lie::Honest, false).await;
    let found = after_the_reference(&machine, "rogue").await;
    assert_eq!(
        (&found["trust"], &found["wrong"]),
        (&json!("suspended"), &json!(1)),
        "{found}"
    );
    machine.deploy_with("echo", "javascript", ECHO, cheapest()).await.ok();
    let (id, output) = call(&machine, "echo", json!(1)).await;
    let view = job(&machine, &id).await;
    assert_eq!((&view["provider"], &output), (&json!("provider"), &json!(1)));
    assert_eq!(
        view["passed_over"]["providers"],
        json!([{"provider": "rogue", "reason": "too_little_trust"}])
    );
    machine.paid(&id).await;
    assert_eq!(
        (rogue.jobs(), &provider(&machine, "rogue").await["earned_ucr"]),
        (0, &json!(0))
    );
    // What was found survives the controller's death.
    drop(rogue);
    let machine = machine.kill_and_restart();
    let refused = machine.get("/held").await.ok()["items"].clone();
    assert_eq!(
        (&refused[0]["provider"], &refused[0]["state"]),
        (&json!("rogue"), &json!("refused"))
    );
}

/// Rows 5, 6, 7, 11 of what the originals were cheated by, and what a provider can make up beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_5_to_11_what_was_not_ordered_is_not_taken_and_another_provider_answers() {
    let home = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(home.path());
    let lies = [
        ("job", Lie::ForAnotherJob),
        ("ticket", Lie::OfAnotherTicket),
        ("name", Lie::ForSomeoneElse),
        ("digest", Lie::OtherDigest),
        ("much", Lie::TooMuch),
        ("logs", Lie::TooManyLogs),
        ("replay", Lie::Replayed),
    ];
    machine.deploy_with("echo", "javascript", ECHO, cheapest()).await.ok();
    for (name, lie) in lies {
        let rogue = Rogue::join(&machine, name, Lie::Honest, true).await;
        after_the_reference(&machine, name).await;
        let (honest, _) = call(&machine, "echo", json!("first")).await;
        assert_eq!(job(&machine, &honest).await["provider"], name, "the cheapest gets it");
        machine.paid(&honest).await;
        rogue.lies(lie);
        let (id, output) = call(&machine, "echo", json!(name)).await;
        assert_eq!((rogue.jobs(), &output), (2, &json!(name)), "{lie:?}");
        let view = machine.paid(&id).await;
        assert_eq!(view["provider"], "provider", "{lie:?}: another one ran it: {view}");
        let paid = payments_for(&machine, &id).await;
        assert_eq!(paid.len(), 1, "{lie:?}: paid once");
        let found = standing(&machine, name).await;
        assert_eq!(
            (&found["trust"], &found["wrong"]),
            (&json!("suspended"), &json!(1)),
            "{lie:?}"
        );
        drop(rogue);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_else_can_run_it_the_caller_hears_of_the_bad_result() {
    let home = tempfile::tempdir().expect("a directory");
    let machine = Machine::start_with(home.path(), &["--no-provider"]);
    let rogue = Rogue::join(&machine, "rogue", Lie::Honest, true).await;
    after_the_reference(&machine, "rogue").await;
    machine.deploy("echo", "javascript", ECHO).await;
    rogue.lies(Lie::OtherDigest);
    let refused = machine.call("echo", json!(1)).await;
    refused.refused(503, Code::ProviderBadResult);
    assert_eq!(standing(&machine, "rogue").await["trust"], "suspended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_says_megabytes_of_itself_is_cut() {
    let home = tempfile::tempdir().expect("a directory");
    let machine = Machine::start_with(home.path(), &["--no-provider"]);
    let rogue = Rogue::join(&machine, "rogue", Lie::Honest, true).await;
    after_the_reference(&machine, "rogue").await;
    machine.deploy("echo", "javascript", ECHO).await;
    rogue.lies(Lie::LongError);
    let raised = machine.call("echo", json!(1)).await;
    raised.refused(502, Code::FunctionRaised);
    let details = &raised.body["error"]["details"];
    for (field, letter) in [("type", "k"), ("message", "m"), ("stack", "s")] {
        assert_eq!(details[field], letter.repeat(ERROR_TEXT_BYTES_MAX), "{field}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_5_who_claims_more_than_was_seen_gets_nothing_and_the_caller_his_answer() {
    let home = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(home.path());
    machine.deploy_with("echo", "javascript", ECHO, cheapest()).await.ok();
    for (name, lie) in [("time", Lie::TooMuchTime), ("dear", Lie::TooDear)] {
        let rogue = Rogue::join(&machine, name, lie, true).await;
        after_the_reference(&machine, name).await;
        let mut cheated = Vec::new();
        for round in 0..3 {
            let (id, output) = call(&machine, "echo", json!(round)).await;
            let view = job(&machine, &id).await;
            assert_eq!((&view["provider"], &output), (&json!(name), &json!(round)));
            assert_eq!(
                (&view["price_ucr"], &view["received"]),
                (&json!(0), &json!(false)),
                "{view}"
            );
            cheated.push(id);
        }
        let found = standing(&machine, name).await;
        assert_eq!(
            (&found["trust"], &found["overclaimed"]),
            (&json!("suspended"), &json!(3))
        );
        let (id, _) = call(&machine, "echo", json!("next")).await;
        machine.paid(&id).await;
        assert_eq!(rogue.jobs(), 3, "the fourth went elsewhere");
        for id in cheated {
            assert_eq!(payments_for(&machine, &id).await, Vec::<Value>::new());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_stands_out_is_held_until_an_operator_decides() {
    let home = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(home.path());
    let rogue = Rogue::join(&machine, "rogue", Lie::Honest, true).await;
    after_the_reference(&machine, "rogue").await;
    machine.deploy_with("echo", "javascript", ECHO, cheapest()).await.ok();
    for round in 0..25 {
        call(&machine, "echo", json!(round)).await;
    }
    rogue.lies(Lie::Slow);
    let mut held = Vec::new();
    for round in 0..2 {
        held.push(call(&machine, "echo", json!(round)).await.0);
    }
    rogue.lies(Lie::Honest);
    let (after, _) = call(&machine, "echo", json!("after")).await;
    machine.paid(&after).await;
    for id in &held {
        let view = job(&machine, id).await;
        assert_eq!(
            (&view["paid"], &view["held"]["state"]),
            (&json!(false), &json!("held")),
            "{view}"
        );
        assert!(
            view["held"]["reason"]
                .as_str()
                .expect("a sentence")
                .contains("CPU time"),
            "{view}"
        );
    }
    // Held it stays when the controller dies.
    let machine = machine.kill_and_restart();
    let list = machine.get("/held").await.ok();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2), "{list}");
    drop(rogue);
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
    let rogue = Rogue::back(&machine, "rogue").await;
    machine.paid(&held[0]).await;
    let view = job(&machine, &held[1]).await;
    assert_eq!(
        (&view["paid"], &view["held"]["state"]),
        (&json!(false), &json!("refused")),
        "{view}"
    );
    assert_eq!(standing(&machine, "rogue").await["overclaimed"], 1);
    drop(rogue);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_found_by_a_second_run_unpaid_and_on_the_ledger() {
    let home = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(home.path());
    let rogue = Rogue::join(&machine, "rogue", Lie::Honest, true).await;
    after_the_reference(&machine, "rogue").await;
    let mut settings = cheapest();
    settings["rerun_percent"] = json!(100);
    machine.deploy_with("echo", "javascript", ECHO, settings).await.ok();
    let (id, _) = call(&machine, "echo", json!("right")).await;
    machine.paid(&id).await;
    until("the same result twice is known to be right", async || {
        (standing(&machine, "rogue").await["right"] == 2).then_some(())
    })
    .await;
    rogue.lies(Lie::Garbage);
    let (id, output) = call(&machine, "echo", json!("wrong")).await;
    assert_eq!(output, json!("garbage"), "the first caller cannot know");
    let found = until("the contradiction is found", async || {
        let found = standing(&machine, "rogue").await;
        (found["wrong"] == 1).then_some(found)
    })
    .await;
    assert_eq!(found["trust"], "suspended");
    until("it is on the ledger", async || {
        let account = machine.get("/ledger/accounts/rogue").await.ok();
        (account["mismatches"] == 1).then_some(())
    })
    .await;
    let view = job(&machine, &id).await;
    assert_eq!(
        (&view["paid"], &view["held"]["state"]),
        (&json!(false), &json!("refused")),
        "{view}"
    );
    let jobs = machine.get("/jobs?function=echo").await.ok();
    let items = jobs["items"].as_array().expect("a list");
    let rerun = items
        .iter()
        .find(|job| job["rerun_of"] == id.as_str())
        .expect("the second run");
    assert_eq!(rerun["provider"], "provider");
    machine.paid(rerun["id"].as_str().expect("an id")).await;
    let (_, output) = call(&machine, "echo", json!("again")).await;
    assert_eq!((output, rogue.jobs()), (json!("again"), 2), "it gets no more jobs");
    assert_eq!(payments_for(&machine, &id).await, Vec::<Value>::new());
}
