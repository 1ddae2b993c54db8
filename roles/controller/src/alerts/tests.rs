//! Alerts of a whole controller in one process: each condition is told once to each channel, and its end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::http::Method;
use parking_lot::Mutex;
use piecework_api::alerts::{AlertMessage, AlertStatus};
use piecework_model::Code;
use piecework_sink::notice::{Notice, Notify, Unheard};
use serde_json::json;

use crate::{
    Tuning,
    doubles::machine::{Machine, Setup, until},
};

/// What an operator hears.
struct Ear {
    name: &'static str,
    is_deaf: AtomicBool,
    heard: Mutex<Vec<AlertMessage>>,
}

impl Ear {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            is_deaf: AtomicBool::new(false),
            heard: Mutex::default(),
        })
    }

    fn deafen(&self, is_deaf: bool) {
        self.is_deaf.store(is_deaf, Ordering::Relaxed);
    }

    /// What it heard of a rule.
    fn of(&self, rule: &str) -> Vec<AlertStatus> {
        let heard = self.heard.lock();
        heard
            .iter()
            .filter(|told| told.rule == rule)
            .map(|told| told.status)
            .collect()
    }
}

#[async_trait]
impl Notify for Ear {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn notify(&self, notice: &Notice) -> Result<(), Unheard> {
        if self.is_deaf.load(Ordering::Relaxed) {
            return Err(Unheard::Answered(503));
        }
        self.heard
            .lock()
            .push(serde_json::from_slice(&notice.body).expect("a message"));
        Ok(())
    }
}

async fn machine(ears: &[&Arc<Ear>]) -> Machine {
    let setup = Setup::default();
    Machine::start_with(Setup {
        tuning: Tuning {
            alerts_every: Duration::from_millis(10),
            alerts_pause: Duration::from_millis(5),
            stall_after: Duration::from_secs(3_600),
            ..setup.tuning
        },
        alerts: ears.iter().map(|ear| (*ear).clone() as Arc<dyn Notify>).collect(),
        ..setup
    })
    .await
}

async fn told(ear: &Ear, rule: &str, due: &[AlertStatus]) {
    until(&format!("{} hears {due:?} of {rule}", ear.name), async || {
        (ear.of(rule) == due).then_some(())
    })
    .await;
}

/// Spends the budget of a function of this name.
async fn overspend(machine: &Machine, name: &str) {
    machine.deploy_with(name, "echo", json!({"budget_ucr": 1})).await.ok();
    machine.call(name, json!(1)).await.ok();
}

const FIRING: AlertStatus = AlertStatus::Firing;
const RESOLVED: AlertStatus = AlertStatus::Resolved;

#[tokio::test]
async fn a_spent_budget_is_told_once_and_its_end_too_also_over_a_restart() {
    let (first, second) = (Ear::new("webhook"), Ear::new("command"));
    let machine = machine(&[&first, &second]).await;
    overspend(&machine, "echo").await;
    told(&first, "budget", &[FIRING]).await;
    told(&second, "budget", &[FIRING]).await;
    let list = machine.get("/alerts").await.ok();
    assert_eq!(list["items"][0]["subject"], "operator/echo", "{list}");
    assert_eq!(machine.gauge("alerts_firing").await, 1);

    let machine = machine.restart().await;
    overspend(&machine, "other").await;
    told(&first, "budget", &[FIRING, FIRING]).await;
    let raised = json!({"budget_ucr": 1_000_000});
    machine
        .ask(Method::PUT, "/functions/echo/budget", Some(raised))
        .await
        .ok();
    told(&first, "budget", &[FIRING, FIRING, RESOLVED]).await;
    told(&second, "budget", &[FIRING, FIRING, RESOLVED]).await;
    let subjects: Vec<_> = first.heard.lock().iter().map(|told| told.subject.clone()).collect();
    assert_eq!(subjects, ["operator/echo", "operator/other", "operator/echo"]);
}

#[tokio::test]
async fn a_channel_that_does_not_listen_holds_nothing_up_and_hears_it_later() {
    let (deaf, other) = (Ear::new("webhook"), Ear::new("command"));
    deaf.deafen(true);
    let machine = machine(&[&deaf, &other]).await;
    overspend(&machine, "echo").await;
    told(&other, "budget", &[FIRING]).await;
    machine
        .call("echo", json!(1))
        .await
        .refused(402, Code::FunctionBudgetSpent);
    until("it was tried more than once", async || {
        let text = machine.get("/metrics").await;
        let text = text.body.as_str().expect("text").to_owned();
        let line = text
            .lines()
            .find(|line| line.starts_with("piecework_alerts_unheard_total "));
        let tries: u64 = line?.rsplit(' ').next()?.parse().ok()?;
        (tries > 1).then_some(())
    })
    .await;
    let machine = machine.restart().await;
    deaf.deafen(false);
    told(&deaf, "budget", &[FIRING]).await;
    // What begins and ends while it does not listen is nothing to it.
    deaf.deafen(true);
    overspend(&machine, "short").await;
    told(&other, "budget", &[FIRING, FIRING]).await;
    let raised = json!({"budget_ucr": 1_000_000});
    machine
        .ask(Method::PUT, "/functions/short/budget", Some(raised))
        .await
        .ok();
    told(&other, "budget", &[FIRING, FIRING, RESOLVED]).await;
    deaf.deafen(false);
    overspend(&machine, "last").await;
    until("it hears of the next one", async || {
        let heard = deaf.heard.lock();
        heard.iter().any(|told| told.subject == "operator/last").then_some(())
    })
    .await;
    assert!(deaf.heard.lock().iter().all(|told| told.subject != "operator/short"));
}

#[tokio::test]
async fn a_quarantined_version_is_told_until_it_is_released() {
    let ear = Ear::new("webhook");
    let machine = machine(&[&ear]).await;
    machine.deploy("q", "crash").await;
    for nth in 0..10 {
        let input = json!(format!("crash {nth}"));
        machine.call("q", input).await.refused(502, Code::FunctionCrashed);
    }
    told(&ear, "quarantine", &[FIRING]).await;
    assert_eq!(ear.heard.lock()[0].subject, "operator/q");
    machine.ask(Method::POST, "/functions/q/release", None).await.ok();
    told(&ear, "quarantine", &[FIRING, RESOLVED]).await;
}

#[tokio::test]
async fn a_silent_ledger_is_told_until_the_next_block() {
    let ear = Ear::new("webhook");
    let setup = Setup::default();
    let machine = Machine::start_with(Setup {
        tuning: Tuning {
            alerts_every: Duration::from_millis(10),
            stall_after: Duration::from_millis(300),
            ..setup.tuning
        },
        alerts: vec![ear.clone()],
        ..setup
    })
    .await;
    told(&ear, "stall", &[FIRING]).await;
    machine.ledger.block(Vec::new());
    until("the end is heard", async || {
        (ear.of("stall").get(1) == Some(&RESOLVED)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_test_message_says_whether_the_channels_took_it() {
    let ear = Ear::new("webhook");
    let machine = machine(&[&ear]).await;
    let ada = machine.person("ada", 1_000).await;
    for (method, path) in [(Method::GET, "/alerts"), (Method::POST, "/alerts/test")] {
        let refused = machine.ask_as(Some(&ada), method, path, None).await;
        refused.refused(403, Code::AuthOperator);
    }
    machine.ask(Method::POST, "/alerts/test", None).await.ok();
    assert_eq!(ear.of("test"), [FIRING]);
    ear.deafen(true);
    let refused = machine.ask(Method::POST, "/alerts/test", None).await;
    refused.refused(502, Code::AlertUndelivered);
    let without = Machine::start().await;
    let refused = without.ask(Method::POST, "/alerts/test", None).await;
    refused.refused(409, Code::AlertNoChannel);
}
