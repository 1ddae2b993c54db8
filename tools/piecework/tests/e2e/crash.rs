//! SIGKILL under load: nothing acknowledged is lost, nothing is paid twice.

use std::{collections::BTreeSet, time::Duration};

use crate::machine::Machine;
use reqwest::Method;
use serde_json::{Value, json};

const KILLS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_machine_in_a_loop_under_load_loses_no_accepted_job_and_pays_none_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut machine = Machine::start(directory.path());
    machine
        .deploy("py", "python", "def handler(event, context):\n    return event\n")
        .await;
    machine
        .deploy("js", "javascript", "export default (event) => event;\n")
        .await;
    let supply = supply(&machine).await;
    let mut accepted = BTreeSet::new();
    for round in 0..KILLS {
        // From a fraction of a settlement's period to a few of them.
        let lifetime = Duration::from_millis(50 + round * 83 % 1_400);
        tokio::select! {
            () = load(&machine, round, &mut accepted) => {}
            () = tokio::time::sleep(lifetime) => {}
        }
        machine = machine.kill_and_restart();
    }
    assert!(accepted.len() as u64 > KILLS, "there was load: {}", accepted.len());
    let mut owed = 0;
    for job in &accepted {
        let view = machine.paid(job).await;
        assert_eq!(view["state"], "succeeded", "{view}");
        owed += view["price_ucr"].as_i64().expect("a price");
    }
    let paid = payments(&machine).await;
    for job in &accepted {
        assert_eq!(
            paid.iter().filter(|other| *other == job).count(),
            1,
            "{job} is paid once"
        );
    }
    let once: BTreeSet<_> = paid.iter().collect();
    assert_eq!(once.len(), paid.len(), "no job at all is paid twice");
    let used = machine.get("/leases").await.ok()["items"][0]["used_ucr"]
        .as_i64()
        .expect("a sum");
    assert!(used >= owed, "synchronous calls are paid as well");
    assert_eq!(self::supply(&machine).await, supply, "credits are conserved");
}

async fn load(machine: &Machine, round: u64, accepted: &mut BTreeSet<String>) {
    for number in 0u64.. {
        let name = if number % 2 == 0 { "py" } else { "js" };
        let ask = |prefer: bool| {
            let request = machine.request(Method::POST, &format!("/execute/{name}"));
            let request = if prefer {
                request.header("prefer", "respond-async")
            } else {
                request
            };
            machine.send(request.json(&json!({"input": [round, number]})))
        };
        let answers = futures::future::join_all((0..8).map(|index| ask(index % 4 != 0))).await;
        for answer in answers.into_iter().filter(|answer| answer.status.as_u16() == 202) {
            accepted.insert(answer.body["job_id"].as_str().expect("an id").to_owned());
        }
    }
}

/// Every job that any settlement on the ledger names, as often as it was paid: read from the blocks themselves.
async fn payments(machine: &Machine) -> Vec<String> {
    let mut paid = Vec::new();
    let head = machine.get("/ledger/status").await.ok()["height"]
        .as_u64()
        .expect("a height");
    let mut seen = BTreeSet::new();
    for height in 1..=head {
        let block = machine.get(&format!("/ledger/blocks/{height}")).await.ok();
        for item in block["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|item| item["kind"] == "settle")
        {
            let settle = &item["body"]["settle"];
            for job in settle["jobs"].as_array().expect("jobs") {
                // A sequence that an earlier settlement has taken is skipped by the ledger.
                let place = (settle["provider"].to_string(), job["sequence"].as_u64());
                if item.get("rejection").is_none_or(Value::is_null) && seen.insert(place) {
                    paid.push(job["job"].as_str().expect("an id").to_owned());
                }
            }
        }
    }
    paid
}

/// Credits of the three accounts there are, and what the pools got (commission that reached no account).
async fn supply(machine: &Machine) -> i64 {
    let mut sum = 0;
    for account in ["operator", "controller", "provider"] {
        sum += machine.posted(account).await;
    }
    sum + machine.get("/ledger/status").await.ok()["pools_ucr"]
        .as_i64()
        .expect("a sum")
}
