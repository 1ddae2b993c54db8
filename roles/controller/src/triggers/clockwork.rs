//! Runs what is due. A tick becomes an asynchronous job with an idempotency key made of the trigger and its time: whoever
//! runs it again, after a crash or beside another controller on the same store, gets the job that is there.

use std::{sync::Arc, time::Duration};

use futures::stream::{self, StreamExt as _};
use piecework_disk::Level;
use piecework_model::{AccountId, Code, Contract, Digest, JobId};
use piecework_store::{AcceptedJob, Idempotency};
use serde_json::json;

use super::{Tick, Trigger, Triggers};
use crate::{
    Answer,
    calls::{invoke, queue},
    clock::{now_ms, timestamp},
    failure::{refuse, store},
    functions::{self, budget},
};

/// The longest sleep: the clock of the computer may be set meanwhile.
const LOOK: Duration = Duration::from_secs(30);
/// Ticks that are written down at a time.
const AT_A_TIME: usize = 16;
/// Until a tick is tried again that found no room.
const AGAIN_MS: u64 = 5_000;
/// For so long.
const PATIENCE_MS: u64 = 600_000;

pub(super) async fn run(triggers: Arc<Triggers>) {
    loop {
        let now = now_ms();
        run_due(&triggers, now).await;
        let looks = triggers.all.lock().values().filter_map(|entry| entry.look_at_ms).min();
        let pause = looks.map_or(LOOK, |at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms())));
        tokio::select! {
            () = triggers.ground.shutdown.cancelled() => return,
            () = triggers.changed.notified() => {}
            () = triggers.ground.clock.sleep(pause.min(LOOK)) => {}
        }
    }
}

/// Starts all that is due at this moment.
pub(crate) async fn run_due(triggers: &Triggers, now_ms: u64) {
    let due: Vec<String> = {
        let all = triggers.all.lock();
        let is_due = |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        let due = all.iter().filter(|(_, entry)| is_due(entry.look_at_ms));
        due.map(|(key, _)| key.clone()).collect()
    };
    let ticks = stream::iter(due).for_each_concurrent(AT_A_TIME, |key| async move {
        if let Err(refusal) = tick(triggers, &key, now_ms).await {
            tracing::error!(trigger = %key, %refusal, "running a trigger failed; it is tried again");
            look_again(triggers, &key, now_ms + AGAIN_MS);
        }
    });
    ticks.await;
}

fn look_again(triggers: &Triggers, key: &str, at_ms: u64) {
    if let Some(entry) = triggers.all.lock().get_mut(key) {
        entry.look_at_ms = Some(at_ms);
    }
}

async fn tick(triggers: &Triggers, key: &str, now_ms: u64) -> Answer<()> {
    let found = {
        let mut all = triggers.all.lock();
        let Some(entry) = all.get_mut(key) else { return Ok(()) };
        let due = entry.times.due(entry.trigger.done_until_ms(), now_ms);
        if due.is_none() {
            // Missed, and not to be made up for.
            entry.plan(now_ms);
        }
        due.map(|at_ms| (entry.trigger.clone(), at_ms))
    };
    let Some((trigger, at_ms)) = found else { return Ok(()) };
    let started = start(triggers, &trigger, at_ms).await;
    let (job, refused) = match started {
        Ok(job) => (Some(job), None),
        Err(refusal) => match refusal.code.known() {
            Some(Code::ServerFailed) => return Err(refusal),
            Some(code) if finds_room_later(code) && now_ms < at_ms + PATIENCE_MS => {
                look_again(triggers, key, now_ms + AGAIN_MS);
                return Ok(());
            }
            Some(Code::FunctionNotFound) if is_gone(triggers, &trigger).await? => {
                let _turn = triggers.turn.lock().await;
                return triggers.forget(key).await.map(drop);
            }
            Some(_) | None => (None, Some(refusal.code)),
        },
    };
    note(triggers, key, Tick { at_ms, job, refused }, now_ms).await
}

/// What came of it is kept, unless the trigger was changed or removed meanwhile.
async fn note(triggers: &Triggers, key: &str, tick: Tick, now_ms: u64) -> Answer<()> {
    let _turn = triggers.turn.lock().await;
    let trigger = {
        let mut all = triggers.all.lock();
        let Some(entry) = all.get_mut(key) else { return Ok(()) };
        entry.trigger.last = Some(tick);
        entry.plan(now_ms);
        entry.trigger.clone()
    };
    crate::codecs::put_json(&triggers.ground, super::SPACE, key, &trigger).await
}

/// Removes an account's triggers whose functions are deleted for good, if it has as many as it may.
pub(super) async fn forget_gone(triggers: &Triggers, owner: AccountId) -> Answer<()> {
    let own: Vec<(String, Trigger)> = {
        let all = triggers.all.lock();
        let own = all.iter().filter(|(_, entry)| entry.trigger.owner == owner);
        own.map(|(key, entry)| (key.clone(), entry.trigger.clone())).collect()
    };
    if own.len() < super::OF_ONE_ACCOUNT_MAX {
        return Ok(());
    }
    for (key, trigger) in own {
        if is_gone(triggers, &trigger).await? {
            triggers.forget(&key).await?;
        }
    }
    Ok(())
}

fn finds_room_later(code: Code) -> bool {
    matches!(
        code,
        Code::ServerBusy | Code::ServerDiskFull | Code::DiskLow | Code::QuotaInputs
    )
}

/// Whether its function is deleted for good.
async fn is_gone(triggers: &Triggers, trigger: &Trigger) -> Answer<bool> {
    let function = triggers.ground.store.function_ever(trigger.function);
    Ok(function.await.map_err(store)?.is_none())
}

/// What the function is called with: what the trigger says, or when it is. `scheduled()` of a `fetch` module gets what Workers get.
fn input(trigger: &Trigger, at_ms: u64, contract: Option<Contract>) -> String {
    match (&trigger.input, contract) {
        (input, Some(Contract::Fetch)) => json!({
            "type": "scheduled",
            "cron": trigger.schedule.cron,
            "scheduledTime": at_ms,
            "trigger": trigger.name,
            "input": input,
        })
        .to_string(),
        (Some(input), _) => input.get().to_owned(),
        (None, _) => json!({"trigger": trigger.name, "at": timestamp(at_ms)}).to_string(),
    }
}

/// Accepts the job of this tick, or finds it accepted.
async fn start(triggers: &Triggers, trigger: &Trigger, at_ms: u64) -> Answer<JobId> {
    if triggers.ground.disk.reading().level == Level::Reserved {
        return refuse(Code::DiskLow, "the server's disk is nearly full");
    }
    let Some(live) = functions::by_id(&triggers.functions, trigger.function).await? else {
        return refuse(Code::FunctionNotFound, "the function is deleted");
    };
    live.check_takes_calls()?;
    budget::check(&triggers.functions, &live).await?;
    let input = input(trigger, at_ms, live.contract());
    let timeout = u64::try_from(triggers.ground.tuning.queue_timeout.as_millis()).unwrap_or(u64::MAX);
    let now = now_ms();
    let job = AcceptedJob {
        id: invoke::new_job_id(now),
        function: live.function.id,
        function_name: live.function.name.clone(),
        version: live.version.version,
        developer: live.function.owner,
        caller: live.function.owner,
        input: input.into(),
        parameters: "null".to_owned(),
        created_at_ms: now,
        deadline_ms: now.saturating_add(timeout),
        idempotency: Some(Idempotency {
            account: live.function.owner,
            key: format!("trigger/{}/{at_ms}", trigger.name),
            // Of the tick alone: another input by now does not make it another.
            request: Digest::of_value("piecework 2026 tick", &at_ms),
        }),
    };
    queue::accept(&triggers.calls, job).await
}

#[cfg(test)]
mod tests {
    use piecework_model::FunctionId;
    use serde_json::{Value, value::RawValue};

    use super::*;

    fn sent(given: Option<&str>, contract: Option<Contract>) -> Value {
        let trigger = Trigger {
            owner: AccountId([1; 20]),
            function: FunctionId([2; 12]),
            function_name: "f".parse().expect("a name"),
            name: "often".parse().expect("a name"),
            schedule: serde_json::from_value(json!({"cron": "*/5 * * * *"})).expect("a schedule"),
            input: given.map(|text| RawValue::from_string(text.to_owned()).expect("JSON")),
            paused: false,
            since_ms: 0,
            last: None,
        };
        serde_json::from_str(&input(&trigger, 1_800_000_000_000, contract)).expect("JSON")
    }

    #[test]
    fn a_worker_gets_a_scheduled_event_and_others_what_their_trigger_says() {
        let time = json!({"trigger": "often", "at": "2027-01-15T08:00:00Z"});
        assert_eq!(sent(None, None), time);
        assert_eq!(sent(None, Some(Contract::Lambda)), time);
        assert_eq!(sent(Some("[1]"), None), json!([1]));
        let event = |input: Value| json!({"type": "scheduled", "cron": "*/5 * * * *", "scheduledTime": 1_800_000_000_000_u64, "trigger": "often", "input": input});
        assert_eq!(sent(None, Some(Contract::Fetch)), event(json!(null)));
        assert_eq!(sent(Some("[1]"), Some(Contract::Fetch)), event(json!([1])));
    }
}
