//! Deposits, withdrawals and routes as they are typed.

use std::{path::Path, process::Output};

use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    command_line::command,
    machine::{Machine, SETTLED_WITHIN},
};

/// Somebody at a terminal.
struct Person<'a> {
    machine: &'a Machine,
    home: &'a Path,
    token: String,
}

impl Person<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = command(self.home);
        command
            .env("PIECEWORK_URL", &self.machine.url)
            .env("PIECEWORK_TOKEN", &self.token);
        command.args(arguments).output().expect("it runs")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat())).expect("JSON")
    }

    fn refused(&self, arguments: &[&str], code: Code) {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {said}");
        assert!(said.starts_with(code.as_str()), "{said}");
    }

    /// The statement, once it has this line.
    fn states(&self, line: &str) {
        let deadline = std::time::Instant::now() + SETTLED_WITHIN;
        loop {
            let csv = self.ok(&["statement", "--csv"]);
            if csv.contains(line) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{line} is not in {csv}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credits_are_booked_in_and_out_at_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let machine = Machine::start_with(&folder.path().join("data"), &["--no-provider"]);
    let person = |token: &str| Person {
        machine: &machine,
        home: folder.path(),
        token: token.to_owned(),
    };
    let operator = person(&machine.token);
    let ada = person(&machine.person("ada", 0).await);
    let add = ["deposits", "add", "ada", "5cr", "--reference", "SEPA-4711"];
    assert!(operator.ok(&add).contains("booked as `SEPA-4711`"));
    assert!(operator.ok(&add).contains("nothing more moved"));
    operator.refused(
        &["deposits", "add", "ada", "6cr", "--reference", "SEPA-4711"],
        Code::ReferenceTaken,
    );
    ada.refused(
        &["deposits", "add", "ada", "6cr", "--reference", "mine"],
        Code::AuthOperator,
    );
    assert_eq!(machine.posted("ada").await, 5_000_000);
    assert!(operator.ok(&["deposits"]).contains("SEPA-4711"));
    ada.states(",deposit,operator,SEPA-4711,0,5000000,");
    operator.states(",deposit,ada,SEPA-4711,0,-5000000,");

    // Each command is a request of its own once it was answered.
    let first = ada.json(&["withdrawals", "request", "1cr", "--pay-to", "DE00"]);
    let second = ada.json(&["withdrawals", "request", "1cr", "--pay-to", "DE00"]);
    assert_ne!(first["id"], second["id"]);
    assert_eq!(machine.posted("ada").await, 3_000_000);
    let id = |view: &Value| view["id"].as_str().expect("an id").to_owned();
    let open = operator.ok(&["withdrawals", "--all", "--open"]);
    assert!(open.contains(&id(&first)) && open.contains(&id(&second)), "{open}");
    operator.ok(&["withdrawals", "settle", &id(&first), "--reference", "OUT-1"]);
    operator.ok(&["withdrawals", "decline", &id(&second), "--reason", "no such account"]);
    operator.refused(
        &["withdrawals", "decline", &id(&first), "--reason", "late"],
        Code::WithdrawalDecided,
    );
    assert_eq!(machine.posted("ada").await, 4_000_000);
    ada.states(",withdrawal_returned,operator,no such account,0,1000000,");
    let shown = ada.ok(&["withdrawals"]);
    assert!(shown.contains("settled") && shown.contains("declined"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_set_at_the_command_line_leads_to_the_function() {
    let folder = tempfile::tempdir().expect("a folder");
    let machine = Machine::start(&folder.path().join("data"));
    let operator = Person {
        machine: &machine,
        home: folder.path(),
        token: machine.token.clone(),
    };
    let code = "def handler(event, context):\n    return event['path']\n";
    machine.deploy("orders", "python", code).await;
    let said = operator.ok(&["routes", "set", "/api/orders", "orders", "--method", "GET"]);
    assert!(said.contains("/r/operator/api/orders leads to orders"), "{said}");
    assert_eq!(machine.get("/r/operator/api/orders/7").await.ok(), json!("/7"));
    let refused = machine.ask(Method::POST, "/r/operator/api/orders/7", None).await;
    refused.refused(405, Code::MethodNotAllowed);
    assert!(operator.ok(&["routes"]).contains("GET"));
    operator.ok(&["routes", "assign", "shop.example.org", "operator"]);
    operator.ok(&["routes", "set", "/", "orders", "--host", "shop.example.org"]);
    let visit = machine.request(Method::GET, "/cart").header("host", "shop.example.org");
    assert_eq!(machine.send(visit).await.ok(), json!("/cart"));
    operator.ok(&["routes", "remove", "/api/orders"]);
    machine
        .get("/r/operator/api/orders/7")
        .await
        .refused(404, Code::PathNotFound);
}
