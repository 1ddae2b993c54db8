//! One invocation, from admission to the journal.
//!
//! ```text
//! dispatch (slot, ticket, provider, receipt checked) -> journal -> commit -> owed, compared or held
//! ```
//!
//! Whatever fails before a provider has the job costs nothing and leaves no job; from then on there is one record, in the
//! journal before anybody is told.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use piecework_api::errors::Refusal;
use piecework_model::{AccountId, Code, Digest, JobId, Salt};
use piecework_queue::{Delivery, input_digest};
use piecework_scheduler::{Cost, Reasons};
use piecework_store::{Idempotency, Job, JobState, Settlement};
use rand::RngExt as _;

use crate::{
    Answer,
    calls::{
        Calls,
        compare::{self, First},
        dispatch::{Ran, dispatch},
        finishing::Finishing,
        logs,
        outcome::{Verdict, judge},
        results,
        search::stopping,
        streams::Streams,
    },
    clock::now_ms,
    failure::store,
    functions::{self, Live, budget, fallback, traffic, walls, watch},
    money::{
        aside,
        outbox::Outgoing,
        withheld::{self, Payable},
    },
};

/// A call that has been let in.
pub(crate) struct Invocation {
    pub(crate) id: JobId,
    pub(crate) live: Arc<Live>,
    pub(crate) event: Bytes,
    pub(crate) parameters: Bytes,
    pub(crate) idempotency: Option<Idempotency>,
    /// Unix milliseconds after which nobody begins.
    pub(crate) deadline_ms: u64,
    pub(crate) created_at_ms: u64,
    /// Out of the durable queue: waits for a slot as long as it takes, keeps its output whatever its size.
    pub(crate) accepted: bool,
    pub(crate) purpose: Purpose,
    /// Whose token it came with; none of a call without one.
    pub(crate) caller: Option<AccountId>,
    pub(crate) streams: Streams,
    /// Why it runs in another sandbox than the one that was chosen for its version.
    pub(crate) moved: Option<String>,
    /// In which of two sandboxes it runs, where its version's calls have a choice.
    pub(crate) wall: Option<walls::Taken>,
}

impl Invocation {
    /// What the function's owner called it with; none where somebody else did.
    fn owners_input(&self) -> Option<Digest> {
        self.is_owners().then(|| input_digest(&self.event, &self.parameters))
    }

    /// Called with a token of the function's owner.
    fn is_owners(&self) -> bool {
        self.caller == Some(self.live.function.owner)
    }
}

/// Why a job runs.
pub(crate) enum Purpose {
    /// Somebody called.
    Call,
    /// To compare its result with that of another.
    Rerun {
        of: JobId,
        /// They do not run it again, nor does who belongs to the same owner.
        has_run: Vec<AccountId>,
        /// Of that job's digests.
        salt: Option<Salt>,
    },
    /// To see whether a provider computes.
    Reference,
}

/// What a caller gets of a job that ran.
pub(crate) struct Done {
    pub(crate) id: JobId,
    /// None where it was passed on as it came.
    pub(crate) output: Option<Bytes>,
    pub(crate) error: Option<Box<Refusal>>,
    pub(crate) cold: bool,
    pub(crate) duration_us: u64,
    pub(crate) price_ucr: u64,
}

/// Outputs up to this size are kept with every job; larger ones only where somebody may ask for them later.
const OUTPUT_KEPT_MAX: usize = 16 << 10;
pub(crate) fn new_job_id(now_ms: u64) -> JobId {
    JobId::new(now_ms, rand::rng().random())
}

/// Runs to its end, even if its caller goes away. Refuses with `server.stopping` where the process ends first: then there is no
/// record of the run, as after a crash.
pub(crate) fn run(calls: Arc<Calls>, invocation: Invocation) -> Finishing<Done> {
    let (tasks, id) = (calls.ground.tasks.clone(), invocation.id);
    Finishing::new(tasks, async move {
        tokio::select! {
            biased;
            done = watched(&calls, invocation) => done,
            () = calls.inflight.halted() => Err(stopping(id)),
        }
    })
}

/// Runs it in the version whose turn it is, and draws the conclusions for that version before anybody is answered.
async fn watched(calls: &Arc<Calls>, mut invocation: Invocation) -> Answer<Done> {
    invocation.live = traffic::pick(&invocation.live);
    invocation.live.check_takes_calls()?;
    // A body that was read cannot be read again. Strangers decide nothing.
    let may_look = invocation.streams.body.is_none() && invocation.caller.is_some();
    let draw = u64::from_le_bytes(invocation.id.0[8..].try_into().expect("eight bytes"));
    if invocation.live.is_unsaved() {
        // There is no version of which anything could be concluded.
        let live = invocation.live.clone();
        let done = invoke(calls, &mut invocation).await;
        if let Err(refusal) = budget::keep_tried(&calls.functions, &live).await {
            tracing::error!(%refusal, "what a try has spent of its function's budget was not kept");
        }
        return done;
    }
    let picked = walls::pick(&calls.functions, invocation.live, (draw, may_look)).await;
    (invocation.live, invocation.wall) = picked;
    let live = invocation.live.clone();
    let done = invoke(calls, &mut invocation).await;
    let code = match &done {
        Ok(done) => done.error.as_ref().map(|error| &error.code),
        Err(refusal) => Some(&refusal.code),
    };
    // What ran is billed, and its caller gets what came of it, whatever becomes of the books.
    let end = watch::End::of(code, || invocation.owners_input());
    if let Err(refusal) = watch::note(&calls.functions, &live, end, invocation.is_owners()).await {
        tracing::error!(function = %live.function.id, %refusal, "evaluating a version's failures failed");
    }
    if let Err(refusal) = budget::alert(&calls.functions, &live).await {
        tracing::error!(function = %live.function.id, %refusal, "sending a budget alert failed");
    }
    if code.is_none() {
        invocation.streams.end().await;
    }
    done
}

async fn invoke(calls: &Arc<Calls>, invocation: &mut Invocation) -> Answer<Done> {
    let arrived = Instant::now();
    let aboard = calls.inflight.board(queued_record(invocation));
    let mut dispatched = dispatch(calls, invocation, &aboard).await;
    let gave_up = match &dispatched {
        Err(refusal) => fell_short(invocation, refusal),
        Ok(_) => None,
    };
    if let Some((code, why)) = &gave_up {
        elsewhere(calls, invocation, *code, why).await?;
        dispatched = dispatch(calls, invocation, &aboard).await;
    } else if let Err(refusal) = &dispatched
        && may_go_back(calls, invocation, refusal).await?
    {
        dispatched = dispatch(calls, invocation, &aboard).await;
    }
    let live = invocation.live.clone();
    let ran = match dispatched {
        Ok(ran) => ran,
        Err(refusal) => {
            let job = aboard.flight.queued.lock().clone();
            // Who has seen it at a provider, or has seen some of its answer, finds out what became of it.
            if !invocation.accepted && (job.state == JobState::Running || invocation.streams.has_passed()) {
                conclude_unrun(calls, job, &refusal).await?;
            }
            return Err(refusal);
        }
    };
    let salt = ran.salt;
    let (done, payable) = conclude(calls, invocation, arrived, ran)?;
    if invocation.caller.is_some()
        && let (Some(taken), Some(payable), None) = (invocation.wall, &payable, &done.error)
    {
        compare_walls(calls, &live, (taken, payable), done.cold).await;
    }
    if let Some((Code::FunctionCrashed | Code::FunctionOutOfMemory, why)) = &gave_up
        && !kills_its_instance(&done)
    {
        remember(calls, &live, why).await;
    }
    // A body that was taken in is gone: its job cannot run twice.
    let may_compare = invocation.streams.body.is_none();
    match payable {
        Some(payable) if may_compare && compare::is_sampled(calls, &live, &payable.outgoing.receipt) => {
            let first = First {
                live,
                event: invocation.event.clone(),
                parameters: invocation.parameters.clone(),
                salt,
                payable,
            };
            calls.ground.tasks.spawn(compare::compare(calls.clone(), first));
        }
        Some(payable) => withheld::pay_if_usual(&calls.money, payable).await,
        None => {}
    }
    Ok(done)
}

/// Why a provider gave the run up, where another sandbox may have it.
fn fell_short(invocation: &Invocation, refusal: &Refusal) -> Option<(Code, String)> {
    let code = refusal.code.known()?;
    let gives_up = [Code::SandboxFellShort, Code::FunctionCrashed, Code::FunctionOutOfMemory].contains(&code);
    let may = gives_up && fallback::may_move(&invocation.live.version) && invocation.moved.is_none();
    // It is told to others than the caller.
    may.then(|| (code, logs::redact(&refusal.message, &invocation.live.secrets)))
}

/// A call that the jail was to have only because it costs less there goes to wasm, where the jail does not take it.
async fn may_go_back(calls: &Calls, invocation: &mut Invocation, refusal: &Refusal) -> Answer<bool> {
    if invocation.streams.is_spent() {
        return Ok(false);
    }
    let of = (invocation.wall, refusal.code.known());
    let Some(usual) = walls::back(&calls.functions, &invocation.live, of).await? else {
        return Ok(false);
    };
    invocation.deadline_ms = invocation.deadline_ms.max(now_ms() + SECOND_BEGINS_WITHIN_MS);
    invocation.live = usual;
    invocation.wall = None;
    Ok(true)
}

/// The next call takes the wall that is found to be cheaper; this one has its answer whatever becomes of that.
async fn compare_walls(calls: &Calls, live: &Live, (taken, payable): (walls::Taken, &Payable), cold: bool) {
    let receipt = &payable.outgoing.receipt;
    let cost = Cost {
        cpu_us: receipt.counters.cpu_us,
        price_ucr: receipt.price_ucr,
        duration_us: receipt.duration_us,
        cold,
    };
    if let Err(refusal) = walls::note(&calls.functions, live, taken, cost).await {
        tracing::error!(function = %live.function.id, %refusal, "a version's cheaper sandbox was not noted");
    }
}

/// The call goes on where this fails, and the next one finds out by itself.
async fn remember(calls: &Calls, live: &Live, why: &str) {
    if let Err(refusal) = fallback::remember(&calls.functions, live, why).await {
        tracing::error!(function = %live.function.id, %refusal, "a version that needs the jail was not noted");
    }
}

/// In which the second order has to begin; the call itself began in time.
const SECOND_BEGINS_WITHIN_MS: u64 = 10_000;

/// Lets the jail have the call. What was touched concerns every call of the version; a trap or memory may be this input's, so
/// the version moves only once the jail has answered it.
async fn elsewhere(calls: &Calls, invocation: &mut Invocation, code: Code, why: &str) -> Answer<()> {
    if code == Code::SandboxFellShort {
        remember(calls, &invocation.live, why).await;
    }
    invocation.deadline_ms = invocation.deadline_ms.max(now_ms() + SECOND_BEGINS_WITHIN_MS);
    invocation.live = fallback::in_jail(&calls.functions, &invocation.live, why).await?;
    invocation.moved = Some(why.to_owned());
    invocation.wall = None;
    Ok(())
}

fn kills_its_instance(done: &Done) -> bool {
    done.error.as_ref().is_some_and(|error| {
        error
            .code
            .is_one_of(&[Code::FunctionCrashed, Code::FunctionOutOfMemory])
    })
}

/// Runs a job that nobody waits for: beside the function's concurrency limit, and nothing is concluded about its version. What it owes
/// is the caller's to decide.
pub(crate) async fn aside(calls: &Calls, invocation: Invocation) -> Answer<(Done, Option<Payable>)> {
    let arrived = Instant::now();
    let aboard = calls.inflight.board(queued_record(&invocation));
    let ran = dispatch(calls, &invocation, &aboard).await?;
    conclude(calls, &invocation, arrived, ran)
}

fn queued_record(invocation: &Invocation) -> Job {
    let live = &invocation.live;
    Job::queued(
        invocation.id,
        (live.function.id, live.version.version),
        live.function.name.clone(),
        live.function.owner,
        invocation.created_at_ms,
    )
}

/// Writes down and answers; what is owed for it comes back, where its receipt is in order.
fn conclude(calls: &Calls, invocation: &Invocation, arrived: Instant, ran: Ran) -> Answer<(Done, Option<Payable>)> {
    let live = &invocation.live;
    let (delivery, ticket) = (ran.delivery, ran.ticket);
    let streamed_bytes = ran.streams.streamed.both_ways();
    let mut verdict = judge(&delivery, &ticket.limits, &ran.streams);
    if let Some(error) = &mut verdict.error {
        logs::redact_error(error, &live.secrets);
    }
    let received_at_ms = now_ms();
    let settlement = ran.checked.ok().map(|()| Settlement {
        lease: ticket.lease,
        sequence: ticket.sequence,
        code: ticket.code,
        input: ticket.input,
        output: delivery.receipt.output,
        status: delivery.receipt.status,
        price_max_ucr: ticket.price_max_ucr,
        received_at_ms: Some(received_at_ms),
        mark: delivery.mark,
    });
    let queued_us = ran.began.duration_since(arrived).as_micros();
    let job = record(invocation, &delivery, &verdict, settlement, &ran.passed_over, queued_us);
    let price_ucr = job.price_ucr;
    let is_owed = job.settlement.is_some();
    calls.ground.telemetry.count(live.version.language, &job);
    calls.ground.events.job(&job);
    let begun = results::begin(calls, &live.function, &job);
    if let Err(refusal) = begun.and_then(|()| calls.ground.store.finish(job).map_err(store)) {
        // What is not written down is not paid, so it is not at stake any more.
        ran.lane.refused(ticket.sequence);
        return Err(refusal);
    }
    results::ended(calls, &live.function);
    let done = Done {
        id: invocation.id,
        output: verdict.output,
        error: verdict.error,
        cold: delivery.cold,
        duration_us: u64::try_from(delivery.finished.duration.as_micros()).unwrap_or(u64::MAX),
        price_ucr,
    };
    if !is_owed {
        if live.version.strict {
            aside::keep(&calls.money, &ticket, ran.reservation);
        }
        return Ok((done, None));
    }
    ran.reservation.commit(price_ucr);
    if let Some(budget) = &ran.budget {
        budget.spend(price_ucr);
    }
    let payable = Payable {
        outgoing: Outgoing {
            receipt: delivery.receipt,
            mark: delivery.mark,
            price_max_ucr: ticket.price_max_ucr,
            received_at_ms,
        },
        developer: live.function.owner,
        function: (live.function.id, live.version.version),
        function_name: live.function.name.clone(),
        streamed_bytes,
        lane: Some(ran.lane),
    };
    Ok((done, Some(payable)))
}

fn record(
    invocation: &Invocation,
    delivery: &Delivery,
    verdict: &Verdict,
    settlement: Option<Settlement>,
    passed_over: &Reasons,
    queued_us: u128,
) -> Job {
    let receipt = &delivery.receipt;
    let keeps =
        invocation.accepted || invocation.idempotency.is_some() || invocation.live.function.policy.results.is_some();
    let output = verdict
        .output
        .as_ref()
        .filter(|output| keeps || output.len() <= OUTPUT_KEPT_MAX);
    Job {
        provider: Some(receipt.provider),
        backend: Some(invocation.live.version.backend),
        state: verdict.state,
        cold: delivery.cold,
        queued_us: u64::try_from(queued_us).unwrap_or(u64::MAX),
        pull_us: delivery.pull_us,
        duration_us: receipt.duration_us,
        counters: receipt.counters,
        memory_peak_bytes: delivery.finished.memory_peak_bytes,
        price_ucr: if settlement.is_some() { receipt.price_ucr } else { 0 },
        received: settlement.is_some(),
        error: verdict
            .error
            .as_ref()
            .and_then(|error| serde_json::to_string(error).ok()),
        settlement,
        idempotency: invocation.idempotency.clone(),
        rerun_of: match &invocation.purpose {
            Purpose::Rerun { of, .. } => Some(*of),
            Purpose::Call | Purpose::Reference => None,
        },
        passed_over: (!passed_over.is_empty()).then(|| serde_json::to_string(passed_over).unwrap_or_default()),
        output: output.map(|output| output.to_vec()),
        logs: logs::kept(
            note(invocation).as_deref(),
            &delivery.finished.logs,
            &invocation.live.secrets,
            invocation.created_at_ms,
        ),
        ..queued_record(invocation)
    }
}

/// Why the job ran in another sandbox than others of its version, if it did.
fn note(invocation: &Invocation) -> Option<String> {
    let look = invocation.wall.and_then(walls::Taken::told).map(str::to_owned);
    look.or_else(|| invocation.moved.as_deref().map(logs::moved))
}

/// A job that was promised and could not be run: the promise ends with the reason. Its price is nothing.
pub(crate) async fn conclude_unrun(calls: &Calls, mut job: Job, refusal: &Refusal) -> Answer<()> {
    job.state = match refusal.code.known() {
        Some(Code::JobCancelled) => JobState::Cancelled,
        Some(Code::JobExpired) => JobState::Expired,
        Some(_) | None => JobState::Failed,
    };
    job.error = serde_json::to_string(refusal).ok();
    calls.ground.events.job(&job);
    let live = functions::by_id(&calls.functions, job.function).await?;
    if let Some(live) = &live {
        results::begin(calls, &live.function, &job)?;
    }
    calls.ground.store.finish(job).map_err(store)?;
    if let Some(live) = &live {
        results::ended(calls, &live.function);
    }
    Ok(())
}
