//! SIGKILL under load: nothing acknowledged is lost, nothing is paid twice.

use std::{collections::BTreeSet, sync::Mutex, time::Duration};

use crate::machine::Machine;
use reqwest::Method;
use serde_json::{Value, json};

const KILLS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_machine_in_a_loop_under_load_loses_no_job_that_a_caller_was_told_of_and_pays_none_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut machine = Machine::start(directory.path());
    machine
        .deploy("py", "python", "def handler(event, context):\n    return event\n")
        .await;
    machine
        .deploy("js", "javascript", "export default (event) => event;\n")
        .await;
    let supply = supply(&machine).await;
    let told = Mutex::new(BTreeSet::new());
    for round in 0..KILLS {
        // From a fraction of a settlement's period to a few of them.
        let lifetime = Duration::from_millis(50 + round * 83 % 1_400);
        let killed = async {
            tokio::time::sleep(lifetime).await;
            machine.sigkill();
        };
        let callers = (0..4).map(|caller| call_until_killed(&machine, [round, caller], &told));
        tokio::join!(killed, futures::future::join_all(callers));
        machine = machine.kill_and_restart();
    }
    let told = told.into_inner().expect("no caller panicked");
    assert!(told.len() as u64 > KILLS, "there was load: {}", told.len());
    let mut owed = 0;
    for job in &told {
        let view = machine.paid(job).await;
        assert_eq!(view["state"], "succeeded", "{view}");
        owed += view["price_ucr"].as_i64().expect("a price");
    }
    let paid = payments(&machine).await;
    for job in &told {
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
    assert!(
        used >= owed,
        "{used} of {owed}: a run whose caller was told nothing is paid as well"
    );
    assert_eq!(self::supply(&machine).await, supply, "credits are conserved");
}

/// Calls, three of four times asynchronously, and notes each job whose caller was told: accepted, or done. Ends with the
/// machine, in the middle of a call.
async fn call_until_killed(machine: &Machine, caller: [u64; 2], told: &Mutex<BTreeSet<String>>) {
    // Fewer than the machine could take: each of them is looked up in the end.
    const PAUSE: Duration = Duration::from_millis(5);
    for number in 0u64.. {
        let name = if number % 2 == 0 { "py" } else { "js" };
        let mut request = machine.request(Method::POST, &format!("/execute/{name}"));
        if number % 4 != 0 {
            request = request.header("prefer", "respond-async");
        }
        let Ok(response) = request
            .json(&json!({"input": [caller[0], caller[1], number]}))
            .send()
            .await
        else {
            return;
        };
        let status = response.status();
        let Ok(answer) = response.json::<Value>().await else {
            return;
        };
        assert!(status.is_success(), "{answer}");
        let job = answer["job_id"].as_str().expect("an id").to_owned();
        told.lock().expect("no caller panicked").insert(job);
        tokio::time::sleep(PAUSE).await;
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
