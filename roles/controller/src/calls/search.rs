//! The search for a slot: at once where one is free, else in the waiting room.

use piecework_api::errors::Refusal;
use piecework_model::{AccountId, Code, Rejection};
use piecework_scheduler::{Admission, Candidate, Claim, Reason, Reasons, plan};
use rand::RngExt as _;

use std::{sync::Arc, time::Duration};

use crate::{
    Answer,
    calls::{
        Calls,
        inflight::Aboard,
        invoke::{Invocation, Purpose},
        outcome::ReceiptFault,
    },
    clock::now_ms,
    providers::{
        fair::{Label, Slot, Word},
        reasons,
        seen::{Seen, Wants as _},
    },
};

pub(crate) fn cancelled(invocation: &Invocation) -> Box<Refusal> {
    Box::new(Refusal::new(Code::JobCancelled, "the job was cancelled").job(invocation.id))
}

pub(crate) fn expired(invocation: &Invocation) -> Box<Refusal> {
    Box::new(Refusal::new(Code::JobExpired, "no provider began before the deadline").job(invocation.id))
}

/// One job's way through the providers.
pub(super) struct Search<'a> {
    pub(super) calls: &'a Calls,
    pub(super) invocation: &'a Invocation,
    pub(super) aboard: &'a Aboard<'a>,
    /// The lane's sequence of the ticket that the next one replaces.
    pub(super) replaces: Option<u64>,
    /// A provider that will take no ticket without a seal of its own.
    pub(super) wants_seal: Option<AccountId>,
    /// Who has been sent a ticket with a seal of its own last.
    pub(super) sealed_for: Option<AccountId>,
    claim: Claim,
    label: Label,
    /// Its place in the waiting room, once it has waited.
    arrival: Option<u64>,
    /// What those said that have refused, or failed to deliver what was ordered.
    refusals: Vec<Refusal>,
    /// Whether a provider went away with it, and nobody has taken it since.
    was_lost: bool,
    /// Why nobody could take it when it was last asked.
    reasons: Reasons,
}

/// What there is for a job at one moment.
enum Found {
    Slot(Slot, Reasons),
    /// A slot may come.
    Later(Reasons),
    Nobody(Reasons),
}

impl<'a> Search<'a> {
    pub(super) fn new(calls: &'a Calls, invocation: &'a Invocation, aboard: &'a Aboard<'a>) -> Self {
        let live = &invocation.live;
        let (function, has_run) = match &invocation.purpose {
            Purpose::Call => (Some((live.function.id, live.function.concurrency)), Vec::new()),
            Purpose::Rerun { has_run, .. } => (None, with_owners(calls, has_run)),
            Purpose::Reference => (None, Vec::new()),
        };
        Self {
            calls,
            invocation,
            aboard,
            replaces: None,
            wants_seal: None,
            sealed_for: None,
            claim: Claim {
                developer: live.function.owner,
                weight: live.weight,
                function,
                memory_bytes: live.request.footprint_bytes(),
            },
            label: Label {
                wants: live.clone(),
                refused: Vec::new(),
                has_run,
            },
            arrival: None,
            refusals: Vec::new(),
            was_lost: false,
            reasons: Reasons::default(),
        }
    }

    /// A slot at a provider that can take the job: at once, or when its turn comes, as long as waiting can help and there
    /// is time.
    pub(super) async fn provider(&mut self) -> Answer<(Slot, Reasons)> {
        loop {
            if self.aboard.flight.cancel.is_cancelled() {
                return Err(cancelled(self.invocation));
            }
            if now_ms() > self.invocation.deadline_ms {
                return Err(self.expired().await);
            }
            match self.choose() {
                Found::Slot(slot, reasons) => return Ok((slot, reasons)),
                Found::Later(reasons) => self.reasons = reasons,
                Found::Nobody(reasons) => return Err(self.nobody(&reasons).await),
            }
            match self.wait().await? {
                Word::Slot(slot) => {
                    if let Some(found) = self.settle(slot) {
                        return Ok(found);
                    }
                }
                Word::Nobody => match self.choose() {
                    Found::Slot(slot, reasons) => return Ok((slot, reasons)),
                    Found::Later(reasons) if is_busy(&reasons) => self.reasons = reasons,
                    Found::Later(reasons) | Found::Nobody(reasons) => return Err(self.nobody(&reasons).await),
                },
            }
        }
    }

    /// Until its turn comes, in its line.
    async fn wait(&mut self) -> Answer<Word> {
        let patient = self.invocation.accepted;
        let fair = &self.calls.providers.fair;
        let mut waiting = fair.wait(self.claim, self.label.clone(), patient, self.arrival)?;
        self.arrival = Some(waiting.arrival());
        let left = Duration::from_millis(self.invocation.deadline_ms.saturating_sub(now_ms()));
        tokio::select! {
            word = waiting.word() => Ok(word),
            () = self.aboard.flight.cancel.cancelled() => Err(cancelled(self.invocation)),
            () = tokio::time::sleep(left) => Err(self.expired().await),
        }
    }

    /// The best provider that has a slot free now. The slot is the job's from here on.
    fn choose(&self) -> Found {
        let all = self.calls.providers.all();
        let live = &self.invocation.live;
        let (asked, mut view, barred) = self.view(&all);
        loop {
            let planned = plan(&view, &live.request, live.policy, rand::rng().random());
            let choice = match planned {
                Ok(choice) => choice,
                Err(reasons) => return self.later(with_barred(reasons, &barred)),
            };
            match self.calls.providers.fair.admit(asked[choice.index], &self.claim) {
                Ok(slot) => return Found::Slot(slot, with_barred(choice.passed_over, &barred)),
                Err(Admission::AtLimit) => return Found::Later(with_barred(choice.passed_over, &barred)),
                // Another job has got the last slot since the view was made.
                Err(Admission::Full | Admission::Taken) => view[choice.index].running = u32::MAX,
            }
        }
    }

    /// Nobody can take it now: whether that may change. A job that was accepted waits for providers that are not known
    /// yet, too.
    fn later(&self, reasons: Reasons) -> Found {
        let waits_for_anyone = self.invocation.accepted && self.refusals.is_empty();
        match is_busy(&reasons) || may_change(&reasons) || waits_for_anyone {
            true => Found::Later(reasons),
            false => Found::Nobody(reasons),
        }
    }

    /// The slot that the job was given, or a free one at a provider that its policy likes better; `None` where the
    /// provider cannot take it any more.
    fn settle(&self, mut slot: Slot) -> Option<(Slot, Reasons)> {
        let all = self.calls.providers.all();
        let live = &self.invocation.live;
        let (asked, mut view, barred) = self.view(&all);
        let own = asked.iter().position(|seen| Arc::ptr_eq(seen, slot.seen()));
        if let Some(own) = own {
            // Without the slot that this job has there.
            view[own].running = view[own].running.min(view[own].slots).saturating_sub(1);
            view[own].memory_taken = view[own].memory_taken.saturating_sub(self.claim.memory_bytes);
        }
        while let Ok(choice) = plan(&view, &live.request, live.policy, rand::rng().random()) {
            if Some(choice.index) == own || slot.swap(asked[choice.index]) {
                return Some((slot, with_barred(choice.passed_over, &barred)));
            }
            view[choice.index].running = u32::MAX;
        }
        // What the room knew of it is out of date.
        self.calls.providers.fair.look(&all);
        None
    }

    /// The providers that may run this job, as they are now, and why the others may not.
    fn view<'b>(&self, all: &'b [Arc<Seen>]) -> (Vec<&'b Arc<Seen>>, Vec<Candidate>, Reasons) {
        let mut barred = Reasons::default();
        let mut asked = Vec::with_capacity(all.len());
        let mut view = Vec::with_capacity(all.len());
        for seen in all {
            match self.bar(seen) {
                Some(reason) => barred.add(seen.link.profile().account, reason),
                None => {
                    asked.push(seen);
                    view.push(seen.candidate(self.invocation.live.wanted()));
                }
            }
        }
        (asked, view, barred)
    }

    /// Why this one is not asked at all.
    fn bar(&self, seen: &Seen) -> Option<Reason> {
        if self.label.is_refused_by(seen) {
            return Some(Reason::Refused);
        }
        if let Purpose::Rerun { salt: Some(_), .. } = &self.invocation.purpose
            && !seen.link.takes_salts()
        {
            // Its digest could not be compared.
            return Some(Reason::Refused);
        }
        self.label.has_run_at(seen).then_some(Reason::HasRun)
    }

    /// Nobody takes it, and waiting does not help: what the caller is told.
    async fn nobody(&mut self, reasons: &Reasons) -> Box<Refusal> {
        if let Some(said) = self.refusals.pop() {
            return Box::new(said);
        }
        let mut refusal = reasons::no_provider(&self.calls.providers, reasons).await;
        if self.was_lost {
            refusal.code = Code::ProviderLost.into();
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
            let named = reasons::passed_over(&self.calls.providers, &self.reasons).await;
            refusal.details = Some(serde_json::json!({ "reasons": named.providers, "others": named.others }));
        }
        refusal
    }

    /// The provider did not begin, or went away: whom to ask next.
    pub(super) fn refused(&mut self, slot: &Slot, sequence: u64, refused: Rejection) {
        let (job, provider) = (self.invocation.id, slot.seen().link.profile().account);
        match refused.code.known() {
            Some(Code::ProviderLost) => {
                tracing::warn!(%job, %provider, "lost a provider; moving its job to another provider");
                self.replaces = Some(sequence);
                self.was_lost = true;
            }
            Some(Code::ProviderPaused) => {
                tracing::info!(%job, %provider, "the owner of a provider needs it; moving its job to another provider");
                self.replaces = Some(sequence);
                slot.was_refused(false);
            }
            // Once: each such ticket can be claimed for.
            Some(Code::TicketUnsealed) if self.sealed_for != Some(provider) => self.wants_seal = Some(provider),
            Some(Code::ProviderNoSlot | Code::ProviderNoMemory) => slot.was_refused(true),
            Some(Code::ProviderDraining | Code::ProviderNone) => slot.was_refused(false),
            Some(_) | None => {
                tracing::info!(%job, %provider, code = %refused.code, "a provider refused a job");
                self.refusals.push(Refusal::from(refused).job(job));
                self.label.refused.push(provider);
            }
        }
    }

    /// What came is not the result of this job, so the job goes to another provider, unless its caller has seen some of it.
    /// Its ticket stays unsealed: no claim can be made of it.
    pub(super) fn not_as_ordered(&mut self, provider: AccountId, sequence: u64, fault: ReceiptFault) -> Answer<()> {
        let refusal = Refusal::new(
            Code::ProviderBadResult,
            format!("the provider's result was refused: {fault}"),
        );
        let refusal = refusal.job(self.invocation.id);
        if self.invocation.streams.is_spent() {
            return Err(Box::new(refusal));
        }
        self.refusals.push(refusal);
        self.label.refused.push(provider);
        self.replaces = Some(sequence);
        Ok(())
    }
}

fn with_owners(calls: &Calls, providers: &[AccountId]) -> Vec<AccountId> {
    let owner = |account: &AccountId| calls.providers.by_account(*account).map(|seen| seen.owner);
    providers
        .iter()
        .copied()
        .chain(providers.iter().filter_map(owner))
        .collect()
}

fn with_barred(mut reasons: Reasons, barred: &Reasons) -> Reasons {
    reasons.extend(barred);
    reasons
}

/// Whether a provider would take it if it had a slot and memory free.
fn is_busy(reasons: &Reasons) -> bool {
    reasons.any(|reason| matches!(reason, Reason::NoFreeSlot | Reason::NoFreeMemory))
}

/// Whether waiting can help: a provider that would fit is away, or none has come yet.
fn may_change(reasons: &Reasons) -> bool {
    reasons.is_empty() || reasons.any(|reason| matches!(reason, Reason::Silent | Reason::Draining | Reason::Paused))
}
