//! Where a developer's jobs run: each thing that a function may ask of a provider, on a network of two.

use axum::http::Method;
use piecework_model::Code;
use serde_json::{Value, json};

use crate::doubles::{
    answer::Answer,
    machine::{Machine, Setup, named, until},
};

/// The controller's own provider is `provider`, of the region `local`; the other one is cheaper, smaller and has a label.
async fn two_providers() -> Machine {
    let mut shelf = named("shelf", 1);
    shelf.region = "shelf".to_owned();
    shelf.labels = vec!["gpu".to_owned()];
    shelf.memory_bytes = 256 << 20;
    shelf.prices.cpu_ucr_per_s = 10;
    shelf.prices.memory_ucr_per_gib_s = 1;
    Machine::start_with(Setup {
        others: vec![shelf],
        ..Setup::default()
    })
    .await
}

async fn deploy(machine: &Machine, name: &str, placement: Value, more: Value) -> Answer {
    let mut settings = more;
    settings["placement"] = placement;
    machine.deploy_with(name, "echo", settings).await
}

/// The id of the provider that runs a call of the function, and why the other did not.
async fn runs_on(machine: &Machine, name: &str) -> (Value, Value) {
    let answer = machine.call(name, json!(1)).await;
    let job = answer.headers["x-job-id"].to_str().expect("text").to_owned();
    answer.ok();
    let view = machine.job(&job).await;
    (
        view["provider"].clone(),
        view["passed_over"]["providers"][0]["reason"].clone(),
    )
}

#[tokio::test]
async fn a_job_runs_where_its_function_asks_and_the_record_says_why_not_elsewhere() {
    let machine = two_providers().await;
    let local = json!("provider");
    let shelf = json!("shelf");
    let cases = [
        (
            "region-local",
            json!({"region": "local"}),
            json!({}),
            &local,
            "wrong_region",
        ),
        (
            "region-shelf",
            json!({"region": "shelf"}),
            json!({}),
            &shelf,
            "wrong_region",
        ),
        ("label", json!({"labels": ["gpu"]}), json!({}), &shelf, "missing_label"),
        (
            "cap",
            json!({"price_cap": {"cpu_ucr_per_s": 150}}),
            json!({}),
            &shelf,
            "too_dear",
        ),
        ("own", json!({"pin": ["own"]}), json!({}), &local, "not_pinned"),
        ("pinned", json!({"pin": ["shelf"]}), json!({}), &shelf, "not_pinned"),
        (
            "cheapest",
            json!({"policy": "cheapest"}),
            json!({}),
            &shelf,
            "outranked",
        ),
        (
            "large",
            json!({}),
            json!({"memory_limit_mb": 512}),
            &local,
            "too_little_memory",
        ),
    ];
    for (name, placement, more, expected, reason) in cases {
        deploy(&machine, name, placement.clone(), more).await.ok();
        let (ran_on, why) = runs_on(&machine, name).await;
        assert_eq!((&ran_on, &why), (expected, &json!(reason)), "{name}");
        let shown = machine.get(&format!("/functions/{name}")).await.ok();
        assert_eq!(shown["placement"], placement, "{name}");
    }
    // A part that is not given stays; an empty one is lifted.
    let update = json!({"placement": {"labels": [], "region": "shelf"}});
    let updated = machine.ask(Method::PUT, "/functions/label", Some(update)).await.ok();
    assert_eq!(updated["placement"], json!({"region": "shelf"}));
}

#[tokio::test]
async fn what_nobody_fits_is_refused_with_the_reasons_before_anybody_sees_the_code() {
    let machine = two_providers().await;
    let reasons = async |placement| {
        let refused = deploy(&machine, "f", placement, json!({})).await;
        refused.refused(503, Code::ProviderNone);
        let listed = refused.body["error"]["details"]["reasons"]
            .as_array()
            .cloned()
            .expect("a list");
        listed
            .into_iter()
            .map(|each| each["reason"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        reasons(json!({"region": "moon"})).await,
        [json!("wrong_region"), json!("wrong_region")]
    );
    assert_eq!(
        reasons(json!({"region": "local", "labels": ["gpu"]})).await,
        [json!("missing_label"), json!("wrong_region")]
    );
    assert_eq!(
        reasons(json!({"price_cap": {"cpu_ucr_per_s": 5}})).await,
        [json!("too_dear"), json!("too_dear")]
    );
    assert_eq!(
        reasons(json!({"trust": "trusted", "region": "shelf"})).await,
        [json!("wrong_region"), json!("too_little_trust")]
    );
    for (placement, code, field) in [
        (
            json!({"pin": ["nobody"]}),
            Code::PlacementUnknownProvider,
            "placement.pin",
        ),
        (
            json!({"pin": ["operator"]}),
            Code::PlacementUnknownProvider,
            "placement.pin",
        ),
        (json!({"pin": vec!["own"; 101]}), Code::PlacementBadPin, "placement.pin"),
        (
            json!({"policy": "fastest"}),
            Code::PlacementBadPolicy,
            "placement.policy",
        ),
        (json!({"trust": "blind"}), Code::PlacementBadTrust, "placement.trust"),
        (
            json!({"region": "x".repeat(65)}),
            Code::PlacementBadRegion,
            "placement.region",
        ),
        (json!({"labels": [""]}), Code::PlacementBadLabel, "placement.labels"),
    ] {
        let refused = deploy(&machine, "f", placement, json!({})).await;
        refused.refused(422, code);
        assert_eq!(refused.body["error"]["field"], field);
    }
    let refused = deploy(&machine, "f", json!({}), json!({"rerun_percent": 101})).await;
    refused.refused(422, Code::PlacementBadRerun);
    // A function that is pinned to a computer waits for it, and is told why when it does not come.
    deploy(&machine, "pinned", json!({"pin": ["shelf"]}), json!({}))
        .await
        .ok();
    machine.provider("shelf").set_here(false);
    until("it is seen to be gone", async || {
        (machine.shown("shelf").await["state"] == "gone").then_some(())
    })
    .await;
    let refused = machine.call("pinned", json!(1)).await;
    refused.refused(503, Code::ProviderNone);
}

#[tokio::test]
async fn a_provider_that_left_is_listed_for_an_hour() {
    let machine = Machine::start_with(Setup {
        others: vec![named("away", 1)],
        ..Setup::default()
    })
    .await;
    let away = machine.provider("away");
    away.set_here(false);
    away.set_silent(3_599_000);
    assert_eq!(machine.shown("away").await["state"], "gone");
    away.set_silent(3_600_000);
    for path in ["/providers", "/offers"] {
        let list = machine.get(path).await.ok();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    }
    away.set_here(true);
    assert_eq!(machine.shown("away").await["state"], "ready");
}
