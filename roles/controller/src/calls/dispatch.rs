//! From an invocation to a result in order: a slot is found, a ticket written, the receipt checked.
//!
//! ```text
//! search -> slot -> budget, lease -> ticket (staked or sealed) -> provider -> receipt checked -> ran
//!   ^-- refused, lost, or not the result that was ordered: another provider --------------------'
//! ```

use std::{sync::Arc, time::Instant};

use piecework_api::errors::Refusal;
use piecework_ledger::{Action, OpenJobs, OpenTicket};
use piecework_model::{AccountId, Code, Domain, Rejection, Salt, Seal, Ticket};
use piecework_queue::{Delivery, Order, ProviderLink, gave_up, input_digest};
use piecework_sandbox::Outlet;
use piecework_scheduler::{Finding, Reasons};
use piecework_store::JobState;

use crate::{
    Answer,
    calls::{
        Calls,
        inflight::Aboard,
        invoke::{Invocation, Purpose},
        outcome::{Observed, ReceiptFault, check_logs, check_receipt},
        search::Search,
        streams::{self, Seen as Streams},
    },
    failure::refusal,
    functions::{budget, fallback},
    money::{
        aside,
        leases::{self, Lane, Reservation},
    },
    providers::{fair::Slot, standings},
};

/// A job that a provider has run.
pub(crate) struct Ran {
    pub(crate) delivery: Delivery,
    pub(crate) streams: Streams,
    pub(crate) ticket: Ticket,
    /// Of its digests.
    pub(crate) salt: Option<Salt>,
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

/// Finds a provider, and another one as often as needed, until one has run the job.
pub(crate) async fn dispatch(calls: &Calls, invocation: &Invocation, aboard: &Aboard<'_>) -> Answer<Ran> {
    let mut search = Search::new(calls, invocation, aboard);
    loop {
        let (slot, passed_over) = search.provider().await?;
        if let Some(ran) = search.order(slot, passed_over).await? {
            return Ok(ran);
        }
    }
}

impl Search<'_> {
    /// Orders the job there; `None` where it has to go elsewhere.
    async fn order(&mut self, slot: Slot, passed_over: Reasons) -> Answer<Option<Ran>> {
        let (calls, invocation) = (self.calls, self.invocation);
        let live = &invocation.live;
        let provider = slot.seen().link.clone();
        let (account, prices, cores) = {
            let profile = provider.profile();
            (profile.account, profile.prices_for(live.function.owner), profile.cores)
        };
        let streamable_bytes = match provider.takes_streams() {
            true => invocation
                .streams
                .allowance(&live.work.limits, live.version.stream_bytes),
            false => 0,
        };
        let salt = self.salt(&*provider);
        let limits = live.work.limits.with_stream(streamable_bytes);
        let price_max_ucr = limits.price_max(&prices, cores).map_err(|_| out_of_range())?;
        // Of a monthly budget without what it might stream: that is billed when it was, and would refuse calls for what
        // hardly any of them spends.
        let usual_ucr = live.work.limits.price_max(&prices, cores).map_err(|_| out_of_range())?;
        let budget = budget::hold(&calls.functions, live, usual_ucr).await?;
        let reservation = leases::reserve(&calls.money, live.function.owner, price_max_ucr).await?;
        let book = reservation.book().clone();
        let lane = book.lane(&calls.money, account).await?;
        let sequence = lane.next_sequence(&calls.money, (book.lease, account)).await?;
        let ticket = Ticket {
            lease: book.lease,
            provider: account,
            sequence,
            job: invocation.id,
            code: live.work.code,
            input: input_digest(&invocation.event, &invocation.parameters).salted(salt.as_ref()),
            limits,
            prices,
            price_max_ucr,
            deadline_ms: invocation.deadline_ms,
            replaces: self.replaces,
        };
        self.sealed_for = None;
        let seal = match self.wants_seal.take() == Some(account) {
            true => Some(sealed_alone(calls, &ticket)),
            false => stake(calls, &lane, &ticket, &*provider, book.exposure_ucr).await?,
        };
        if seal.is_some() {
            self.sealed_for = Some(account);
        }
        if live.version.strict
            && let Err(refusal) = open_on_ledger(calls, &ticket).await
        {
            lane.refused(sequence);
            return match leases::has_ended(&calls.money, book.lease, &refusal.code).await {
                true => Ok(None),
                false => Err(refusal),
            };
        }
        self.note_running(account);
        let is_tentative = self.is_tentative(&*provider);
        let order = Order {
            ticket: ticket.clone(),
            payer: calls.ground.payer,
            exposure_ucr: book.exposure_ucr,
            seal,
            work: live.work.clone(),
            event: invocation.event.clone(),
            parameters: invocation.parameters.clone(),
            salt,
            // Of this order alone: a provider that breaks its bounds must not end the job.
            cancel: self.aboard.flight.cancel.child_token(),
            is_tentative,
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
                keep_aside(calls, invocation, &ticket, reservation);
                if invocation.streams.is_spent() {
                    return Err(broken_off(invocation, refused));
                }
                if is_tentative && gave_up(&refused) {
                    return Err(Box::new(Refusal::from(refused).job(invocation.id)));
                }
                // The provider saw it first: the next order is from another lease.
                if !leases::has_ended(&calls.money, book.lease, &refused.code).await {
                    self.refused(&slot, sequence, refused);
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
            salt,
        };
        let checked = match streams.is_over {
            true => Err(ReceiptFault::TooMuchOutput),
            false => check_logs(&ticket, &delivery.finished.logs).and_then(|()| {
                let Delivery { receipt, finished, .. } = &delivery;
                check_receipt(&ticket, receipt, &finished.outcome, &observed)
            }),
        };
        if let Err(fault) = checked {
            tracing::error!(job = %invocation.id, provider = %account, %fault, "refused a receipt");
            calls.ground.telemetry.receipts_refused.inc();
            if !fault.leaves_result() {
                standings::note(&calls.providers, account, Finding::Wrong).await;
                keep_aside(calls, invocation, &ticket, reservation);
                return self.not_as_ordered(account, sequence, fault).map(|()| None);
            }
            standings::note(&calls.providers, account, Finding::Overclaimed).await;
        }
        Ok(Some(Ran {
            delivery,
            streams,
            ticket,
            salt,
            checked,
            budget,
            lane,
            reservation,
            passed_over,
            began,
            _slot: slot,
        }))
    }

    /// What its digests are salted with there: a rerun's with the salt of the job that it is compared with.
    fn salt(&self, provider: &dyn ProviderLink) -> Option<Salt> {
        match &self.invocation.purpose {
            Purpose::Rerun { salt, .. } => *salt,
            Purpose::Call | Purpose::Reference => provider
                .takes_salts()
                .then(|| Salt::of_job(&self.calls.ground.key, self.invocation.id)),
        }
    }

    /// Whether the jail may have the job where wasm falls short. A body that was read cannot be read again.
    fn is_tentative(&self, provider: &dyn ProviderLink) -> bool {
        let (functions, version) = (&self.calls.functions, &self.invocation.live.version);
        matches!(self.invocation.purpose, Purpose::Call)
            && fallback::may_move(version)
            && self.invocation.streams.body.is_none()
            && provider.takes_tentative()
            && fallback::has_jail(functions, version.language)
    }

    fn note_running(&self, provider: AccountId) {
        let (calls, invocation) = (self.calls, self.invocation);
        let mut record = self.aboard.flight.queued.lock();
        record.state = JobState::Running;
        record.provider = Some(provider);
        drop(record);
        if invocation.accepted
            && let Err(error) = calls
                .ground
                .store
                .set_state(invocation.id, JobState::Running, Some(provider))
        {
            tracing::warn!(%error, job = %invocation.id, "recording a job's state failed");
        }
    }
}

/// The provider went in the middle of a stream, and what is gone of it cannot be had again.
fn broken_off(invocation: &Invocation, refused: Rejection) -> Box<Refusal> {
    let mut refusal = Refusal::new(refused.code, refused.message);
    if refusal.code.is_one_of(&[Code::ProviderLost, Code::ProviderPaused]) {
        refusal.code = Code::ProviderLost.into();
        "the provider went away in the middle of the job's stream".clone_into(&mut refusal.message);
        refusal.hint =
            Some("part of the answer or of the request was passed on, so the job is not run again".to_owned());
    }
    Box::new(refusal.job(invocation.id))
}

/// A ticket that is on the ledger and came to nothing: its record keeps its most aside until it is freed.
fn keep_aside(calls: &Calls, invocation: &Invocation, ticket: &Ticket, reservation: Reservation) {
    if invocation.live.version.strict {
        aside::keep(&calls.money, ticket, reservation);
    }
}

fn out_of_range() -> Box<Refusal> {
    refusal(
        Code::FunctionBadTimeout,
        "the most that this run could cost is out of range: lower its limits",
    )
}

/// Puts the ticket at stake, or seals it alone where too much would be unsigned.
async fn stake(
    calls: &Calls,
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
    lane.seal(&calls.money, key, provider, 0).await?;
    if lane.stake(ticket.sequence, leaf, ticket.price_max_ucr, exposure_ucr) {
        return Ok(None);
    }
    Ok(Some(sealed_alone(calls, ticket)))
}

fn sealed_alone(calls: &Calls, ticket: &Ticket) -> Seal {
    let key = (ticket.lease, ticket.provider);
    Seal::sign(
        &calls.ground.key,
        Domain::Tickets,
        &calls.ground.network,
        key,
        &[ticket.leaf()],
    )
}

/// Strict functions: the ledger knows of the job before a provider does.
async fn open_on_ledger(calls: &Calls, ticket: &Ticket) -> Answer<()> {
    aside::note(&calls.money, ticket).await?;
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
    leases::submit_as_payer(&calls.money, action).await.map(drop)
}
