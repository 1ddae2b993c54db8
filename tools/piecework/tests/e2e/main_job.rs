//! The main job: a function deployed, served, metered and paid.

use crate::machine::Machine;
use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};

const PYTHON: &str = "def handler(event, context):\n    print('greeting', event)\n    sum(i * i for i in range(event.get('work', 0)))\n    return {'hello': event['name'], 'job': context.job_id}\n";
const JAVASCRIPT: &str = "export default async (event, context) => { console.log('greeting'); let n = 0; for (let i = 0; i < (event.work ?? 0); i++) n += i; return {hello: event.name, job: context.job_id}; }\n";

#[tokio::test]
async fn a_function_is_deployed_called_metered_and_paid_by_exactly_its_price() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    for (name, language, code, work) in [
        ("py", "python", PYTHON, 3_000_000),
        ("js", "javascript", JAVASCRIPT, 12_000_000),
    ] {
        let patient = json!({"timeout_ms": 120_000});
        let function = machine.deploy_with(name, language, code, patient).await.ok();
        assert_eq!(
            (&function["version"], &function["sandbox"]),
            (&json!(1), &json!("wasm")),
            "{function}"
        );
        let before = (machine.posted("operator").await, machine.posted("provider").await);
        let answer = machine.call(name, json!({"name": "Ada", "work": work})).await.ok();
        assert_eq!(answer["output"]["hello"], "Ada");
        assert_eq!(answer["output"]["job"], answer["job_id"]);
        let job = machine.paid(answer["job_id"].as_str().expect("an id")).await;
        assert_eq!((&job["state"], &job["received"]), (&json!("succeeded"), &json!(true)));
        assert_eq!(job["price_ucr"], answer["price_ucr"]);
        let after = (machine.posted("operator").await, machine.posted("provider").await);
        let (price, commission) = (amount(&job["price_ucr"]), amount(&job["commission_ucr"]));
        assert!(price > 34 && commission > 0, "a job that works costs something: {job}");
        assert_eq!(before.0 - after.0, price, "the developer paid exactly the price");
        assert_eq!(
            after.1 - before.1,
            price - commission,
            "the provider got it less the commission"
        );
        let history = machine
            .get(&format!("/jobs/{}/history", text(&answer["job_id"])))
            .await
            .ok();
        let events: Vec<_> = history["items"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|item| text(&item["event"]))
            .collect();
        assert_eq!(events, ["opened", "assigned", "metered", "received", "paid"]);
        let logs = machine
            .get(&format!("/jobs/{}/logs", text(&answer["job_id"])))
            .await
            .ok();
        assert!(text(&logs["text"]).contains("greeting"), "{logs}");
    }
    assert!(machine.stop(), "it stops cleanly");
}

fn amount(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("not an amount: {value}"))
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a text: {value}"))
        .to_owned()
}

#[tokio::test]
async fn a_plain_url_passes_method_path_query_headers_and_body_and_answers_by_shape() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let code = "def handler(event, context):\n    return {'status': 201, 'headers': {'x-seen': event['headers'].get('x-mine', '')}, 'body': event['method'] + ' ' + event['path'] + ' ' + event['query'].get('q', '') + ' ' + str(event['body'])}\n";
    machine
        .deploy_with("web", "python", code, json!({"public": true}))
        .await
        .ok();
    let request = machine
        .request(Method::PUT, "/fn/operator/web/a/b?q=1")
        .header("x-mine", "yes")
        .body("text");
    let answer = machine.send(request).await;
    assert_eq!(answer.status.as_u16(), 201);
    assert_eq!(answer.headers["x-seen"], "yes");
    assert_eq!(answer.body, json!("PUT /a/b 1 text"));
    let job = answer.headers["x-job-id"].to_str().expect("an id").to_owned();
    machine.paid(&job).await;
    let anonymous = machine.ask_as(None, Method::GET, "/fn/operator/web", None).await;
    assert_eq!(anonymous.status.as_u16(), 201, "public functions need no token");
    machine.deploy("closed", "python", PYTHON).await;
    machine
        .ask_as(None, Method::GET, "/fn/operator/closed", None)
        .await
        .refused(401, Code::AuthMissingToken);
    machine
        .ask_as(None, Method::GET, "/fn/operator/nothing", None)
        .await
        .refused(401, Code::AuthMissingToken);
}

#[tokio::test]
async fn versions_roll_back_and_secrets_are_never_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let code = "import os\ndef handler(event, context):\n    print(os.environ['KEY'])\n    return os.environ['KEY'] + os.environ['PLAIN']\n";
    let more = json!({"secrets": {"KEY": "s3cr3t-value"}, "env": {"PLAIN": "!"}});
    let function = machine.deploy_with("v", "python", code, more).await.ok();
    assert!(!function.to_string().contains("s3cr3t-value"));
    assert_eq!(function["secret_names"], json!(["KEY"]));
    let answer = machine.call("v", Value::Null).await.ok();
    assert_eq!(answer["output"], "s3cr3t-value!");
    let logs = machine
        .get(&format!("/jobs/{}/logs", text(&answer["job_id"])))
        .await
        .ok();
    assert!(!logs.to_string().contains("s3cr3t-value"), "{logs}");
    let two = json!({"code": "def handler(event, context):\n    return 2\n"});
    let updated = machine.ask(Method::PUT, "/functions/v", Some(two)).await.ok();
    assert_eq!(updated["version"], 2);
    assert_eq!(machine.call("v", Value::Null).await.ok()["output"], 2);
    let back = machine
        .ask(Method::POST, "/functions/v/rollback", Some(json!({"version": 1})))
        .await
        .ok();
    assert_eq!(back["version"], 1);
    assert_eq!(machine.call("v", Value::Null).await.ok()["output"], "s3cr3t-value!");
    machine
        .ask(Method::POST, "/functions/v/rollback", Some(json!({"version": 9})))
        .await
        .refused(404, Code::VersionNotFound);
    assert_eq!(
        machine.ask(Method::DELETE, "/functions/v", None).await.status.as_u16(),
        204
    );
    machine
        .call("v", Value::Null)
        .await
        .refused(404, Code::FunctionNotFound);
}

#[tokio::test]
async fn metrics_count_what_ran() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    machine
        .deploy(
            "m",
            "javascript",
            "export default (event) => { if (event) throw new Error('no'); return 1; }\n",
        )
        .await;
    for fails in [false, false, true] {
        let answer = machine.call("m", json!(fails)).await;
        assert_eq!(answer.status.is_success(), !fails);
    }
    let deadline = std::time::Instant::now() + crate::machine::SETTLED_WITHIN;
    let points = loop {
        let view = machine.get("/metrics/functions/m?step=minute").await.ok();
        let points = view["points"].as_array().expect("points").clone();
        let count: i64 = points.iter().map(|point| amount(&point["count"])).sum();
        if count == 3 {
            break points;
        }
        assert!(std::time::Instant::now() < deadline, "{view}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let sum = |field: &str| points.iter().map(|point| amount(&point[field])).sum::<i64>();
    assert_eq!((sum("errors"), sum("cold")), (1, 1));
    let prometheus = text(&machine.get("/metrics").await.body);
    assert!(
        prometheus.contains(r#"piecework_jobs_total{sandbox="wasm",language="javascript",state="succeeded"} 2"#),
        "{prometheus}"
    );
    assert!(prometheus.contains(r#"state="failed"} 1"#));
}

#[tokio::test]
async fn a_strict_functions_job_is_on_the_ledger_before_it_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    machine
        .deploy_with("s", "javascript", "export default () => 1;\n", json!({"strict": true}))
        .await
        .ok();
    let answer = machine.call("s", Value::Null).await.ok();
    let job = machine.paid(&text(&answer["job_id"])).await;
    let paid_height = amount(&job["paid_height"]);
    let mut opened = None;
    for height in 1..=paid_height {
        let block = machine.get(&format!("/ledger/blocks/{height}")).await.ok();
        let items = block["items"].as_array().expect("transactions");
        if items
            .iter()
            .any(|item| item["kind"] == "open_jobs" && item["body"].to_string().contains(&text(&answer["job_id"])))
        {
            opened = Some(height);
        }
    }
    assert!(
        opened.is_some_and(|height| height < paid_height),
        "opened at {opened:?}, paid at {paid_height}"
    );
    let history = machine
        .get(&format!("/jobs/{}/history", text(&answer["job_id"])))
        .await
        .ok();
    let of = |event: &str| {
        let items = history["items"].as_array().expect("a list");
        let found = items.iter().find(|item| item["event"] == event);
        found.unwrap_or_else(|| panic!("no {event} in {history}")).clone()
    };
    assert_eq!(of("opened")["height"].as_i64(), opened);
    for step in ["metered", "received", "paid"] {
        assert_eq!(of(step)["height"].as_i64(), Some(paid_height), "{step}");
        assert_eq!(
            of(step)["transaction"],
            of("paid")["transaction"],
            "one settlement brings them"
        );
        assert!(of(step)["block_at"].is_string());
    }
}
