//! From an admitted invocation to a result in order: a provider is found, a ticket written, the receipt checked.
//!
//! ```text
//! search -> slot -> budget, lease -> ticket (staked or sealed) -> provider -> receipt checked -> ran
//!   ^-- nobody free, nobody here yet, refused, lost, or not the result that was ordered: another provider --'
//! ```

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use piecework_api::errors::Refusal;
use piecework_ledger::{Action, OpenJobs, OpenTicket};
use piecework_model::{AccountId, Domain, Rejection, Seal, Ticket};
use piecework_queue::{Delivery, Order, ProviderLink, input_digest};
use piecework_sandbox::Outlet;
use piecework_scheduler::{Candidate, Finding, Reason, Reasons, plan};
use piecework_store::JobState;
use rand::RngExt as _;

use crate::{
    Answer, Controller,
    calls::{
        inflight::Aboard,
        invoke::{Invocation, Purpose},
        outcome::{Observed, ReceiptFault, check_logs, check_receipt},
        streams::{self, Seen as Streams},
    },
    clock::now_ms,
    failure::refusal,
    http::views,
    money::{
        aside, budget,
        leases::{self, Lane, Reservation},
    },
    providers::{
        seen::{Seen, Slot},
        standings,
    },
};

/// How often a job looks again for a free slot while all are taken.
const SLOT_POLL: Duration = Duration::from_millis(2);
/// And while no provider is there that could.
const PROVIDER_POLL: Duration = Duration::from_millis(50);

/// A job that a provider has run.
pub(crate) struct Ran {
    pub(crate) delivery: Delivery,
    pub(crate) streams: Streams,
    pub(crate) ticket: Ticket,
    /// Whether the receipt is in order; what comes of it if not.
    pub(crate) checked: Result<(), ReceiptFault>,
    pub(crate) budget: Option<budget::Hold>,
    pub(crate) lane: Arc<Lane>,
    pub(crate) reservation: Reservation,
    pub(crate) passed_over: Reasons,
    pub(crate) began: Instant,
    /// Held until here.
    _slot: Slot,
}

pub(crate) fn cancelled(invocation: &Invocation) -> Box<Refusal> {
    Box::new(Refusal::new("job.cancelled", "the job was cancelled").job(invocation.id))
}

pub(crate) fn expired(invocation: &Invocation) -> Box<Refusal> {
    Box::new(Refusal::new("job.expired", "no provider began before the deadline").job(invocation.id))
}

/// One job's way through the providers.
struct Search<'a> {
    controller: &'a Controller,
    invocation: &'a Invocation,
    aboard: &'a Aboard<'a>,
    patient_until: Instant,
    /// The lane's sequence of the ticket that the next one replaces.
    replaces: Option<u64>,
    /// Who has refused, or failed to deliver what was ordered.
    refusals: Vec<(AccountId, Box<Refusal>)>,
    /// Whether a provider went away with it, and nobody has taken it since.
    was_lost: bool,
    /// A provider that will take no ticket without a seal of its own.
    wants_seal: Option<AccountId>,
    /// Why nobody could take it when it was last asked.
    reasons: Reasons,
}

/// Finds a provider, and another one as often as needed, until one has run the job.
pub(crate) async fn dispatch(controller: &Controller, invocation: &Invocation, aboard: &Aboard<'_>) -> Answer<Ran> {
    let mut search = Search {
        controller,
        invocation,
        aboard,
        patient_until: Instant::now() + controller.tuning.provider_wait,
        replaces: None,
        refusals: Vec::new(),
        was_lost: false,
        wants_seal: None,
        reasons: Reasons::default(),
    };
    loop {
        let (slot, passed_over) = search.provider().await?;
        if let Some(ran) = search.order(slot, passed_over).await? {
            return Ok(ran);
        }
    }
}

impl Search<'_> {
    /// Waits until somebody can take the job, as long as waiting can help and there is time.
    async fn provider(&mut self) -> Answer<(Slot, Reasons)> {
        loop {
            if self.aboard.flight.cancel.is_cancelled() {
                return Err(cancelled(self.invocation));
            }
            if now_ms() > self.invocation.deadline_ms {
                return Err(self.expired().await);
            }
            let reasons = match self.choose() {
                Ok(chosen) => return Ok(chosen),
                Err(reasons) => reasons,
            };
            let is_patient = self.invocation.accepted || Instant::now() < self.patient_until;
            let pause = if reasons.any(|reason| reason == Reason::NoFreeSlot) {
                SLOT_POLL
            } else if may_change(&reasons) && is_patient {
                PROVIDER_POLL
            } else {
                return Err(self.nobody(&reasons).await);
            };
            self.reasons = reasons;
            tokio::time::sleep(pause).await;
        }
    }

    /// Among those that have not refused this job and may run it. The slot is the job's from here on.
    fn choose(&self) -> Result<(Slot, Reasons), Reasons> {
        let all = self.controller.providers.all();
        let live = &self.invocation.live;
        let mut barred = Vec::new();
        let mut asked: Vec<&Arc<Seen>> = Vec::with_capacity(all.len());
        for seen in all.iter() {
            match self.bar(seen) {
                Some(reason) => barred.push((seen.link.profile().account, reason)),
                None => asked.push(seen),
            }
        }
        loop {
            let view: Vec<Candidate> = asked.iter().map(|seen| seen.candidate(live.wanted())).collect();
            let planned = plan(&view, &live.request, live.policy, rand::rng().random());
            let with_barred = |mut reasons: Reasons| {
                barred
                    .iter()
                    .for_each(|(provider, reason)| reasons.add(*provider, *reason));
                reasons
            };
            let choice = planned.map_err(with_barred)?;
            // Another job may have got the last slot since the view was made: then there is another view.
            if let Some(slot) = asked[choice.index].take_slot() {
                return Ok((slot, with_barred(choice.passed_over)));
            }
        }
    }

    /// Why this one is not asked at all.
    fn bar(&self, seen: &Seen) -> Option<Reason> {
        let account = seen.link.profile().account;
        if self.refusals.iter().any(|(refused, _)| *refused == account) {
            return Some(Reason::Refused);
        }
        let Purpose::Rerun { has_run, .. } = &self.invocation.purpose else {
            return None;
        };
        let owner_of = |account| self.controller.providers.by_account(account).map(|seen| seen.owner);
        let is_same = |other: &AccountId| *other == account || owner_of(*other) == Some(seen.owner);
        has_run.iter().any(is_same).then_some(Reason::HasRun)
    }

    /// Nobody takes it, and waiting does not help: what the caller is told.
    async fn nobody(&mut self, reasons: &Reasons) -> Box<Refusal> {
        if let Some((_, said)) = self.refusals.pop() {
            return said;
        }
        let mut refusal = no_provider(self.controller, reasons).await;
        if self.was_lost {
            "provider.lost".clone_into(&mut refusal.code);
            "the provider went away while the job was with it, and no other can take it"
                .clone_into(&mut refusal.message);
            refusal.hint = Some("it may have run in part; call again if it may run twice".to_owned());
            refusal.job_id = Some(self.invocation.id);
        }
        refusal
    }

    /// Past the deadline, with why nobody took it where that is known.
    async fn expired(&self) -> Box<Refusal> {
        let mut refusal = expired(self.invocation);
        if !self.reasons.is_empty() {
            let named = views::passed_over(self.controller, &self.reasons).await;
            refusal.details = Some(serde_json::json!({ "reasons": named.providers, "others": named.others }));
        }
        refusal
    }

    /// Orders the job there; `None` where it has to go elsewhere.
    async fn order(&mut self, slot: Slot, passed_over: Reasons) -> Answer<Option<Ran>> {
        let (controller, invocation) = (self.controller, self.invocation);
        let live = &invocation.live;
        let provider = slot.provider().clone();
        let (account, prices, cores) = {
            let profile = provider.profile();
            (profile.account, profile.prices_for(live.function.owner), profile.cores)
        };
        let streamable_bytes = invocation
            .streams
            .allowance(&live.work.limits, live.version.stream_bytes);
        let limits = live.work.limits.with_stream(streamable_bytes);
        let price_max_ucr = limits.price_max(&prices, cores).map_err(|_| out_of_range())?;
        let budget = budget::hold(controller, live, price_max_ucr).await?;
        let reservation = leases::reserve(controller, live.function.owner, price_max_ucr).await?;
        let book = reservation.book().clone();
        let lane = book.lane(controller, account).await?;
        let sequence = lane.next_sequence(controller, (book.lease, account)).await?;
        let ticket = Ticket {
            lease: book.lease,
            provider: account,
            sequence,
            job: invocation.id,
            code: live.work.code,
            input: input_digest(&invocation.event, &invocation.parameters),
            limits,
            prices,
            price_max_ucr,
            deadline_ms: invocation.deadline_ms,
            replaces: self.replaces,
        };
        let seal = match self.wants_seal.take() == Some(account) {
            true => Some(sealed_alone(controller, &ticket)),
            false => stake(controller, &lane, &ticket, &*provider, book.exposure_ucr).await?,
        };
        if live.version.strict
            && let Err(refusal) = open_on_ledger(controller, &ticket).await
        {
            lane.refused(sequence);
            return match leases::has_ended(controller, book.lease, &refusal.code).await {
                true => Ok(None),
                false => Err(refusal),
            };
        }
        self.note_running(account);
        let order = Order {
            ticket: ticket.clone(),
            payer: controller.payer,
            exposure_ucr: book.exposure_ucr,
            seal,
            work: live.work.clone(),
            event: invocation.event.clone(),
            parameters: invocation.parameters.clone(),
            cancel: self.aboard.flight.cancel.clone(),
            body: None,
            outlet: Outlet::nowhere(),
        };
        let began = Instant::now();
        let carried_out = streams::carry_out(&*provider, order, &invocation.streams, streamable_bytes);
        let (delivered, streams) = carried_out.await;
        let mut delivery = match delivered {
            Ok(delivery) => delivery,
            Err(refused) => {
                lane.refused(sequence);
                keep_aside(controller, invocation, &ticket, reservation);
                if invocation.streams.is_spent() {
                    return Err(broken_off(invocation, refused));
                }
                // The provider saw it first: the next order is from another lease.
                if !leases::has_ended(controller, book.lease, &refused.code).await {
                    self.refused(account, sequence, refused).await;
                }
                return Ok(None);
            }
        };
        let observed_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        delivery.finished.outcome.cut_error_text();
        let observed = Observed {
            us: observed_us,
            cores,
            streamed: streams.streamed,
            streamable_bytes,
        };
        let checked = match streams.is_over {
            true => Err(ReceiptFault::TooMuchOutput),
            false => check_logs(&ticket, &delivery.finished.logs).and_then(|()| {
                let Delivery { receipt, finished, .. } = &delivery;
                check_receipt(&ticket, receipt, &finished.outcome, &observed)
            }),
        };
        if let Err(fault) = checked {
            tracing::error!(job = %invocation.id, provider = %account, %fault, "a receipt was refused");
            controller.telemetry.receipts_refused.inc();
            if !fault.leaves_result() {
                standings::note(controller, account, Finding::Wrong).await;
                keep_aside(controller, invocation, &ticket, reservation);
                return self.not_as_ordered(account, sequence, fault).map(|()| None);
            }
            standings::note(controller, account, Finding::Overclaimed).await;
        }
        Ok(Some(Ran {
            delivery,
            streams,
            ticket,
            checked,
            budget,
            lane,
            reservation,
            passed_over,
            began,
            _slot: slot,
        }))
    }

    /// The provider did not begin, or went away: whom to ask next, and when.
    async fn refused(&mut self, provider: AccountId, sequence: u64, refused: Rejection) {
        let job = self.invocation.id;
        match &*refused.code {
            "provider.lost" => {
                tracing::warn!(%job, %provider, "a provider was lost: its job is ordered elsewhere");
                self.replaces = Some(sequence);
                self.was_lost = true;
            }
            "provider.paused" => {
                tracing::info!(%job, %provider, "a provider's owner came back: its job is ordered elsewhere");
                self.replaces = Some(sequence);
                tokio::time::sleep(SLOT_POLL).await;
            }
            "ticket.unsealed" => self.wants_seal = Some(provider),
            "provider.no_slot" | "provider.draining" | "provider.none" => tokio::time::sleep(SLOT_POLL).await,
            _ => {
                tracing::info!(%job, %provider, code = %refused.code, "a provider refused a job");
                self.refusals
                    .push((provider, Box::new(Refusal::from(refused).job(job))));
            }
        }
    }

    /// What came is not the result of this job, so the job goes to somebody else, unless its caller has seen some of it. Its
    /// ticket stays unsealed: there is no claim to be made of it.
    fn not_as_ordered(&mut self, provider: AccountId, sequence: u64, fault: ReceiptFault) -> Answer<()> {
        let refusal = Refusal::new(
            "provider.bad_result",
            format!("the provider's result was refused: {fault}"),
        );
        let refusal = Box::new(refusal.job(self.invocation.id));
        if self.invocation.streams.is_spent() {
            return Err(refusal);
        }
        self.refusals.push((provider, refusal));
        self.replaces = Some(sequence);
        Ok(())
    }

    fn note_running(&self, provider: AccountId) {
        let (controller, invocation) = (self.controller, self.invocation);
        let mut record = self.aboard.flight.queued.lock();
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
}

/// The provider went in the middle of a stream, and what is gone of it cannot be had again.
fn broken_off(invocation: &Invocation, refused: Rejection) -> Box<Refusal> {
    let mut refusal = Refusal::new(refused.code, refused.message);
    if matches!(&*refusal.code, "provider.lost" | "provider.paused") {
        "provider.lost".clone_into(&mut refusal.code);
        "the provider went away in the middle of the job's stream".clone_into(&mut refusal.message);
        refusal.hint =
            Some("part of the answer or of the request was passed on, so the job is not run again".to_owned());
    }
    Box::new(refusal.job(invocation.id))
}

/// A ticket that is on the ledger and came to nothing: its record keeps its most aside until it is freed.
fn keep_aside(controller: &Controller, invocation: &Invocation, ticket: &Ticket, reservation: Reservation) {
    if invocation.live.version.strict {
        aside::keep(controller, ticket, reservation);
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
    Ok(Some(sealed_alone(controller, ticket)))
}

fn sealed_alone(controller: &Controller, ticket: &Ticket) -> Seal {
    let key = (ticket.lease, ticket.provider);
    Seal::sign(
        &controller.key,
        Domain::Tickets,
        &controller.network,
        key,
        &[ticket.leaf()],
    )
}

/// Strict functions: the ledger knows of the job before a provider does.
async fn open_on_ledger(controller: &Controller, ticket: &Ticket) -> Answer<()> {
    aside::note(controller, ticket).await?;
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
