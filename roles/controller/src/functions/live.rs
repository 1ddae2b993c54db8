//! Finds a function: its live version, gate and work order, kept ready for the next call.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache as Moka;
use piecework_api::audit::AccountLimits;
use piecework_model::{AccountId, Code, Contract, FunctionId, FunctionName, Limits, OwnerName};
use piecework_queue::Work;
use piecework_scheduler::{self as scheduler, Placement, Request};
use piecework_store::{Function, Policy, Quarantine, Version};

use crate::{
    Answer,
    accounts::{self, auth::Caller, rates},
    clock::now_ms,
    failure::{failed, refuse, store},
    functions::{Functions, fallback, placement, traffic::Split},
    providers::seen::{Wanted, Wants},
};

/// A function as it answers now.
pub(crate) struct Live {
    pub(crate) function: Function,
    /// Whose budget its runs count towards; `None` is its own.
    pub(crate) budget_of: Option<FunctionId>,
    pub(crate) version: Version,
    pub(crate) work: Arc<Work>,
    /// What the scheduler is asked.
    pub(crate) request: Request,
    /// And how it chooses.
    pub(crate) policy: scheduler::Policy,
    /// Values to cut out of logs.
    pub(crate) secrets: Vec<String>,
    /// Where other versions get calls as well; only on the live one.
    pub(crate) split: Option<Split>,
    /// Its owner's share against other developers while slots are short.
    pub(crate) weight: u32,
    /// What requests without a token may come to a public function, as set for its owner.
    pub(crate) limits: AccountLimits,
}

impl Live {
    /// What its handler is called by, where that is not with an event and a context.
    pub(crate) fn contract(&self) -> Option<Contract> {
        self.work.contract()
    }
}

impl Wants for Live {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            version: (self.function.id, self.version.version),
            egress: &self.version.egress,
            developer: self.function.owner,
        }
    }

    fn request(&self) -> &Request {
        &self.request
    }
}

impl Live {
    /// Of a run that streams as much as it may.
    pub(crate) fn limits_max(&self) -> Limits {
        self.work.limits.with_stream(self.version.stream_bytes)
    }

    fn quarantine(&self) -> Option<&Quarantine> {
        self.function.policy.quarantined.get(&self.version.version)
    }

    /// Refuses with `function.stopped` and `function.quarantined`.
    pub(crate) fn check_takes_calls(&self) -> Answer<()> {
        if self.function.policy.stopped {
            let message = format!("`{}` is stopped and takes no calls", self.function.name);
            let refusal = piecework_api::errors::Refusal::new(Code::FunctionStopped, message).hint(format!(
                "the owner can start it with `piecework function {} --start`",
                self.function.name
            ));
            return Err(Box::new(refusal));
        }
        let Some(why) = self.quarantine() else { return Ok(()) };
        let message = format!(
            "version {} of `{}` failed {} times in a row with {} and takes no calls",
            self.version.version, self.function.name, why.failures, why.code
        );
        let refusal = piecework_api::errors::Refusal::new(Code::FunctionQuarantined, message)
            .hint("the owner can deploy a new version, roll back, or run `piecework function NAME --release`");
        Err(Box::new(refusal))
    }
}

pub(crate) struct Cache {
    live: Moka<FunctionId, Arc<Live>>,
    names: Moka<(OwnerName, FunctionName), FunctionId>,
    turns: Moka<FunctionId, Arc<tokio::sync::Mutex<()>>>,
}

/// Functions kept ready, some 2 KiB each; the others are one query away.
const LIVE_MAX: u64 = 5_000;

impl Default for Cache {
    fn default() -> Self {
        Self {
            live: Moka::new(LIVE_MAX),
            names: Moka::new(4 * LIVE_MAX),
            turns: Moka::new(LIVE_MAX),
        }
    }
}

impl Cache {
    /// Held while a new version is made.
    pub(crate) fn turn(&self, function: FunctionId) -> Arc<tokio::sync::Mutex<()>> {
        self.turns.get_with(function, Arc::default)
    }

    /// Something changed that concerns many.
    pub(crate) fn forget_all(&self) {
        self.live.invalidate_all();
    }

    /// The function changed: the next call reads it again.
    pub(crate) fn forget(&self, function: &Function) {
        self.live.invalidate(&function.id);
        self.names
            .invalidate(&(function.owner_name.clone(), function.name.clone()));
    }
}

pub(crate) fn not_found<T>(what: &str) -> Answer<T> {
    refuse(
        Code::FunctionNotFound,
        format!("you have no function with the id or name `{what}`"),
    )
}

/// The function that `owner` calls `name`, live.
pub(crate) async fn named(functions: &Functions, owner: &OwnerName, name: &FunctionName) -> Answer<Arc<Live>> {
    let key = (owner.clone(), name.clone());
    if let Some(live) = functions
        .cache
        .names
        .get(&key)
        .and_then(|id| functions.cache.live.get(&id))
    {
        return Ok(live);
    }
    let Some(user) = functions.ground.store.user_by_name(owner).await.map_err(store)? else {
        return not_found(&format!("{owner}/{name}"));
    };
    let Some(function) = functions
        .ground
        .store
        .function_by_name(user.account, name)
        .await
        .map_err(store)?
    else {
        return not_found(&format!("{owner}/{name}"));
    };
    functions.cache.names.insert(key, function.id);
    ready(functions, function).await
}

/// The caller's function, by id or name, or a public function of another owner. Anything else is not found.
pub(crate) async fn callable(functions: &Functions, caller: &Caller, id_or_name: &str) -> Answer<Arc<Live>> {
    let live = find(functions, caller, id_or_name).await?;
    if live.function.owner == caller.account || live.function.public {
        return Ok(live);
    }
    not_found(id_or_name)
}

/// The caller's own function by id or name.
pub(crate) async fn own(functions: &Functions, caller: &Caller, id_or_name: &str) -> Answer<Arc<Live>> {
    let live = find(functions, caller, id_or_name).await?;
    if live.function.owner == caller.account {
        Ok(live)
    } else {
        not_found(id_or_name)
    }
}

async fn find(functions: &Functions, caller: &Caller, id_or_name: &str) -> Answer<Arc<Live>> {
    if id_or_name.starts_with("fn_") {
        let Ok(id) = id_or_name.parse() else {
            return not_found(id_or_name);
        };
        return by_id(functions, id).await?.map_or_else(|| not_found(id_or_name), Ok);
    }
    match id_or_name.parse() {
        Ok(name) => match named(functions, &caller.name, &name).await {
            // Under the name that was typed.
            Err(refused) if refused.code == Code::FunctionNotFound => not_found(id_or_name),
            found => found,
        },
        Err(_) => not_found(id_or_name),
    }
}

pub(crate) async fn by_id(functions: &Functions, id: FunctionId) -> Answer<Option<Arc<Live>>> {
    if let Some(live) = functions.cache.live.get(&id) {
        return Ok(Some(live));
    }
    match functions.ground.store.function(id).await.map_err(store)? {
        Some(function) => ready(functions, function).await.map(Some),
        None => Ok(None),
    }
}

/// The function as the store has it at this moment, for who holds its turn. Refuses with `function.not_found`.
pub(crate) async fn fresh(functions: &Functions, id: FunctionId) -> Answer<Arc<Live>> {
    match functions.ground.store.function(id).await.map_err(store)? {
        Some(function) => ready(functions, function).await,
        None => refuse(Code::FunctionNotFound, "the function was deleted in the meantime"),
    }
}

async fn ready(functions: &Functions, function: Function) -> Answer<Arc<Live>> {
    let limits = rates::limits(&functions.accounts, function.owner).await?;
    let split = split(functions, &function, limits).await?;
    let live = Arc::new(Live {
        split,
        ..of_version(functions, &function, function.live_version, limits).await?
    });
    functions.cache.live.insert(live.function.id, live.clone());
    Ok(live)
}

/// A deleted function as it was: for the view of it alone.
pub(crate) async fn ready_unkept(functions: &Functions, function: Function) -> Answer<Live> {
    of_version(functions, &function, function.live_version, AccountLimits::default()).await
}

/// One version, ready to be called.
pub(crate) async fn of_version(
    functions: &Functions,
    function: &Function,
    number: u32,
    limits: AccountLimits,
) -> Answer<Live> {
    let version = functions
        .ground
        .store
        .version(function.id, number)
        .await
        .map_err(store)?;
    match version {
        Some(version) => with_version(functions, function, version, limits).await,
        None => Err(failed("find a version", &format!("{} {number}", function.id))),
    }
}

/// The same, of a version that is at hand.
pub(crate) async fn with_version(
    functions: &Functions,
    function: &Function,
    mut version: Version,
    limits: AccountLimits,
) -> Answer<Live> {
    fallback::settle(&mut version, &function.policy);
    let (work, secrets) = work(functions, function, &version)?;
    Ok(Live {
        budget_of: None,
        request: request(
            functions,
            function.owner,
            (&version.placement, !version.secret_names.is_empty()),
            &work,
        )
        .await?,
        policy: version.placement.policy.unwrap_or(functions.policy),
        work: Arc::new(work),
        secrets,
        function: function.clone(),
        version,
        split: None,
        weight: limits.weight.unwrap_or(1),
        limits,
    })
}

/// The versions beside the live one that get calls; what is quarantined leaves its share to the live one.
async fn split(functions: &Functions, function: &Function, limits: AccountLimits) -> Answer<Option<Split>> {
    let Some(traffic) = &function.policy.traffic else {
        return Ok(None);
    };
    let mut split = Split {
        own: 0,
        others: Vec::new(),
    };
    for (version, share) in &traffic.weights {
        if *version == function.live_version || function.policy.quarantined.contains_key(version) {
            split.own += share;
        } else if *share > 0 {
            let live = of_version(functions, function, *version, limits).await?;
            split.others.push((*share, Arc::new(live)));
        }
    }
    Ok(Some(split))
}

/// Changes a function's policy in one step: `change` gets it and the live version, and says whether there is anything
/// to keep. When it returns, the next call goes by it.
pub(crate) async fn change_policy(
    functions: &Functions,
    id: FunctionId,
    change: impl FnOnce(&mut Policy, u32) -> bool + Send,
) -> Answer<bool> {
    let turn = functions.cache.turn(id);
    let _turn = turn.lock().await;
    change_policy_in_turn(functions, id, change).await
}

/// Like [`change_policy`], for a caller that has the function's turn.
pub(crate) async fn change_policy_in_turn(
    functions: &Functions,
    id: FunctionId,
    change: impl FnOnce(&mut Policy, u32) -> bool + Send,
) -> Answer<bool> {
    let Some(function) = functions.ground.store.function(id).await.map_err(store)? else {
        return Ok(false);
    };
    let mut policy = function.policy.clone();
    if !change(&mut policy, function.live_version) {
        return Ok(false);
    }
    // Where its calls run is no change of its owner's.
    let by_owner = Policy {
        chosen: function.policy.chosen.clone(),
        ..policy.clone()
    };
    let at_ms = match by_owner == function.policy {
        true => function.updated_at_ms,
        false => now_ms(),
    };
    functions
        .ground
        .store
        .set_policy(id, &policy, at_ms)
        .await
        .map_err(store)?;
    functions.cache.forget(&function);
    Ok(true)
}

/// What the scheduler is asked for a developer's work, by its rules and by whether it has secrets.
pub(crate) async fn request(
    functions: &Functions,
    developer: AccountId,
    (placement, has_secrets): (&Placement, bool),
    work: &Work,
) -> Answer<Request> {
    let pinned = match &placement.pin {
        Some(pin) => Some(placement::pinned(functions, developer, pin).await?),
        None => None,
    };
    Ok(Request {
        backend: work.backend,
        language: work.language,
        memory_bytes: work.limits.memory_bytes,
        egress: !work.egress.is_empty(),
        price_caps: placement.price_caps.within(&functions.ground.tuning.price_caps),
        region: placement.region.clone(),
        labels: placement.labels.clone(),
        trust: placement.trust,
        confided_to: match placement::is_confidential(placement, has_secrets, &work.egress) {
            true => Some(placement::confided_to(functions, developer).await?),
            false => None,
        },
        pinned,
    })
}

/// What a provider needs of a version, with its secrets opened.
fn work(functions: &Functions, function: &Function, version: &Version) -> Answer<(Work, Vec<String>)> {
    let secrets = open_secrets(functions, function.id, &version.sealed_secrets)?;
    let mut env = version.env.clone();
    env.extend(secrets.clone());
    let work = Work {
        owner: Some(function.owner),
        function: function.id,
        version: version.version,
        name: function.name.to_string(),
        language: version.language,
        code: version.code,
        handler: version.handler.clone(),
        env,
        limits: version.limits,
        egress: version.egress.clone(),
        backend: version.backend,
    };
    Ok((work, redacted_values(secrets)))
}

type Secrets = std::collections::BTreeMap<String, String>;

fn secrets_context(function: FunctionId) -> String {
    format!("secrets of {function}")
}

pub(crate) fn seal_secrets(functions: &Functions, function: FunctionId, secrets: &Secrets) -> Answer<Vec<u8>> {
    if secrets.is_empty() {
        return Ok(Vec::new());
    }
    let bytes = serde_json::to_vec(secrets).map_err(|error| failed("encode secrets", &error))?;
    functions
        .ground
        .store
        .seal(&secrets_context(function), &bytes)
        .map_err(store)
}

pub(crate) fn open_secrets(functions: &Functions, function: FunctionId, sealed: &[u8]) -> Answer<Secrets> {
    if sealed.is_empty() {
        return Ok(Secrets::new());
    }
    let bytes = functions
        .ground
        .store
        .open_sealed(&secrets_context(function), sealed)
        .map_err(store)?;
    crate::codecs::from_json(&bytes)
}

/// A shorter value would blacken half of a log and hides nothing.
const REDACTED_LENGTH_MIN: usize = 4;

pub(super) fn redacted_values(secrets: Secrets) -> Vec<String> {
    secrets
        .into_values()
        .filter(|value| value.len() >= REDACTED_LENGTH_MIN)
        .collect()
}

/// The caller's deleted functions that can be restored still, newest first.
pub(crate) async fn deleted(functions: &Functions, caller: &Caller) -> Answer<Vec<(Function, u64)>> {
    let window = u64::try_from(functions.ground.tuning.restore_window.as_millis()).unwrap_or(u64::MAX);
    let since = now_ms().saturating_sub(window);
    functions
        .ground
        .store
        .list_deleted(caller.account, since)
        .await
        .map_err(store)
}

/// The caller's function, even if it was deleted, by its id: its owner can still see past runs.
pub(crate) async fn own_ever(functions: &Functions, caller: &Caller, id_or_name: &str) -> Answer<FunctionId> {
    if let Ok(id) = id_or_name.parse()
        && let Some((function, Some(_))) = functions.ground.store.function_ever(id).await.map_err(store)?
        && function.owner == caller.account
    {
        return Ok(id);
    }
    own(functions, caller, id_or_name).await.map(|live| live.function.id)
}

/// Whether `account` may see what concerns `developer`: itself.
pub(crate) fn sees(caller: &Caller, developer: AccountId) -> bool {
    caller.account == developer || caller.operator
}

/// Deletes old job records every hour, until shutdown.
pub(crate) async fn prune(functions: Arc<Functions>) {
    const EVERY: Duration = Duration::from_secs(3_600);
    loop {
        let kept = u64::try_from(functions.ground.tuning.retention.as_millis()).unwrap_or(u64::MAX);
        match functions.ground.store.prune(now_ms().saturating_sub(kept)).await {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "old jobs pruned"),
            Err(error) => tracing::warn!(%error, "old jobs were not pruned"),
        }
        if let Err(refusal) = accounts::upkeep::round(&functions.accounts, now_ms()).await {
            tracing::warn!(%refusal, "old records of accounts were not dropped");
        }
        tokio::select! {
            () = functions.ground.shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
