//! Pages of lists.

use axum::http::Method;
use piecework_model::Code;
use serde_json::json;

use crate::doubles::machine::Machine;

#[tokio::test]
async fn every_list_goes_on_where_its_page_ended() {
    let machine = Machine::start().await;
    machine.deploy("p", "return 1").await;
    for _ in 0..4 {
        let update = json!({"code": "return 1"});
        machine.ask(Method::PUT, "/functions/p", Some(update)).await.ok();
        let token = json!({"scopes": ["view"]});
        machine.ask(Method::POST, "/tokens", Some(token)).await.ok();
    }
    for (path, key, count) in [
        ("/functions/p/versions", "version", 5),
        ("/tokens", "id", 5),
        ("/audit", "id", 9),
    ] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = machine.get(&format!("{path}?limit=2{cursor}")).await.ok();
            let items = page["items"].as_array().expect("a list");
            assert!(items.len() <= 2);
            seen.extend(items.iter().map(|item| item[key].to_string()));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let once: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), once.len()), (count, count), "{path}: {seen:?}");
    }
    for path in [
        "/functions/p/versions",
        "/tokens",
        "/offers",
        "/providers",
        "/audit",
        "/jobs",
        "/statement",
    ] {
        machine
            .get(&format!("{path}?cursor=!"))
            .await
            .refused(422, Code::CursorMalformed);
    }
}

#[tokio::test]
async fn pages_of_jobs_of_a_state_are_no_longer_than_asked_and_miss_none() {
    let machine = Machine::start().await;
    machine.deploy("f", "raise every 3").await;
    for number in 0..12 {
        machine.call("f", json!(number)).await;
    }
    for (state, count) in [("failed", 4), ("succeeded", 8)] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = machine.get(&format!("/jobs?state={state}&limit=3{cursor}")).await.ok();
            let items = page["items"].as_array().expect("a list");
            assert!(items.len() <= 3, "{page}");
            seen.extend(items.iter().map(|item| item["id"].to_string()));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let once: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), once.len()), (count, count), "{state}: {seen:?}");
    }
}

#[tokio::test]
async fn a_rare_state_is_found_however_far_back_it_is() {
    let machine = Machine::start().await;
    machine.deploy("f", "raise every 1000").await;
    for number in [1000, 2000] {
        machine.call("f", json!(number)).await;
    }
    for number in 1..=100 {
        machine.call("f", json!(number)).await;
    }
    let page = machine.get("/jobs?state=failed&limit=1").await.ok();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{page}");
    let next = page["next"].as_str().expect("there is another one");
    let page = machine
        .get(&format!("/jobs?state=failed&limit=1&cursor={next}"))
        .await
        .ok();
    assert_eq!(
        (page["items"].as_array().map(Vec::len), page["next"].as_str()),
        (Some(1), None),
        "{page}"
    );
}

#[tokio::test]
async fn functions_are_filtered_by_a_part_of_their_name() {
    let machine = Machine::start().await;
    for name in ["alpha", "beta-one", "gamma", "one-more"] {
        machine.deploy(name, "return 1").await;
    }
    let page = machine.get("/functions?name=one&limit=1").await.ok();
    assert_eq!(
        (&page["items"][0]["name"], page["items"].as_array().map(Vec::len)),
        (&json!("beta-one"), Some(1))
    );
    let page = machine.get("/functions?name=one&limit=1&cursor=beta-one").await.ok();
    assert_eq!(
        (&page["items"][0]["name"], page["next"].as_str()),
        (&json!("one-more"), None),
        "{page}"
    );
}
