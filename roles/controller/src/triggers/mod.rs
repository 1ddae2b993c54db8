//! What calls functions by itself: schedules. A queue or another source of events would be a file here.

mod clockwork;
#[cfg(test)]
mod tests;
mod times;

#[cfg(test)]
pub(crate) use clockwork::run_due;

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use piecework_api::triggers::{Schedule, SetTrigger, TickView, TriggerView};
use piecework_model::{AccountId, AnyCode, Code, FunctionId, FunctionName, JobId};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use tokio::sync::Notify;

use self::times::Times;
use crate::{
    Answer,
    accounts::{Accounts, audit, auth::Caller},
    calls::Calls,
    clock::{now_ms, timestamp},
    codecs,
    failure::{refuse, store},
    functions::{Functions, Live},
    ground::Ground,
};

/// Where they are kept: function/name -> [`Trigger`].
const SPACE: &str = "trigger";
/// All are in memory, and each of them can start a job every minute.
const OF_ONE_ACCOUNT_MAX: usize = 100;
const INPUT_BYTES_MAX: usize = 16 << 10;

/// The state of this room.
pub(crate) struct Triggers {
    ground: Arc<Ground>,
    accounts: Arc<Accounts>,
    functions: Arc<Functions>,
    calls: Arc<Calls>,
    all: Mutex<BTreeMap<String, Entry>>,
    /// Told when one has changed.
    changed: Notify,
    /// Held over each change of a kept trigger.
    turn: tokio::sync::Mutex<()>,
}

/// One, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Trigger {
    owner: AccountId,
    function: FunctionId,
    function_name: FunctionName,
    name: FunctionName,
    schedule: Schedule,
    /// JSON; absent: what `default_input` says.
    #[serde(default)]
    input: Option<Box<RawValue>>,
    #[serde(default)]
    paused: bool,
    /// Ticks up to then are not run.
    since_ms: u64,
    #[serde(default)]
    last: Option<Tick>,
}

/// What came of one.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tick {
    at_ms: u64,
    #[serde(default)]
    job: Option<JobId>,
    #[serde(default)]
    refused: Option<AnyCode>,
}

struct Entry {
    trigger: Trigger,
    times: Times,
    /// When to look at it; never while it is paused.
    look_at_ms: Option<u64>,
    /// The next tick, as it is shown.
    next_ms: Option<u64>,
}

impl Entry {
    fn new(trigger: Trigger) -> Answer<Self> {
        let times = Times::of(&trigger.schedule)?;
        let mut entry = Self {
            trigger,
            times,
            look_at_ms: None,
            next_ms: None,
        };
        entry.plan(entry.trigger.done_until_ms());
        Ok(entry)
    }

    /// Ticks up to this moment are done.
    fn plan(&mut self, done_until_ms: u64) {
        self.next_ms = self.times.after(done_until_ms).filter(|_| !self.trigger.paused);
        self.look_at_ms = self.next_ms;
    }
}

impl Trigger {
    fn key(&self) -> String {
        key(self.function, &self.name)
    }

    fn done_until_ms(&self) -> u64 {
        self.last
            .as_ref()
            .map_or(self.since_ms, |last| last.at_ms.max(self.since_ms))
    }
}

fn key(function: FunctionId, name: &FunctionName) -> String {
    format!("{function}/{name}")
}

impl Triggers {
    pub(crate) fn new(
        ground: Arc<Ground>,
        accounts: Arc<Accounts>,
        functions: Arc<Functions>,
        calls: Arc<Calls>,
    ) -> Arc<Self> {
        Arc::new(Self {
            ground,
            accounts,
            functions,
            calls,
            all: Mutex::default(),
            changed: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// Reads all of them, and begins to run them.
    pub(crate) async fn start(self: &Arc<Self>) -> Answer<()> {
        let mut after = None;
        loop {
            let page = self.ground.store.list_values(SPACE, "", after.as_deref(), 500);
            let page = page.await.map_err(store)?;
            for (key, value) in page.items {
                let entry = codecs::from_json(&value).and_then(Entry::new);
                match entry {
                    Ok(entry) => drop(self.all.lock().insert(key, entry)),
                    // Its time zone may be gone from this machine: the others run.
                    Err(refusal) => tracing::error!(%key, %refusal, "a trigger cannot be read and does not run"),
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        self.ground.tasks.spawn(clockwork::run(self.clone()));
        Ok(())
    }

    async fn keep(&self, entry: Entry) -> Answer<()> {
        let key = entry.trigger.key();
        codecs::put_json(&self.ground, SPACE, &key, &entry.trigger).await?;
        self.all.lock().insert(key, entry);
        Ok(())
    }

    async fn forget(&self, key: &str) -> Answer<bool> {
        let kept = self.ground.store.take_value(SPACE, key).await.map_err(store)?;
        self.all.lock().remove(key);
        Ok(kept.is_some())
    }
}

/// Adds or replaces a trigger of the function. Refuses with `trigger.bad_schedule`, `trigger.too_many` and `body.too_large`.
pub(crate) async fn set(
    triggers: &Triggers,
    caller: &Caller,
    live: &Live,
    (name, body): (FunctionName, SetTrigger),
) -> Answer<TriggerView> {
    let function = &live.function;
    if body
        .input
        .as_ref()
        .is_some_and(|input| input.get().len() > INPUT_BYTES_MAX)
    {
        let message = format!("the input of a trigger has at most {} KiB", INPUT_BYTES_MAX >> 10);
        return refuse(Code::BodyTooLarge, message);
    }
    let _turn = triggers.turn.lock().await;
    let key = key(function.id, &name);
    clockwork::forget_gone(triggers, function.owner).await?;
    let earlier = triggers.all.lock().get(&key).map(|entry| entry.trigger.clone());
    if earlier.is_none() {
        let of_account = |entry: &&Entry| entry.trigger.owner == function.owner;
        if triggers.all.lock().values().filter(of_account).count() >= OF_ONE_ACCOUNT_MAX {
            return refuse(
                Code::TriggerTooMany,
                format!(
                    "an account has at most {OF_ONE_ACCOUNT_MAX} triggers; remove some with `piecework triggers remove`"
                ),
            );
        }
    }
    let trigger = Trigger {
        owner: function.owner,
        function: function.id,
        function_name: function.name.clone(),
        name,
        schedule: body.schedule,
        input: body.input,
        paused: body.paused,
        // A new schedule, or one that is resumed, begins now.
        since_ms: now_ms(),
        last: earlier.and_then(|earlier| earlier.last),
    };
    let detail = json!({"trigger": trigger.name, "schedule": trigger.schedule, "paused": trigger.paused});
    let entry = Entry::new(trigger)?;
    let view = view(&entry);
    triggers.keep(entry).await?;
    triggers.changed.notify_one();
    let target = function.name.as_str();
    audit::own(&triggers.accounts, caller.account, ("trigger", "set"), target, detail).await?;
    Ok(view)
}

/// Removes one; what it has started goes on. Refuses with `trigger.not_found`.
pub(crate) async fn remove(triggers: &Triggers, caller: &Caller, live: &Live, name: &FunctionName) -> Answer<()> {
    let function = &live.function;
    let _turn = triggers.turn.lock().await;
    if !triggers.forget(&key(function.id, name)).await? {
        let message = format!("`{}` has no trigger `{name}`", function.name);
        return refuse(Code::TriggerNotFound, message);
    }
    let (target, detail) = (function.name.as_str(), json!({"trigger": name}));
    audit::own(
        &triggers.accounts,
        caller.account,
        ("trigger", "removed"),
        target,
        detail,
    )
    .await
}

/// Those of one function, or all of the account's, by function and name.
pub(crate) fn list(triggers: &Triggers, owner: AccountId, function: Option<FunctionId>) -> Vec<TriggerView> {
    let all = triggers.all.lock();
    let is_meant = |entry: &&Entry| {
        entry.trigger.owner == owner && function.is_none_or(|function| entry.trigger.function == function)
    };
    let mut views: Vec<_> = all.values().filter(is_meant).map(view).collect();
    views.sort_by(|a, b| (&a.function, &a.name).cmp(&(&b.function, &b.name)));
    views
}

fn view(entry: &Entry) -> TriggerView {
    let trigger = &entry.trigger;
    TriggerView {
        function: trigger.function_name.to_string(),
        function_id: trigger.function,
        name: trigger.name.to_string(),
        schedule: trigger.schedule.clone(),
        input: trigger.input.clone(),
        paused: trigger.paused,
        next_at: entry.next_ms.map(timestamp),
        last: trigger.last.as_ref().map(|tick| TickView {
            at: timestamp(tick.at_ms),
            job_id: tick.job,
            refused: tick.refused.clone(),
        }),
    }
}
