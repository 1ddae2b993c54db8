//! One invocation, from admission to the journal.
//!
//! ```text
//! gate -> deadline -> plan -> reserve -> ticket -> provider -> receipt checked -> journal -> commit -> outbox
//! ```
//!
//! Whatever fails before the provider begins costs nothing and leaves no job; from then on there is one record, in the
//! journal before anybody is told.

use std::{
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use piecework_api::errors::Refusal;
use piecework_ledger::{Action, OpenJobs, OpenTicket};
use piecework_model::{AccountId, Domain, JobId, Seal, Ticket};
use piecework_queue::{Delivery, Order, ProviderLink, input_digest};
use piecework_scheduler::{Candidate, Reason, Reasons, plan};
use piecework_store::{Idempotency, Job, JobState, Settlement};
use rand::RngExt as _;

use crate::{
    Answer, Controller, budget,
    clock::now_ms,
    failure::{refusal, store},
    functions::{self, Live},
    inflight::Aboard,
    leases::{self, Lane, Reservation},
    logs,
    outcome::{Verdict, check_receipt, judge},
    results,
    seen::{Seen, Slot},
    settle::Outgoing,
    traffic, views, watch,
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
    /// Out of the durable queue: waits for a place as long as it takes, keeps its output whatever its size.
    pub(crate) accepted: bool,
}

/// What a caller gets of a job that ran.
pub(crate) struct Done {
    pub(crate) id: JobId,
    pub(crate) output: Option<Bytes>,
    pub(crate) error: Option<Box<Refusal>>,
    pub(crate) cold: bool,
    pub(crate) duration_us: u64,
    pub(crate) price_ucr: u64,
}

/// Outputs up to this size are kept with every job; larger ones only where somebody may ask for them later.
const OUTPUT_KEPT_MAX: usize = 16 << 10;
/// How often a job looks again for a free slot while all are taken.
const SLOT_POLL: Duration = Duration::from_millis(2);
/// And while no provider is there that could.
const PROVIDER_POLL: Duration = Duration::from_millis(50);

pub(crate) fn new_job_id(now_ms: u64) -> JobId {
    JobId::new(now_ms, rand::rng().random())
}

/// Runs it here while it is quick; once it waits it goes on by itself, so that a caller who goes away ends nothing.
pub(crate) async fn run(controller: Arc<Controller>, invocation: Invocation) -> Answer<Done> {
    let tasks = controller.tasks.clone();
    let mut future = Box::pin(async move { watched(&controller, invocation).await });
    match futures::poll!(&mut future) {
        Poll::Ready(done) => done,
        Poll::Pending => match tasks.spawn(future).await {
            Ok(done) => done,
            Err(error) => Err(crate::failure::failed("run a job", &error)),
        },
    }
}

/// Runs it in the version whose turn it is, and draws the conclusions for that version before anybody is answered.
async fn watched(controller: &Controller, mut invocation: Invocation) -> Answer<Done> {
    invocation.live = traffic::pick(&invocation.live);
    invocation.live.check_takes_calls()?;
    let live = invocation.live.clone();
    let done = invoke(controller, invocation).await;
    let code = match &done {
        Ok(done) => done.error.as_ref().map(|error| error.code.as_str()),
        Err(refusal) => Some(refusal.code.as_str()),
    };
    watch::note(controller, &live, watch::End::of(code)).await?;
    budget::alert(controller, &live).await?;
    done
}

async fn invoke(controller: &Controller, invocation: Invocation) -> Answer<Done> {
    let arrived = Instant::now();
    let live = invocation.live.clone();
    let aboard = controller.inflight.board(queued_record(&invocation));
    let gate = async {
        if invocation.accepted {
            Ok(live.gate.enter_patiently().await)
        } else {
            live.gate.enter().await
        }
    };
    let _place = in_time(&invocation, &aboard, gate).await??;
    let turn = controller.fair.enter(live.function.owner, live.weight);
    let _slot = in_time(&invocation, &aboard, turn).await?;
    let (delivery, ticket, assigned) = dispatch(controller, &invocation, &aboard).await?;
    conclude(controller, invocation, arrived, delivery, ticket, assigned)
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

/// What `wait` comes to, unless the job is cancelled or its deadline passes before.
async fn in_time<T>(invocation: &Invocation, aboard: &Aboard<'_>, wait: impl Future<Output = T>) -> Answer<T> {
    let mut wait = std::pin::pin!(wait);
    if let Poll::Ready(done) = futures::poll!(&mut wait) {
        return Ok(done);
    }
    let left = Duration::from_millis(invocation.deadline_ms.saturating_sub(now_ms()));
    tokio::select! {
        done = wait => Ok(done),
        () = aboard.flight.cancel.cancelled() => Err(cancelled(invocation)),
        () = tokio::time::sleep(left) => Err(expired(invocation)),
    }
}

fn cancelled(invocation: &Invocation) -> Box<Refusal> {
    Box::new(Refusal::new("job.cancelled", "the job was cancelled").job(invocation.id))
}

fn expired(invocation: &Invocation) -> Box<Refusal> {
    Box::new(Refusal::new("job.expired", "no provider began before the deadline").job(invocation.id))
}

/// Who runs the job, and what is tied to it.
struct Assigned {
    budget: Option<budget::Hold>,
    slot: Slot,
    lane: Arc<Lane>,
    reservation: Reservation,
    passed_over: Reasons,
    began: Instant,
    observed_us: u64,
}

async fn dispatch(
    controller: &Controller,
    invocation: &Invocation,
    aboard: &Aboard<'_>,
) -> Answer<(Delivery, Ticket, Assigned)> {
    let live = &invocation.live;
    let patient_until = Instant::now() + controller.tuning.provider_wait;
    let mut replaces = None;
    let mut refusals: Vec<(AccountId, Box<Refusal>)> = Vec::new();
    loop {
        if aboard.flight.cancel.is_cancelled() {
            return Err(cancelled(invocation));
        }
        if now_ms() > invocation.deadline_ms {
            return Err(expired(invocation));
        }
        let (slot, passed_over) = match choose(controller, live, &refusals) {
            Ok(chosen) => chosen,
            Err(reasons) if reasons.any(|reason| reason == Reason::NoFreeSlot) => {
                tokio::time::sleep(SLOT_POLL).await;
                continue;
            }
            Err(reasons) if may_change(&reasons) && (invocation.accepted || Instant::now() < patient_until) => {
                tokio::time::sleep(PROVIDER_POLL).await;
                continue;
            }
            Err(reasons) => match refusals.pop() {
                Some((_, said)) => return Err(said),
                None => return Err(no_provider(controller, &reasons).await),
            },
        };
        let provider = slot.provider().clone();
        let account = provider.profile().account;
        let profile = provider.profile();
        let (prices, cores) = (profile.prices_for(live.function.owner), profile.cores);
        let price_max_ucr = live.work.limits.price_max(&prices, cores).map_err(|_| out_of_range())?;
        let budget = budget::hold(controller, live, price_max_ucr).await?;
        let reservation = leases::reserve(controller, live.function.owner, price_max_ucr).await?;
        let book = reservation.book().clone();
        let lane = book.lane(account, || controller.store.sequence_high_water(book.lease, account));
        let sequence = lane.next_sequence(controller, (book.lease, account)).await?;
        let ticket = Ticket {
            lease: book.lease,
            provider: account,
            sequence,
            job: invocation.id,
            code: live.work.code,
            input: input_digest(&invocation.event, &invocation.parameters),
            limits: live.work.limits,
            prices,
            price_max_ucr,
            deadline_ms: invocation.deadline_ms,
            replaces,
        };
        let seal = stake(controller, &lane, &ticket, &*provider, book.exposure_ucr).await?;
        if live.version.strict {
            open_on_ledger(controller, &ticket).await?;
        }
        note_running(controller, invocation, aboard, account);
        let order = Order {
            ticket: ticket.clone(),
            payer: controller.payer,
            exposure_ucr: book.exposure_ucr,
            seal,
            work: live.work.clone(),
            event: invocation.event.clone(),
            parameters: invocation.parameters.clone(),
            cancel: aboard.flight.cancel.clone(),
        };
        let began = Instant::now();
        match provider.run(order).await {
            Ok(delivery) => {
                let observed_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                lane.ran(sequence, delivery.receipt.price_ucr);
                let assigned = Assigned {
                    budget,
                    slot,
                    lane,
                    reservation,
                    passed_over,
                    began,
                    observed_us,
                };
                return Ok((delivery, ticket, assigned));
            }
            Err(refused) => {
                lane.refused(sequence);
                if live.version.strict {
                    // The record on the ledger keeps this aside until the lease ends.
                    reservation.commit(price_max_ucr);
                }
                if refused.code == "provider.lost" {
                    tracing::warn!(job = %invocation.id, provider = %account, "a provider was lost: its job is ordered elsewhere");
                    replaces = Some(sequence);
                    continue;
                }
                if refused.code == "provider.paused" {
                    tracing::info!(job = %invocation.id, provider = %account, "a provider's owner came back: its job is ordered elsewhere");
                    replaces = Some(sequence);
                    tokio::time::sleep(SLOT_POLL).await;
                    continue;
                }
                let again = matches!(
                    &*refused.code,
                    "provider.no_slot" | "provider.draining" | "provider.none" | "ticket.unsealed"
                );
                if !again {
                    tracing::info!(job = %invocation.id, provider = %account, code = %refused.code, "a provider refused a job");
                    refusals.push((account, Box::new(Refusal::from(refused).job(invocation.id))));
                    continue;
                }
                tokio::time::sleep(SLOT_POLL).await;
            }
        }
    }
}

/// A slot of the provider that gets the job, and why the others do not.
type Chosen = (Slot, Reasons);

/// Among those that have not refused this job. The slot is the job's from here on.
fn choose(controller: &Controller, live: &Live, refusals: &[(AccountId, Box<Refusal>)]) -> Result<Chosen, Reasons> {
    let all = controller.providers.all();
    let has_refused = |account: AccountId| refusals.iter().any(|(refused, _)| *refused == account);
    let asked: Vec<&Arc<Seen>> = all
        .iter()
        .filter(|seen| !has_refused(seen.link.profile().account))
        .collect();
    loop {
        let view: Vec<Candidate> = asked.iter().map(|seen| seen.candidate(live.wanted())).collect();
        let mut choice = plan(&view, &live.request, live.policy, rand::rng().random())?;
        // Another job may have got the last slot since the view was made: then there is another view.
        let Some(slot) = asked[choice.index].take_slot() else {
            continue;
        };
        for (provider, _) in refusals {
            choice.passed_over.add(*provider, Reason::Refused);
        }
        return Ok((slot, choice.passed_over));
    }
}

/// Whether waiting can help: a provider that would fit is away, or none has come yet.
fn may_change(reasons: &Reasons) -> bool {
    reasons.is_empty() || reasons.any(|reason| matches!(reason, Reason::Silent | Reason::Draining | Reason::Paused))
}

pub(crate) async fn no_provider(controller: &Controller, reasons: &Reasons) -> Box<Refusal> {
    let mut refusal = refusal("provider.none", "no provider can take the job");
    let named = views::passed_over(controller, reasons).await;
    refusal.details = Some(serde_json::json!({ "reasons": named.providers, "others": named.others }));
    refusal.hint = Some("`details.reasons` says why each was passed over; try again in a moment".into());
    refusal
}

fn out_of_range() -> Box<Refusal> {
    refusal(
        "function.bad_timeout",
        "the most that this run could cost is out of range: lower its limits",
    )
}

/// Puts the ticket at stake, or seals it alone where too much would be unsigned.
async fn stake(
    controller: &Controller,
    lane: &Lane,
    ticket: &Ticket,
    provider: &dyn ProviderLink,
    exposure_ucr: u64,
) -> Answer<Option<Seal>> {
    let leaf = ticket.leaf();
    if lane.stake(ticket.sequence, leaf, ticket.price_max_ucr, exposure_ucr) {
        return Ok(None);
    }
    let key = (ticket.lease, ticket.provider);
    lane.seal(controller, key, provider, 0).await?;
    if lane.stake(ticket.sequence, leaf, ticket.price_max_ucr, exposure_ucr) {
        return Ok(None);
    }
    Ok(Some(Seal::sign(
        &controller.key,
        Domain::Tickets,
        &controller.network,
        key,
        &[leaf],
    )))
}

/// Strict functions: the ledger knows of the job before a provider does.
async fn open_on_ledger(controller: &Controller, ticket: &Ticket) -> Answer<()> {
    let action = Action::OpenJobs(OpenJobs {
        lease: ticket.lease,
        provider: ticket.provider,
        tickets: vec![OpenTicket {
            sequence: ticket.sequence,
            job: ticket.job,
            code: ticket.code,
            input: ticket.input,
            price_max_ucr: ticket.price_max_ucr,
        }],
    });
    leases::submit_as_payer(controller, action).await.map(drop)
}

fn note_running(controller: &Controller, invocation: &Invocation, aboard: &Aboard<'_>, provider: AccountId) {
    let mut record = aboard.flight.queued.lock();
    record.state = JobState::Running;
    record.provider = Some(provider);
    drop(record);
    if invocation.accepted
        && let Err(error) = controller
            .store
            .set_state(invocation.id, JobState::Running, Some(provider))
    {
        tracing::warn!(%error, job = %invocation.id, "the state of a job was not noted");
    }
}

/// Checks, writes down, owes, answers.
fn conclude(
    controller: &Controller,
    invocation: Invocation,
    arrived: Instant,
    delivery: Delivery,
    ticket: Ticket,
    assigned: Assigned,
) -> Answer<Done> {
    let live = &invocation.live;
    let mut verdict = judge(&delivery, &ticket.limits);
    if let Some(error) = &mut verdict.error {
        logs::redact_error(error, &live.secrets);
    }
    let checked = check_receipt(
        &ticket,
        &delivery.receipt,
        &delivery.finished.outcome,
        assigned.observed_us,
        assigned.slot.provider().profile().cores,
    );
    let received_at_ms = now_ms();
    let settlement = match checked {
        Ok(()) => Some(Settlement {
            lease: ticket.lease,
            sequence: ticket.sequence,
            code: ticket.code,
            input: ticket.input,
            output: delivery.receipt.output,
            status: delivery.receipt.status,
            price_max_ucr: ticket.price_max_ucr,
            received_at_ms: Some(received_at_ms),
            mark: delivery.mark,
        }),
        Err(fault) => {
            tracing::error!(job = %invocation.id, provider = %ticket.provider, %fault, "a receipt was refused");
            controller.telemetry.receipts_refused.inc();
            None
        }
    };
    let queued_us = assigned.began.duration_since(arrived).as_micros();
    let job = record(
        &invocation,
        &delivery,
        &verdict,
        settlement,
        &assigned.passed_over,
        queued_us,
    );
    let price_ucr = job.price_ucr;
    let paid_for = job.settlement.is_some();
    controller.telemetry.count(live, &job);
    controller.announce(&job);
    results::begin(controller, &live.function, &job)?;
    controller.store.finish(job).map_err(store)?;
    results::ended(controller, &live.function);
    if !paid_for && live.version.strict {
        assigned.reservation.commit(ticket.price_max_ucr);
    } else if paid_for {
        assigned.reservation.commit(price_ucr);
        if let Some(budget) = &assigned.budget {
            budget.spend(price_ucr);
        }
        let outgoing = Outgoing {
            receipt: delivery.receipt,
            mark: delivery.mark,
            price_max_ucr: ticket.price_max_ucr,
            received_at_ms,
        };
        controller.outbox.push(outgoing);
    }
    drop(assigned.lane);
    Ok(Done {
        id: invocation.id,
        output: verdict.output,
        error: verdict.error,
        cold: delivery.cold,
        duration_us: u64::try_from(delivery.finished.duration.as_micros()).unwrap_or(u64::MAX),
        price_ucr,
    })
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
        backend: invocation.live.version.backend.clone(),
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
        passed_over: (!passed_over.is_empty()).then(|| serde_json::to_string(passed_over).unwrap_or_default()),
        output: output.map(|output| output.to_vec()),
        logs: logs::kept(
            &delivery.finished.logs,
            &invocation.live.secrets,
            invocation.created_at_ms,
        ),
        ..queued_record(invocation)
    }
}

/// A job that was promised and could not be run: the promise ends with the reason. Its price is nothing.
pub(crate) async fn conclude_unrun(controller: &Controller, mut job: Job, refusal: &Refusal) -> Answer<()> {
    job.state = match refusal.code.as_str() {
        "job.cancelled" => JobState::Cancelled,
        "job.expired" => JobState::Expired,
        _ => JobState::Failed,
    };
    job.error = serde_json::to_string(refusal).ok();
    controller.announce(&job);
    let live = functions::by_id(controller, job.function).await?;
    if let Some(live) = &live {
        results::begin(controller, &live.function, &job)?;
    }
    controller.store.finish(job).map_err(store)?;
    if let Some(live) = &live {
        results::ended(controller, &live.function);
    }
    Ok(())
}
