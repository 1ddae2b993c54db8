//! Open jobs: tickets recorded ahead of their run, and the book that keeps a lease within its budget meanwhile.
//!
//! ```text
//! OpenJobs -> opened --+-- a paper: receipt, ack or claim --> see settlement and claims
//!                      '-- nothing, and the window over: ReleaseJobs --> record gone, never paid
//! ```

use piecework_model::{AccountId, Credits, LeaseId, Rejection};

use super::{Call, check_lane, leases::check_open};
use crate::{
    bounds::OPEN_JOBS_PER_LEASE_MAX,
    draft::{minus, plus},
    execute::Event,
    mutant::{Mutant, broken},
    rejections::{
        lease_closed, release_none, release_not_due, settle_budget, settle_job_mismatch, settle_not_ascending,
        settle_too_many_gaps, settle_too_many_open, too_large,
    },
    state::{Key, Lane, Lease, LeaseState, OpenJob, Params, Value},
    transaction::{OpenJobs, OpenTicket, ReleaseJobs},
};

impl OpenJob {
    /// What the lease keeps aside for it: its price once that is known, until then the ticket's maximum.
    pub fn reserve(&self) -> Credits {
        let max = match broken(Mutant::OpenUnreserved) {
            true => 0,
            false => self.price_max_ucr,
        };
        Credits::from(self.metered.as_ref().map_or(max, |metered| metered.price_ucr))
    }
}

/// One lane of one lease while a transaction changes it; written back once, at the end.
pub(super) struct LaneBook {
    pub id: LeaseId,
    pub provider: AccountId,
    pub lease: Lease,
    pub lane: Lane,
    intervals_before: usize,
}

impl LaneBook {
    pub fn open(call: &Call, id: LeaseId, provider: AccountId, lease: Lease) -> Self {
        let lane = call.draft.lane(id, provider);
        let intervals_before = lane.taken.len();
        Self {
            id,
            provider,
            lease,
            lane,
            intervals_before,
        }
    }

    pub fn open_job(&self, call: &Call, sequence: u64) -> Option<OpenJob> {
        call.draft.open_job(self.id, self.provider, sequence)
    }

    /// Keeps a job for later, in place of its earlier record where there is one.
    pub fn keep(
        &mut self,
        call: &mut Call,
        sequence: u64,
        before: Option<&OpenJob>,
        job: OpenJob,
    ) -> Result<(), Rejection> {
        self.forget(before)?;
        self.lease.reserved = plus(self.lease.reserved, job.reserve())?;
        self.lease.open_jobs = self.lease.open_jobs.saturating_add(1);
        if job.claimed_until.is_some() {
            self.lease.claimed_jobs = self.lease.claimed_jobs.saturating_add(1);
        }
        let key = Key::OpenJob(self.id, self.provider, sequence);
        call.draft.put(key, Value::OpenJob(job));
        Ok(())
    }

    /// Frees what an open job had reserved.
    pub fn forget(&mut self, job: Option<&OpenJob>) -> Result<(), Rejection> {
        if let Some(job) = job {
            self.lease.reserved = minus(self.lease.reserved, job.reserve())?;
            self.lease.open_jobs = self.lease.open_jobs.saturating_sub(1);
            if job.claimed_until.is_some() {
                self.lease.claimed_jobs = self.lease.claimed_jobs.saturating_sub(1);
            }
        }
        Ok(())
    }

    /// Rejects with `settle.budget`, `settle.too_many_gaps` or `settle.too_many_open`; else writes lease and lane.
    pub fn close(self, call: &mut Call) -> Result<(), Rejection> {
        check_budget(&self.lease)?;
        check_lane_size(self.intervals_before, &self.lane, &call.params)?;
        if self.lease.open_jobs > OPEN_JOBS_PER_LEASE_MAX {
            return Err(settle_too_many_open().hint(format!("at most {OPEN_JOBS_PER_LEASE_MAX}")));
        }
        call.draft.put(Key::Lease(self.id), Value::Lease(self.lease));
        call.draft
            .put(Key::Lane(self.id, self.provider), Value::Lane(self.lane));
        Ok(())
    }
}

fn check_budget(lease: &Lease) -> Result<(), Rejection> {
    let drawn = plus(lease.used, lease.reserved)?;
    if drawn > lease.budget && !broken(Mutant::IgnoreBudget) {
        return Err(settle_budget().hint(format!("of {} ucr these would draw {drawn}", lease.budget)));
    }
    Ok(())
}

/// A lane that is over the limit because the limit was lowered may go on as long as it does not grow.
fn check_lane_size(before: usize, lane: &Lane, params: &Params) -> Result<(), Rejection> {
    let count = lane.taken.len();
    if count > params.lane_intervals_max as usize && count > before {
        return Err(settle_too_many_gaps().hint(format!("at most {} intervals", params.lane_intervals_max)));
    }
    Ok(())
}

/// Rejects with `settle.not_ascending` or `transaction.too_large`. The last number is left out so that ends fit 64 bits.
pub(super) fn check_sequences(params: &Params, sequences: impl Iterator<Item = u64>) -> Result<(), Rejection> {
    let (mut last, mut count) = (None, 0u32);
    for sequence in sequences {
        if last >= Some(sequence) || sequence == u64::MAX {
            return Err(settle_not_ascending().hint(format!("at sequence {sequence}")));
        }
        (last, count) = (Some(sequence), count.saturating_add(1));
    }
    if count > params.jobs_per_settlement_max {
        return Err(too_large().hint(format!("at most {} jobs", params.jobs_per_settlement_max)));
    }
    Ok(())
}

/// Records tickets. One whose sequence is taken is skipped if it is the same or done with: a replay does nothing.
pub(super) fn open(call: &mut Call, open: &OpenJobs) -> Result<(), Rejection> {
    let lease = call.authorize_payer(open.lease)?;
    check_open(&lease)?;
    check_lane(&lease, open.provider)?;
    check_sequences(&call.params, open.tickets.iter().map(|ticket| ticket.sequence))?;
    call.draft.account(open.provider)?;
    let mut book = LaneBook::open(call, open.lease, open.provider, lease);
    for ticket in &open.tickets {
        record(call, &mut book, ticket)?;
    }
    if call.events.is_empty() {
        return Ok(());
    }
    book.close(call)
}

fn record(call: &mut Call, book: &mut LaneBook, ticket: &OpenTicket) -> Result<(), Rejection> {
    if book.lane.has_taken(ticket.sequence) {
        return match book.open_job(call, ticket.sequence) {
            Some(known) if !is_of(&known, ticket) => {
                Err(settle_job_mismatch().hint(format!("at sequence {}", ticket.sequence)))
            }
            Some(_) | None => Ok(()),
        };
    }
    book.lane.take(ticket.sequence);
    let job = OpenJob {
        job: ticket.job,
        code: ticket.code,
        input: ticket.input,
        price_max_ucr: ticket.price_max_ucr,
        metered: None,
        received_at_ms: None,
        opened_at_height: call.context.height,
        claimed_until: None,
    };
    book.keep(call, ticket.sequence, None, job)?;
    call.events.push(Event::JobOpened {
        lease: book.id,
        provider: book.provider,
        sequence: ticket.sequence,
        job: ticket.job,
    });
    Ok(())
}

/// The records go; their sequences stay taken, so nothing that is sent again opens or pays them.
pub(super) fn release(call: &mut Call, release: &ReleaseJobs) -> Result<(), Rejection> {
    let lease = call.authorize_payer(release.lease)?;
    if lease.state == LeaseState::Closed {
        return Err(lease_closed());
    }
    check_sequences(&call.params, release.sequences.iter().copied())?;
    let mut book = LaneBook::open(call, release.lease, release.provider, lease);
    for sequence in &release.sequences {
        let Some(open) = book.open_job(call, *sequence) else {
            continue;
        };
        let has_paper = open.metered.is_some() || open.received_at_ms.is_some() || open.claimed_until.is_some();
        if has_paper && !broken(Mutant::ReleaseClaimed) {
            continue;
        }
        let until = open
            .opened_at_height
            .saturating_add(u64::from(book.lease.window_blocks));
        if call.context.height <= until && !broken(Mutant::ReleaseEarly) {
            let hint = format!("at sequence {sequence}, the last height of its window is {until}");
            return Err(release_not_due().hint(hint));
        }
        book.forget(Some(&open))?;
        call.draft.remove(Key::OpenJob(book.id, book.provider, *sequence));
        call.events.push(Event::JobReleased {
            lease: book.id,
            provider: book.provider,
            sequence: *sequence,
            job: open.job,
        });
    }
    match call.events.is_empty() {
        true => Err(release_none()),
        false => book.close(call),
    }
}

fn is_of(known: &OpenJob, ticket: &OpenTicket) -> bool {
    known.job == ticket.job
        && known.code == ticket.code
        && known.input == ticket.input
        && known.price_max_ucr == ticket.price_max_ucr
}
