//! Receipts that are in order and not paid yet: for as long as they are compared, or because they stand out from what the
//! function usually uses.
//!
//! ```text
//! receipt in order --> (compared) --> usual --------------------------> outbox
//!                          |            '-> stands out: held --release--> outbox
//!                          '--> contradicted: refused <--refuse--'
//! ```
//! The ticket of what is withheld is not sealed, so its provider has no claim to bring to the ledger on its own. What is
//! held is durable. What is only being compared is not: after a crash it is paid.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache as Moka;
use parking_lot::Mutex;
use piecework_api::{
    errors::Refusal,
    held::{Decision, HeldState, HeldView},
};
use piecework_model::{
    AccountId, Code, Counters, Credits, FunctionId, FunctionName, JobId, JobStatus, LeaseId, Limits,
};
use piecework_scheduler::{Counter, Finding, MachineClass, Outlier, Sample, Usage};
use piecework_store::{Job, JobFilter};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Answer,
    accounts::audit,
    again::again,
    clock::{now_ms, timestamp},
    codecs,
    failure::{refuse, store},
    money::{
        Money,
        leases::Lane,
        outbox::Outgoing,
        waiting::{Since, Waiting},
    },
    providers::standings,
};

/// job -> [`Record`].
const SPACE: &str = "held";

/// What waits for a decision, and what is usual.
pub(crate) struct Withheld {
    held: Waiting<Payable>,
    usages: Moka<(FunctionId, u32), Arc<Mutex<Usage>>>,
}

/// Versions whose usage is remembered: some 10 KiB each.
const USAGES_MAX: u64 = 5_000;

impl Default for Withheld {
    fn default() -> Self {
        Self {
            held: Waiting::default(),
            usages: Moka::new(USAGES_MAX),
        }
    }
}

/// A receipt in order.
#[derive(Clone)]
pub(crate) struct Payable {
    pub(crate) outgoing: Outgoing,
    pub(crate) developer: AccountId,
    pub(crate) function: (FunctionId, u32),
    pub(crate) function_name: FunctionName,
    /// Bytes of its traffic that streamed through here; none that is known, of an earlier run's.
    pub(crate) streamed_bytes: u64,
    /// Where its ticket waits for a seal; none of an earlier run's.
    pub(crate) lane: Option<Arc<Lane>>,
}

/// A decision about a receipt, open or made.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    job: JobId,
    function: FunctionId,
    version: u32,
    function_name: FunctionName,
    developer: AccountId,
    provider: AccountId,
    price_ucr: u64,
    reason: String,
    state: State,
    since_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Held,
    Refused,
}

impl Record {
    fn since(&self) -> Since {
        Since {
            developer: self.developer,
            at_ms: self.since_ms,
        }
    }
}

impl Payable {
    /// What of it is the provider's word alone. A stream was counted here, and how long a slot was held was seen: a run that is
    /// long once, or streams much once, claims nothing that would have to be compared.
    fn sample(&self) -> Sample {
        let receipt = &self.outgoing.receipt;
        let counters = receipt.counters;
        let slot = Limits::SLOT_BYTES.saturating_mul(receipt.duration_us / 1_000);
        Sample {
            provider: receipt.provider,
            counters: Counters {
                memory_byte_ms: counters.memory_byte_ms.saturating_sub(slot),
                egress_bytes: counters.egress_bytes.saturating_sub(self.streamed_bytes),
                ..counters
            },
        }
    }

    fn record(&self, state: State, reason: String) -> Record {
        Record {
            job: self.outgoing.receipt.job,
            function: self.function.0,
            version: self.function.1,
            function_name: self.function_name.clone(),
            developer: self.developer,
            provider: self.outgoing.receipt.provider,
            price_ucr: self.outgoing.receipt.price_ucr,
            reason,
            state,
            since_ms: now_ms(),
        }
    }

    /// Of a job of an earlier run.
    fn of(job: &Job) -> Option<Self> {
        let settlement = job.settlement.as_ref()?;
        Some(Self {
            outgoing: Outgoing {
                receipt: job.receipt()?,
                mark: settlement.mark,
                price_max_ucr: settlement.price_max_ucr,
                received_at_ms: settlement.received_at_ms.unwrap_or(0),
            },
            developer: job.developer,
            function: (job.function, job.version),
            function_name: job.function_name.clone(),
            streamed_bytes: 0,
            lane: None,
        })
    }
}

/// Owes the receipt, unless it stands out: then it waits for an operator, or for its time. Never fails: a provider that has
/// done the work does not pay for a disk of this controller's, and what cannot be looked at or written down is owed.
pub(crate) async fn pay_if_usual(money: &Money, payable: Payable) {
    let outlier = match standing_out(money, &payable).await {
        Ok(Some(outlier)) => outlier,
        Ok(None) => return pay(money, payable),
        Err(refusal) => return unlooked(money, payable, &refusal),
    };
    let record = payable.record(State::Held, in_words(&outlier));
    match hold(money, &record).await {
        Ok(()) => keep(money, record.since(), payable).await,
        Err(refusal) => unlooked(money, payable, &refusal),
    }
}

/// Holds it; where its developer has too many, the oldest is paid.
async fn keep(money: &Money, since: Since, payable: Payable) {
    let job = payable.outgoing.receipt.job;
    let Some(oldest) = money.withheld.held.add(job, since, payable) else {
        return;
    };
    if let Some((since, payable)) = money.withheld.held.take(oldest) {
        tracing::warn!(job = %oldest, "paying a held receipt because too many of its developer are held");
        if let Err(refusal) = release(money, since, payable).await {
            tracing::error!(job = %oldest, %refusal, "paying a held receipt failed; it is held on");
        }
    }
}

fn unlooked(money: &Money, payable: Payable, refusal: &Refusal) {
    let job = payable.outgoing.receipt.job;
    tracing::error!(%job, %refusal, "checking or holding a receipt failed; paying it");
    pay(money, payable);
}

/// What makes the receipt stand out; where nothing does, it is learned from.
async fn standing_out(money: &Money, payable: &Payable) -> Answer<Option<Outlier>> {
    match payable.outgoing.receipt.status {
        JobStatus::Ok | JobStatus::Failed => {}
        // Whatever they used is bounded by their limits, and the caller sees how they ended.
        JobStatus::TimedOut | JobStatus::OutOfMemory | JobStatus::Cancelled => return Ok(None),
    }
    let usage = usage(money, payable.function).await?;
    let class = class_of(money, payable.outgoing.receipt.provider);
    let sample = payable.sample();
    let mut usage = usage.lock();
    let outlier = usage.outlier(class, &sample);
    if outlier.is_none() {
        usage.learn(class, sample);
    }
    Ok(outlier)
}

fn pay(money: &Money, payable: Payable) {
    let receipt = &payable.outgoing.receipt;
    if let Some(lane) = &payable.lane {
        lane.ran(receipt.sequence, receipt.price_ucr);
    }
    money.outbox.push(payable.outgoing);
}

fn class_of(money: &Money, provider: AccountId) -> MachineClass {
    let seen = money.providers.by_account(provider);
    MachineClass::of(seen.and_then(|seen| seen.cpu_us_per_unit()))
}

/// What the version usually uses: from its last jobs, where this run has not seen any.
async fn usage(money: &Money, version: (FunctionId, u32)) -> Answer<Arc<Mutex<Usage>>> {
    if let Some(usage) = money.withheld.usages.get(&version) {
        return Ok(usage);
    }
    let mut usage = Usage::default();
    let Some((function, _)) = money.ground.store.function_ever(version.0).await.map_err(store)? else {
        // The reference function, which no table knows.
        return Ok(Arc::new(Mutex::new(usage)));
    };
    let filter = JobFilter {
        developer: function.owner,
        function: Some(version.0),
        state: None,
        before: None,
        limit: 100,
    };
    let page = money.ground.store.list_jobs(&filter).await.map_err(store)?;
    for job in page
        .items
        .iter()
        .rev()
        .filter(|job| job.version == version.1 && job.paid)
    {
        if let Some(payable) = Payable::of(job) {
            let class = class_of(money, payable.outgoing.receipt.provider);
            usage.learn(class, payable.sample());
        }
    }
    Ok(money.withheld.usages.get_with(version, || Arc::new(Mutex::new(usage))))
}

/// From here on it is held, also after a restart.
async fn hold(money: &Money, record: &Record) -> Answer<()> {
    let job = record.job;
    tracing::warn!(%job, provider = %record.provider, reason = record.reason, "holding a receipt for review");
    codecs::put_json(&money.ground, SPACE, &job.to_string(), record).await?;
    money.ground.telemetry.receipts_held.inc();
    let detail = json!({"provider": record.provider, "price_ucr": record.price_ucr, "reason": record.reason});
    let who = (None, record.provider);
    let flagged = audit::record(&money.accounts, who, ("receipt", "held"), job.to_string(), detail);
    if let Err(refusal) = flagged.await {
        tracing::error!(%job, %refusal, "recording a held receipt in the audit log failed");
    }
    Ok(())
}

fn in_words(outlier: &Outlier) -> String {
    let (what, unit) = match outlier.counter {
        Counter::CpuUs => ("CPU time", "us"),
        Counter::MemoryByteMs => ("memory", "byte ms"),
        Counter::EgressBytes => ("traffic", "bytes"),
    };
    format!(
        "{what} of {} {unit}, where the last {} jobs of this version on such machines had {} at the most",
        outlier.claimed, outlier.compared_with, outlier.usual_max
    )
}

/// Nothing is owed for it, now and after a restart.
pub(crate) async fn refuse_payment(money: &Money, payable: &Payable, reason: &str) -> Answer<()> {
    let job = payable.outgoing.receipt.job;
    let record = payable.record(State::Refused, reason.to_owned());
    tracing::warn!(%job, provider = %record.provider, reason, "not paying a receipt");
    codecs::put_json(&money.ground, SPACE, &job.to_string(), &record).await?;
    money.ground.telemetry.receipts_refused.inc();
    let price_ucr = payable.outgoing.receipt.price_ucr;
    money.leases.forgive(payable.outgoing.receipt.lease, price_ucr);
    let detail = json!({"provider": record.provider, "price_ucr": price_ucr, "reason": reason});
    let who = (None, record.provider);
    audit::record(&money.accounts, who, ("receipt", "refused"), job.to_string(), detail).await
}

/// What a job of an earlier run is owed: `None` where it is held, or refused.
pub(crate) async fn take_up(money: &Money, job: &Job) -> Answer<Option<Outgoing>> {
    let Some(payable) = Payable::of(job) else {
        return Ok(None);
    };
    let committed = || {
        let lease = payable.outgoing.receipt.lease;
        money.leases.commit_earlier(lease, job.price_ucr);
    };
    let Some(record) = record_of(money, job.id).await? else {
        committed();
        return Ok(Some(payable.outgoing));
    };
    match record.state {
        State::Held => {
            committed();
            money.withheld.held.add(job.id, record.since(), payable);
            Ok(None)
        }
        State::Refused => Ok(None),
    }
}

async fn record_of(money: &Money, job: JobId) -> Answer<Option<Record>> {
    let bytes = money.ground.store.value(SPACE, &job.to_string()).await.map_err(store)?;
    bytes.map(|bytes| codecs::from_json(&bytes)).transpose()
}

/// What was decided about a job's receipt, or waits to be.
pub(crate) async fn of(money: &Money, job: JobId) -> Answer<Option<HeldView>> {
    match record_of(money, job).await? {
        Some(record) => Ok(Some(view(money, record).await)),
        None => Ok(None),
    }
}

/// By job, oldest first.
pub(crate) async fn list(money: &Money, after: Option<&str>, limit: u32) -> Answer<(Vec<HeldView>, Option<String>)> {
    let page = money
        .ground
        .store
        .list_values(SPACE, "", after, limit)
        .await
        .map_err(store)?;
    let mut views = Vec::with_capacity(page.items.len());
    for (_, bytes) in &page.items {
        views.push(view(money, codecs::from_json(bytes)?).await);
    }
    Ok((views, page.next))
}

async fn view(money: &Money, record: Record) -> HeldView {
    let pays_at_ms = record.since_ms.saturating_add(held_for_ms(money));
    HeldView {
        job: record.job,
        function: record.function_name.to_string(),
        developer: money.ground.account_name(record.developer).await,
        provider: money.ground.account_name(record.provider).await,
        price_ucr: Credits::from(record.price_ucr),
        reason: record.reason,
        state: match record.state {
            State::Held => HeldState::Held,
            State::Refused => HeldState::Refused,
        },
        since: timestamp(record.since_ms),
        pays_at: (record.state == State::Held).then(|| timestamp(pays_at_ms)),
    }
}

fn held_for_ms(money: &Money) -> u64 {
    u64::try_from(money.ground.tuning.held_for.as_millis()).unwrap_or(u64::MAX)
}

/// An operator's decision. Refuses with `receipt.not_held`. Where it cannot be written down it is not made: the receipt is
/// held as before.
pub(crate) async fn decide(money: &Money, operator: AccountId, job: JobId, decision: Decision) -> Answer<()> {
    let Some((since, payable)) = money.withheld.held.take(job) else {
        return refuse(Code::ReceiptNotHeld, "no receipt of this job waits for a decision");
    };
    let provider = payable.outgoing.receipt.provider;
    let verb = match decision {
        Decision::Release => {
            release(money, since, payable).await?;
            "released"
        }
        Decision::Refuse => {
            if let Err(refusal) = refuse_payment(money, &payable, "an operator refused it").await {
                money.withheld.held.add(job, since, payable);
                return Err(refusal);
            }
            standings::note(&money.providers, provider, Finding::Overclaimed).await;
            "denied"
        }
    };
    let who = (Some(operator), provider);
    audit::record(&money.accounts, who, ("receipt", verb), job.to_string(), json!({})).await
}

/// A job whose receipt was in order and cannot be paid any more.
pub(crate) async fn lost(money: &Money, job: JobId, reason: &str) -> Answer<()> {
    let record = money.ground.store.job(job).await.map_err(store)?;
    match record.as_ref().and_then(Payable::of) {
        Some(payable) => refuse_payment(money, &payable, reason).await,
        None => Ok(()),
    }
}

/// Pays what is held of one lease: it closes.
pub(crate) async fn release_of(money: &Money, lease: LeaseId) -> Answer<()> {
    for job in money
        .withheld
        .held
        .which(|payable| payable.outgoing.receipt.lease == lease)
    {
        if let Some((since, payable)) = money.withheld.held.take(job) {
            tracing::info!(%job, %lease, "paying a held receipt because its lease is closing");
            release(money, since, payable).await?;
        }
    }
    Ok(())
}

/// Pays what was held; holds it as before where it is not written down that it is not.
async fn release(money: &Money, since: Since, payable: Payable) -> Answer<()> {
    let job = payable.outgoing.receipt.job;
    if let Err(failure) = money.ground.store.take_value(SPACE, &job.to_string()).await {
        money.withheld.held.add(job, since, payable);
        return Err(store(failure));
    }
    match usage(money, payable.function).await {
        Ok(usage) => {
            let class = class_of(money, payable.outgoing.receipt.provider);
            usage.lock().learn(class, payable.sample());
        }
        Err(refusal) => tracing::warn!(%job, %refusal, "recording the decision about a held receipt failed"),
    }
    pay(money, payable);
    Ok(())
}

/// Releases what nobody decided about in time, until shutdown: an honest provider of a rare, dear input only waits.
pub(crate) async fn run(money: Arc<Money>) {
    const EVERY: Duration = Duration::from_secs(30);
    let every = EVERY.min(money.ground.tuning.held_for);
    again(&money.ground, every, "held receipts", || release_overdue(&money)).await;
}

async fn release_overdue(money: &Money) -> Answer<()> {
    for job in money.withheld.held.since(now_ms().saturating_sub(held_for_ms(money))) {
        if let Some((since, payable)) = money.withheld.held.take(job) {
            tracing::info!(%job, "paying a held receipt because nobody decided in time");
            release(money, since, payable).await?;
        }
    }
    Ok(())
}
