//! How the systems this one descends from could be cheated, and what happens here. One test a cheat.

use crate::machine::Machine;
use piecework_ledger::{Action, Register, Roles, SignedTransaction, Transaction, Transfer};
use piecework_model::{AccountId, Code, Credits, NetworkId, SecretKey};
use reqwest::Method;
use serde_json::{Value, json};

/// Signs as anybody would at home and posts it.
async fn post_signed(
    machine: &Machine,
    key: &SecretKey,
    sender: AccountId,
    nonce: u64,
    action: Action,
) -> crate::machine::Answer {
    let network: NetworkId =
        serde_json::from_value(machine.get("/ledger/status").await.ok()["network"].clone()).expect("an id");
    let signed = SignedTransaction::sign(Transaction { sender, nonce, action }, key, &network);
    let bytes = hex::encode(borsh::to_vec(&signed).expect("bytes"));
    machine
        .ask_as(
            None,
            Method::POST,
            "/ledger/transactions",
            Some(json!({"transaction": bytes})),
        )
        .await
}

async fn account_id(machine: &Machine, name: &str) -> AccountId {
    serde_json::from_value(machine.get(&format!("/accounts/{name}")).await.ok()["id"].clone()).expect("an id")
}

#[tokio::test]
async fn row_1_to_3_nobody_moves_mints_or_steals_credits() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let thief = SecretKey::from_seed([7; 32]);
    let operator = account_id(&machine, "operator").await;
    let before = machine.posted("operator").await;
    let take = Action::Transfer(Transfer {
        to: AccountId::of(&thief.public()),
        amount: Credits(1),
    });
    let nonce = machine.get("/accounts/operator").await.ok()["nonce"]
        .as_u64()
        .expect("a number");
    let refused = post_signed(&machine, &thief, operator, nonce, take).await;
    assert!(refused.status.is_client_error(), "{refused:?}");
    let transfer = |to: &str, amount: i64| json!({"to": to, "amount_ucr": amount});
    let ask = |body| machine.ask(Method::POST, "/transfers", Some(body));
    ask(transfer("provider", -5))
        .await
        .refused(422, Code::TransferNotPositive);
    ask(transfer("provider", 0))
        .await
        .refused(422, Code::TransferNotPositive);
    ask(transfer("operator", 5)).await.refused(422, Code::TransferSelf);
    ask(transfer("nobody", 5)).await.refused(404, Code::AccountNotFound);
    ask(transfer("provider", i64::MAX >> 10))
        .await
        .refused(402, Code::TransferInsufficient);
    assert_eq!(machine.posted("operator").await, before);
    let keyed = |amount: i64| {
        let request = machine
            .request(Method::POST, "/transfers")
            .header("idempotency-key", "once");
        machine.send(request.json(&transfer("provider", amount)))
    };
    let (first, again) = (keyed(5).await.ok(), keyed(5).await.ok());
    assert_eq!(first, again);
    keyed(6).await.refused(409, Code::IdempotencyConflict);
    assert_eq!(
        machine.posted("operator").await,
        before - 5,
        "a repeated transfer moves once"
    );

    let register = Action::Register(Register {
        name: "rich".parse().expect("a name"),
        roles: Roles::default(),
        sponsor: None,
        owner: None,
    });
    let register = || post_signed(&machine, &thief, AccountId::of(&thief.public()), 0, register.clone());
    let (first, again) = (register().await.ok(), register().await.ok());
    assert_eq!(first, again, "a lost answer is safe to ask for again");
    assert_eq!(
        machine.posted("rich").await,
        0,
        "whoever registers by himself has nothing"
    );
}

#[tokio::test]
async fn row_4_and_12_names_are_no_keys_and_others_functions_are_not_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    for body in [
        json!({"name": "controller"}),
        json!({"name": "controller", "password": ""}),
        json!({"name": "operator", "password": "operator"}),
    ] {
        let answer = machine.ask_as(None, Method::POST, "/sessions", Some(body)).await;
        assert!(
            matches!(answer.code(), Some(Code::AuthBadCredentials | Code::BodyMalformed)),
            "{answer:?}"
        );
    }
    machine.deploy("mine", "javascript", "export default () => 1;\n").await;
    let id = machine.get("/functions/mine").await.ok()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let eve = machine.person("eve", 100_000).await;
    let call = Some(json!({"input": null}));
    let mut tried = std::collections::BTreeSet::new();
    for (method, path, body) in [
        (Method::GET, format!("/functions/{id}"), None),
        (
            Method::PUT,
            format!("/functions/{id}"),
            Some(json!({"code": "export default () => 2;\n"})),
        ),
        (Method::DELETE, format!("/functions/{id}"), None),
        (Method::GET, format!("/functions/{id}/versions"), None),
        (Method::GET, format!("/functions/{id}/versions/1/log"), None),
        (Method::GET, format!("/functions/{id}/code"), None),
        (
            Method::POST,
            format!("/functions/{id}/rollback"),
            Some(json!({"version": 1})),
        ),
        (Method::GET, format!("/functions/{id}/logs"), None),
        (Method::GET, format!("/functions/{id}/traffic"), None),
        (
            Method::PUT,
            format!("/functions/{id}/traffic"),
            Some(json!({"weights": {"1": 1}})),
        ),
        (Method::DELETE, format!("/functions/{id}/traffic"), None),
        (
            Method::PUT,
            format!("/functions/{id}/budget"),
            Some(json!({"budget_ucr": 1})),
        ),
        (
            Method::PUT,
            format!("/functions/{id}/results"),
            Some(json!({"ttl_s": 60})),
        ),
        (Method::POST, format!("/functions/{id}/release"), None),
        (Method::POST, format!("/functions/{id}/restore"), None),
        (Method::POST, format!("/functions/{id}/stop"), None),
        (Method::POST, format!("/functions/{id}/start"), None),
        (Method::GET, format!("/functions/{id}/quote"), None),
        (Method::GET, format!("/functions/{id}/triggers"), None),
        (
            Method::PUT,
            format!("/functions/{id}/triggers/{{name}}"),
            Some(json!({"schedule": {"cron": "@daily"}})),
        ),
        (Method::DELETE, format!("/functions/{id}/triggers/{{name}}"), None),
        (Method::GET, format!("/metrics/functions/{id}"), None),
        (Method::POST, format!("/execute/{id}"), call.clone()),
        (Method::POST, "/execute".to_owned(), Some(json!({"function": id}))),
        (Method::GET, "/functions/mine".to_owned(), None),
        (Method::GET, "/fn/operator/mine".to_owned(), None),
    ] {
        tried.insert((method.as_str().to_lowercase(), path.clone()));
        let answer = machine.ask_as(Some(&eve), method.clone(), &path, body.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (404, Some(Code::FunctionNotFound)),
            "{method} {path}"
        );
        let anonymous = machine.ask_as(None, method.clone(), &path, body).await;
        assert_eq!(
            (anonymous.status.as_u16(), anonymous.code()),
            (401, Some(Code::AuthMissingToken)),
            "{method} {path}"
        );
    }
    let document = machine.get("/openapi.json").await.ok();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let of_one = path.contains("/functions/{id}") || path.contains("/execute/{id}");
        for method in methods.as_object().expect("methods").keys().filter(|_| of_one) {
            let verb = (method.clone(), path.replace("{id}", &id).replace("{version}", "1"));
            assert!(tried.contains(&verb), "{method} {path} is not tried as somebody else");
        }
    }
    let job = machine.call("mine", Value::Null).await.ok()["job_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for path in [
        format!("/jobs/{job}"),
        format!("/jobs/{job}/logs"),
        format!("/jobs/{job}/result"),
        format!("/jobs/{job}/history"),
    ] {
        machine
            .ask_as(Some(&eve), Method::GET, &path, None)
            .await
            .refused(404, Code::JobNotFound);
    }
    machine
        .ask_as(Some(&eve), Method::DELETE, &format!("/jobs/{job}"), None)
        .await
        .refused(404, Code::JobNotFound);
    assert_eq!(
        machine.call("mine", Value::Null).await.ok()["output"],
        1,
        "nothing changed"
    );
}

#[tokio::test]
async fn row_5_to_7_the_bill_is_bounded_by_what_ran_and_nobody_without_credits_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let poor = machine.person("poor", 0).await;
    let body = json!({"name": "f", "language": "javascript", "code": "export default () => 1;\n"});
    machine
        .ask_as(Some(&poor), Method::POST, "/functions", Some(body))
        .await
        .ok();
    let refused = machine
        .ask_as(Some(&poor), Method::POST, "/execute/f", Some(json!({})))
        .await;
    refused.refused(402, Code::AccountInsufficientCredits);
    let jobs = machine.ask_as(Some(&poor), Method::GET, "/jobs", None).await.ok();
    assert_eq!(jobs["items"], json!([]), "nothing ran");

    let sleepy = "import time\ndef handler(event, context):\n    time.sleep(0.3)\n";
    machine.deploy("sleepy", "python", sleepy).await;
    let answer = machine.call("sleepy", Value::Null).await.ok();
    let job = machine.paid(answer["job_id"].as_str().expect("an id")).await;
    let (cpu_us, wall_ms) = (
        job["cpu_us"].as_u64().expect("counted"),
        job["duration_ms"].as_f64().expect("timed"),
    );
    assert!(wall_ms >= 300.0, "{job}");
    assert!(cpu_us < 150_000, "sleeping is not billed as computing: {job}");
    assert_eq!(job["cold"], true);
    let quote = machine.get("/functions/sleepy/quote").await.ok();
    assert!(
        job["price_ucr"].as_u64() <= quote["price_max_ucr"].as_u64(),
        "{job} {quote}"
    );
    let again = machine.call("sleepy", Value::Null).await.ok();
    assert_eq!(again["cold"], false);
}

#[tokio::test]
async fn row_13_and_22_a_function_that_exits_forges_or_floods_harms_only_itself() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    for sandbox in ["wasm", "jail"] {
        let name = |suffix: &str| format!("{sandbox}-{suffix}");
        let deploy = async |suffix: &str, code: &str, more: Value| {
            let mut more = more;
            more["sandbox"] = json!(sandbox);
            machine.deploy_with(&name(suffix), "python", code, more).await.ok();
        };
        deploy(
            "exit",
            "import os\ndef handler(event, context):\n    os._exit(3)\n",
            json!({}),
        )
        .await;
        // Where there is no process of its own, there is nothing that could exit without a word.
        let (status, code) = match sandbox {
            "wasm" => (409, Code::SandboxUnsupported),
            _ => (502, Code::FunctionCrashed),
        };
        machine.call(&name("exit"), Value::Null).await.refused(status, code);
        deploy(
            "raise",
            "def handler(event, context):\n    raise ValueError('because')\n",
            json!({}),
        )
        .await;
        let raised = machine.call(&name("raise"), Value::Null).await;
        raised.refused(502, Code::FunctionRaised);
        assert_eq!(raised.body["error"]["details"]["type"], "ValueError");
        assert!(
            raised.body["error"]["details"]["stack"]
                .as_str()
                .is_some_and(|stack| stack.contains("main.py"))
        );
        deploy("print", "def handler(event, context):\n    print('x' * 1000000)\n    print('{\"forged\": 1}')\n    return 'honest'\n", json!({})).await;
        let printed = machine.call(&name("print"), Value::Null).await.ok();
        assert_eq!(printed["output"], "honest");
        let logs = machine
            .get(&format!("/jobs/{}/logs", printed["job_id"].as_str().expect("an id")))
            .await
            .ok();
        assert_eq!(logs["truncated"], true);
        deploy(
            "loop",
            "def handler(event, context):\n    while True:\n        pass\n",
            json!({"timeout_ms": 300}),
        )
        .await;
        for _ in 0..2 {
            machine
                .call(&name("loop"), Value::Null)
                .await
                .refused(504, Code::FunctionTimedOut);
        }
        deploy(
            "bomb",
            "def handler(event, context):\n    held = []\n    while True:\n        held.append(bytearray(1 << 20))\n",
            json!({"memory_limit_mb": 64}),
        )
        .await;
        machine
            .call(&name("bomb"), Value::Null)
            .await
            .refused(502, Code::FunctionOutOfMemory);
        deploy(
            "big",
            "def handler(event, context):\n    return 'x' * (8 << 20)\n",
            json!({}),
        )
        .await;
        machine
            .call(&name("big"), Value::Null)
            .await
            .refused(502, Code::FunctionOutputTooLarge);
        deploy("good", "def handler(event, context):\n    return 1\n", json!({})).await;
        assert_eq!(
            machine.call(&name("good"), Value::Null).await.ok()["output"],
            1,
            "the provider lives"
        );
    }
}

#[tokio::test]
async fn row_21_an_instance_serves_one_version_of_one_owner() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let eve = machine.person("eve", 10_000_000).await;
    let code = "let held = []; export default (event) => { held.push(event); return held; };\n";
    machine.deploy("f", "javascript", code).await;
    let body = json!({"name": "f", "language": "javascript", "code": code});
    machine
        .ask_as(Some(&eve), Method::POST, "/functions", Some(body))
        .await
        .ok();
    assert_eq!(machine.call("f", json!("mine")).await.ok()["output"], json!(["mine"]));
    assert_eq!(
        machine.call("f", json!("again")).await.ok()["output"],
        json!(["mine", "again"]),
        "warm"
    );
    let hers = machine
        .ask_as(Some(&eve), Method::POST, "/execute/f", Some(json!({"input": "hers"})))
        .await
        .ok();
    assert_eq!(
        hers["output"],
        json!(["hers"]),
        "the same code of another owner shares nothing"
    );
    machine
        .ask(Method::PUT, "/functions/f", Some(json!({"env": {"A": "1"}})))
        .await
        .ok();
    assert_eq!(
        machine.call("f", json!("new")).await.ok()["output"],
        json!(["new"]),
        "nor does another version"
    );
}

#[tokio::test]
async fn row_24_a_sandbox_that_is_missing_is_an_error_never_another() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start_in(directory.path(), &[("DOCKER_HOST", "unix:///nonexistent/docker.sock")]);
    for sandbox in ["microvm", "docker"] {
        let more = json!({"sandbox": sandbox});
        machine
            .deploy_with("f", "python", "def handler(event, context):\n    return 1\n", more)
            .await
            .refused(409, Code::SandboxUnavailable);
    }
    let more = json!({"sandbox": "vault"});
    machine
        .deploy_with("f", "python", "def handler(e, c): pass\n", more)
        .await
        .refused(422, Code::SandboxUnknown);
    let seen = "def handler(event, context):\n    import sys\n    return sys.maxsize > 2**31\n";
    machine
        .deploy_with("w", "python", seen, json!({"sandbox": "wasm"}))
        .await
        .ok();
    machine
        .deploy_with("j", "python", seen, json!({"sandbox": "jail"}))
        .await
        .ok();
    assert_eq!(machine.call("w", Value::Null).await.ok()["output"], false, "32 bits");
    assert_eq!(machine.call("j", Value::Null).await.ok()["output"], true);
}
