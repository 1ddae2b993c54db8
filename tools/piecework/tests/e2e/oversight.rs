//! What the platform and an operator watch over: quarantine, canaries, fair shares, budgets, rates, the audit record.

use std::time::{Duration, Instant};

use crate::machine::{Machine, SETTLED_WITHIN};
use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};

const CRASHES: &str =
    "export default (event) => { if (`${event}`.startsWith('crash')) process.exit(3); return 'fine'; };\n";

async fn until<T>(mut look: impl AsyncFnMut() -> Result<T, Value>) -> T {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < deadline, "never came: {seen}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn actions(audit: &Value) -> Vec<String> {
    let items = audit["items"].as_array().expect("a list");
    items
        .iter()
        .map(|item| item["action"].as_str().expect("an action").to_owned())
        .collect()
}

#[tokio::test]
async fn a_version_that_keeps_crashing_is_quarantined_until_released_or_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    machine.deploy("q", "javascript", CRASHES).await;
    let crash = async |nth: u32| {
        let input = json!(format!("crash {nth}"));
        machine.call("q", input).await.refused(502, Code::FunctionCrashed);
    };
    for nth in 0..9 {
        crash(nth).await;
    }
    machine.call("q", Value::Null).await.ok();
    for _ in 0..15 {
        crash(0).await;
    }
    // One input that kills it, however often, is no reason.
    machine.call("q", Value::Null).await.ok();
    for nth in 0..10 {
        crash(nth).await;
    }
    let refused = machine.call("q", Value::Null).await;
    refused.refused(409, Code::FunctionQuarantined);
    assert!(
        refused.body["error"]["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("--release"))
    );
    let queued = machine
        .request(Method::POST, "/execute/q")
        .header("prefer", "respond-async")
        .json(&json!({}));
    machine.send(queued).await.refused(409, Code::FunctionQuarantined);
    let machine = machine.kill_and_restart();
    machine
        .call("q", Value::Null)
        .await
        .refused(409, Code::FunctionQuarantined);
    let shown = machine.get("/functions/q").await.ok();
    assert_eq!(
        (
            &shown["status"],
            &shown["quarantine"]["code"],
            &shown["quarantine"]["failures"]
        ),
        (&json!("quarantined"), &json!(Code::FunctionCrashed), &json!(10))
    );
    let released = machine.ask(Method::POST, "/functions/q/release", None).await.ok();
    assert_eq!(released["status"], "ready");
    machine.call("q", Value::Null).await.ok();
    for nth in 0..10 {
        let input = json!(format!("crash {nth}"));
        machine.call("q", input).await.refused(502, Code::FunctionCrashed);
    }
    machine
        .call("q", Value::Null)
        .await
        .refused(409, Code::FunctionQuarantined);
    let fixed = json!({"code": "export default () => 'fixed';\n"});
    machine.ask(Method::PUT, "/functions/q", Some(fixed)).await.ok();
    assert_eq!(machine.call("q", json!("crash")).await.ok()["output"], "fixed");
    let audit = machine.get("/audit?target=q").await.ok();
    assert_eq!(
        actions(&audit),
        [
            "function.updated",
            "quarantine.set",
            "quarantine.released",
            "quarantine.set",
            "function.created"
        ]
    );
    assert_eq!(audit["items"][1]["actor"], "platform");
}

#[tokio::test]
async fn exceptions_do_not_quarantine() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    machine
        .deploy("r", "javascript", "export default () => { throw new Error('no'); };\n")
        .await;
    for _ in 0..25 {
        machine.call("r", Value::Null).await.refused(502, Code::FunctionRaised);
    }
}

#[tokio::test]
async fn calls_are_split_by_weight_and_a_failing_canary_is_rolled_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    machine.deploy("c", "javascript", "export default () => 1;\n").await;
    let put = async |body: Value| machine.ask(Method::PUT, "/functions/c", Some(body)).await;
    put(json!({"code": "export default () => 2;\n", "canary": 100}))
        .await
        .refused(422, Code::TrafficBadWeights);
    let updated = put(json!({"code": "export default () => 2;\n", "canary": 50}))
        .await
        .ok();
    assert_eq!(updated["version"], 1, "the live one stays live");
    let mut seen = [0, 0];
    for _ in 0..60 {
        let version = machine.call("c", Value::Null).await.ok()["output"]
            .as_u64()
            .expect("a number");
        seen[usize::try_from(version).expect("small") - 1] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "both get calls: {seen:?}");
    let traffic = machine.get("/functions/c/traffic").await.ok();
    assert_eq!(
        (&traffic["versions"][1]["version"], &traffic["versions"][1]["calls"]),
        (&json!(2), &json!(seen[1]))
    );
    for (version, calls) in [(1, seen[0]), (2, seen[1])] {
        until(async || {
            let view = machine
                .get(&format!("/metrics/functions/c?step=hour&version={version}"))
                .await
                .ok();
            let points = view["points"].as_array().expect("points");
            let count: u64 = points.iter().filter_map(|point| point["count"].as_u64()).sum();
            if count == calls { Ok(()) } else { Err(view.clone()) }
        })
        .await;
    }

    put(json!({"code": "export default () => { throw new Error('no'); };\n", "canary": 10}))
        .await
        .ok();
    let set = json!({"weights": {"1": 1, "3": 9}, "calls_min": 5, "errors_permille_max": 200});
    machine.ask(Method::PUT, "/functions/c/traffic", Some(set)).await.ok();
    let mut failed = 0;
    for _ in 0..300 {
        let answer = machine.call("c", Value::Null).await;
        failed += u32::from(!answer.status.is_success());
    }
    assert_eq!(failed, 5, "the canary is gone after the calls it is judged by");
    let shown = machine.get("/functions/c").await.ok();
    assert_eq!((&shown["version"], &shown["traffic"]), (&json!(1), &Value::Null));
    let audit = machine.get("/audit?action=traffic.").await.ok();
    assert_eq!(actions(&audit), ["traffic.rolled_back", "traffic.set"]);
    assert_eq!(audit["items"][0]["detail"]["version"], 3);

    let split = async |weights: Value| {
        let body = json!({"weights": weights});
        machine.ask(Method::PUT, "/functions/c/traffic", Some(body)).await
    };
    split(json!({"9": 1})).await.refused(404, Code::VersionNotFound);
    split(json!({"1": 0})).await.refused(422, Code::TrafficBadWeights);
    split(json!({})).await.refused(422, Code::TrafficBadWeights);
    split(json!({"1": 0, "2": 100})).await.ok();
    assert_eq!(machine.call("c", Value::Null).await.ok()["output"], 2);
    machine
        .ask(Method::POST, "/functions/c/rollback", Some(json!({"version": 1})))
        .await
        .ok();
    assert_eq!(
        machine.call("c", Value::Null).await.ok()["output"],
        1,
        "a rollback takes all calls"
    );
}

#[tokio::test]
async fn one_developers_queue_does_not_starve_anothers_call() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let (greedy, modest) = (
        machine.person("greedy", 50_000_000).await,
        machine.person("modest", 10_000_000).await,
    );
    let sleeps = json!({"name": "sleeps", "language": "javascript", "concurrency": 1000,
        "code": "export default () => new Promise((done) => setTimeout(done, 250, 1));\n"});
    let quick = json!({"name": "quick", "language": "javascript", "code": "export default () => 2;\n"});
    machine
        .ask_as(Some(&greedy), Method::POST, "/functions", Some(sleeps))
        .await
        .ok();
    machine
        .ask_as(Some(&modest), Method::POST, "/functions", Some(quick))
        .await
        .ok();
    let slots = machine.get("/providers").await.ok()["items"][0]["slots"]
        .as_u64()
        .expect("slots");
    // Ten rounds of every slot.
    let jobs = slots * 10;
    let accept = || {
        let request = machine
            .request_as(&greedy, Method::POST, "/execute/sleeps")
            .header("prefer", "respond-async")
            .json(&json!({}));
        machine.send(request)
    };
    let accepted = futures::future::join_all((0..jobs).map(|_| accept())).await;
    for answer in &accepted {
        assert_eq!(answer.status.as_u16(), 202, "{}", answer.body);
    }
    let call = machine
        .ask_as(Some(&modest), Method::POST, "/execute/quick", Some(json!({})))
        .await
        .ok();
    assert_eq!(call["output"], 2);
    let metrics = machine.get("/metrics").await.body;
    let in_line = metrics
        .as_str()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("piecework_jobs_in_line "))
        })
        .and_then(|number| number.parse::<u64>().ok())
        .expect("the gauge");
    assert!(
        in_line > slots,
        "the others wait still: {in_line} of {jobs} over {slots} slots"
    );
}

#[tokio::test]
async fn a_budget_stops_calls_and_tells_its_owner() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let view = machine
        .deploy_with(
            "b",
            "javascript",
            "export default () => 1;\n",
            json!({"budget_ucr": 100}),
        )
        .await
        .ok();
    assert_eq!(
        (&view["budget"]["budget_ucr"], &view["budget"]["spent_ucr"]),
        (&json!(100), &json!(0))
    );
    let mut spent = 0;
    let refused = loop {
        let answer = machine.call("b", Value::Null).await;
        if !answer.status.is_success() {
            break answer;
        }
        assert!(spent < 100, "a call begins only below the budget");
        spent += answer.body["price_ucr"].as_u64().expect("a price");
    };
    refused.refused(402, Code::FunctionBudgetSpent);
    assert!(spent >= 100);
    let queued = machine
        .request(Method::POST, "/execute/b")
        .header("prefer", "respond-async")
        .json(&json!({}));
    machine.send(queued).await.refused(402, Code::FunctionBudgetSpent);
    let audit = machine.get("/audit?action=budget.alert").await.ok();
    assert_eq!(audit["items"][0]["detail"]["percent"], 100, "{audit}");
    let machine = machine.kill_and_restart();
    machine
        .call("b", Value::Null)
        .await
        .refused(402, Code::FunctionBudgetSpent);
    let shown = machine.get("/functions/b").await.ok();
    assert_eq!(
        shown["budget"]["spent_ucr"].as_u64(),
        Some(spent),
        "what was spent survives"
    );
    let raised = json!({"budget_ucr": spent + 1});
    machine.ask(Method::PUT, "/functions/b/budget", Some(raised)).await.ok();
    machine.call("b", Value::Null).await.ok();
    machine
        .call("b", Value::Null)
        .await
        .refused(402, Code::FunctionBudgetSpent);
    let none = json!({"budget_ucr": 0});
    machine.ask(Method::PUT, "/functions/b/budget", Some(none)).await.ok();
    machine.call("b", Value::Null).await.ok();
    let shown = machine.get("/functions/b").await.ok();
    assert_eq!((&shown["version"], &shown["budget"]), (&json!(1), &Value::Null));
}

#[tokio::test]
async fn an_account_over_its_rate_waits_and_others_do_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let (ada, bob) = (machine.person("ada", 0).await, machine.person("bob", 0).await);
    let set = |body: Value| machine.ask(Method::PUT, "/accounts/ada/limits", Some(body));
    set(json!({"requests_per_s": 0}))
        .await
        .refused(422, Code::RateBadLimits);
    set(json!({"weight": 101})).await.refused(422, Code::RateBadLimits);
    let limits = json!({"requests_per_s": 1, "burst": 3});
    machine
        .ask_as(Some(&ada), Method::PUT, "/accounts/ada/limits", Some(limits.clone()))
        .await
        .refused(403, Code::AuthOperator);
    machine
        .ask_as(Some(&ada), Method::GET, "/accounts/bob/limits", None)
        .await
        .refused(403, Code::AuthOperator);
    set(limits).await.ok();
    let list = async |token: &str| machine.ask_as(Some(token), Method::GET, "/functions", None).await;
    let answers = futures::future::join_all((0..20).map(|_| list(&ada))).await;
    let refused: Vec<_> = answers.iter().filter(|answer| !answer.status.is_success()).collect();
    assert!(refused.len() >= 10, "{} of 20", refused.len());
    refused[0].refused(429, Code::RateLimited);
    assert_eq!(refused[0].headers["retry-after"], "1");
    for answer in futures::future::join_all((0..20).map(|_| list(&bob))).await {
        answer.ok();
    }
    until(async || {
        let answer = list(&ada).await;
        if answer.status.is_success() {
            Ok(())
        } else {
            Err(answer.body)
        }
    })
    .await;
}

#[tokio::test]
async fn guessing_a_password_is_throttled() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    machine.person("ada", 0).await;
    let log_in = async |password: &str| {
        let body = json!({"name": "ada", "password": password});
        machine.ask_as(None, Method::POST, "/sessions", Some(body)).await
    };
    for _ in 0..10 {
        log_in("wrong horse").await.refused(401, Code::AuthBadCredentials);
    }
    let refused = log_in("correct horse").await;
    refused.refused(429, Code::AuthRateLimited);
    assert_eq!(refused.headers["retry-after"], "60");
}

#[tokio::test]
async fn who_changed_what_is_recorded_and_shown_to_who_is_concerned() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let ada = machine.person("ada", 1_000).await;
    let as_ada =
        async |method: Method, path: &str, body: Option<Value>| machine.ask_as(Some(&ada), method, path, body).await;
    let deploy = json!({"name": "f", "language": "javascript", "code": "export default () => 1;\n",
        "secrets": {"KEY": "s3cr3t-value"}});
    as_ada(Method::POST, "/functions", Some(deploy)).await.ok();
    let token = as_ada(Method::POST, "/tokens", Some(json!({"scopes": ["view"]})))
        .await
        .ok();
    let id = token["id"].as_str().expect("an id").to_owned();
    as_ada(Method::DELETE, &format!("/tokens/{id}"), None).await;
    let transfer = json!({"to": "operator", "amount_ucr": 5});
    as_ada(Method::POST, "/transfers", Some(transfer)).await.ok();
    as_ada(Method::DELETE, "/functions/f", None).await;
    let own = as_ada(Method::GET, "/audit", None).await.ok();
    assert_eq!(
        actions(&own),
        [
            "function.deleted",
            "transfer.made",
            "token.deleted",
            "token.created",
            "function.created",
            "session.opened",
            "account.registered"
        ]
    );
    for item in own["items"].as_array().expect("a list") {
        assert_eq!((&item["actor"], &item["owner"]), (&json!("ada"), &json!("ada")));
    }
    let text = own.to_string();
    assert!(
        !text.contains("s3cr3t-value") && !text.contains("correct horse"),
        "{text}"
    );
    assert!(!text.contains(token["token"].as_str().expect("a token")));
    let first = machine.get("/audit?limit=2").await.ok();
    assert_eq!(
        actions(&first),
        ["function.deleted", "transfer.made"],
        "an operator sees everybody's"
    );
    let next = format!("/audit?limit=100&cursor={}", first["next"].as_str().expect("more"));
    let rest = actions(&machine.get(&next).await.ok());
    assert!(
        rest.contains(&"invite.created".to_owned()) && rest.contains(&"transfer.made".to_owned()),
        "{rest:?}"
    );
    machine.get("/audit?cursor=x").await.refused(422, Code::CursorMalformed);
    let machine = machine.kill_and_restart();
    assert_eq!(
        actions(&machine.get("/audit?limit=2").await.ok()),
        ["function.deleted", "transfer.made"]
    );
}

#[tokio::test]
async fn every_list_goes_on_where_its_page_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let code = "export default () => 1;\n";
    machine.deploy("p", "javascript", code).await;
    for _ in 0..4 {
        let update = json!({"code": code});
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
async fn a_stopped_function_takes_no_calls_until_it_is_started() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let code = "let calls = 0; export default () => ++calls;\n";
    machine.deploy("s", "javascript", code).await;
    machine.call("s", Value::Null).await.ok();
    let post = async |verb: &str| machine.ask(Method::POST, &format!("/functions/s/{verb}"), None).await;
    for _ in 0..2 {
        assert_eq!(post("stop").await.ok()["status"], "stopped");
    }
    let machine = machine.kill_and_restart();
    let post = async |verb: &str| machine.ask(Method::POST, &format!("/functions/s/{verb}"), None).await;
    machine.call("s", Value::Null).await.refused(409, Code::FunctionStopped);
    machine.get("/fn/operator/s").await.refused(409, Code::FunctionStopped);
    let queued = machine
        .request(Method::POST, "/execute/s")
        .header("prefer", "respond-async")
        .json(&json!({}));
    machine.send(queued).await.refused(409, Code::FunctionStopped);
    for _ in 0..2 {
        assert_eq!(post("start").await.ok()["status"], "ready");
    }
    machine.call("s", Value::Null).await.ok();
    let audit = machine.get("/audit?target=s").await.ok();
    assert_eq!(
        actions(&audit),
        ["function.started", "function.stopped", "function.created"]
    );
}

#[tokio::test]
async fn a_deleted_function_is_restored_and_its_metrics_stay() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let code = "export default () => 1;\n";
    let id = machine.deploy("gone", "javascript", code).await["id"].clone();
    machine.deploy("other", "javascript", code).await;
    let id = id.as_str().expect("an id");
    machine.call("gone", Value::Null).await.ok();
    let remove = async || {
        machine
            .ask(Method::DELETE, "/functions/gone", None)
            .await
            .status
            .as_u16()
    };
    assert_eq!(remove().await, 204);
    machine
        .call("gone", Value::Null)
        .await
        .refused(404, Code::FunctionNotFound);
    until(async || {
        let view = machine.get(&format!("/metrics/functions/{id}?step=hour")).await.ok();
        if view["points"][0]["count"] == 1 {
            Ok(())
        } else {
            Err(view)
        }
    })
    .await;
    let named = async |query: &str| {
        let list = machine.get(&format!("/functions?{query}")).await.ok();
        let items = list["items"].as_array().expect("a list");
        items
            .iter()
            .map(|item| item["name"].as_str().expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (named("").await, named("deleted=true").await),
        (vec!["other".to_owned()], vec!["gone".to_owned()])
    );
    assert_eq!(named("name=oth").await, ["other"]);
    assert!(named("name=gone").await.is_empty() && named("name=x&deleted=true").await.is_empty());
    machine.ask(Method::POST, "/functions/gone/restore", None).await.ok();
    machine.call("gone", Value::Null).await.ok();
    machine
        .ask(Method::POST, "/functions/gone/restore", None)
        .await
        .refused(409, Code::FunctionNotDeleted);
    machine
        .ask(Method::POST, "/functions/never/restore", None)
        .await
        .refused(404, Code::FunctionNotFound);
    assert_eq!(remove().await, 204);
    machine.deploy("gone", "javascript", code).await;
    machine
        .ask(Method::POST, &format!("/functions/{id}/restore"), None)
        .await
        .refused(409, Code::FunctionExists);
}
