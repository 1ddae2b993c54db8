//! The waiting room of this controller: a call is admitted and gets its slot in one step, or waits for it in its line.
//!
//! ```text
//! admit: the provider has a slot free -> Slot
//! wait:  -> Waiting -> Word::Slot when its turn comes
//!                   -> Word::Nobody where no provider can take it for `Tuning::provider_wait` and a caller waits
//! Slot dropped -> the room gives it to the next at once, and wakes that one alone
//! ```
//! Who is next is decided by [`piecework_scheduler::Room`]. Here are its lock, the tasks that it wakes, and the watch over
//! the providers: one that comes, goes, pauses or is trusted less changes what the room may give away.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use piecework_model::{AccountId, Code};
use piecework_scheduler::{Admission, Arrival, Bounds, Claim, Crowded, Presence, Room, Ticket, Trust, inability};
use tokio::{sync::oneshot, time::MissedTickBehavior};

use crate::{
    Answer,
    failure::refuse,
    providers::{
        Providers,
        seen::{Seen, Wants},
    },
};

/// Each waiting call of a caller holds its event in memory and a connection open.
const BOUNDS: Bounds = Bounds {
    // A burst of this many times the concurrency is held rather than refused.
    function_per_slot: 10,
    // One developer alone does not fill the room.
    developer: 5_000,
    all: 20_000,
};
/// Between two looks at all providers: a link that falls silent tells nobody.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A provider whose link was cut this lately may come back to its jobs (`piecework_queue::link::GRACE`), so calls wait for
/// it; and a controller that has just started does not know yet who will come back.
const AWAY_MAX: Duration = Duration::from_secs(2);

/// What the calls of one line have in common: where they can run.
#[derive(Clone)]
pub(crate) struct Label {
    pub(crate) wants: Arc<dyn Wants>,
    /// Providers that have refused the call.
    pub(crate) refused: Vec<AccountId>,
    /// Providers that have run it already, and their owners.
    pub(crate) has_run: Vec<AccountId>,
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        let version = |label: &Self| label.wants.wanted().version;
        version(self) == version(other) && self.refused == other.refused && self.has_run == other.has_run
    }
}

impl Label {
    pub(crate) fn is_refused_by(&self, seen: &Seen) -> bool {
        self.refused.contains(&seen.link.profile().account)
    }

    pub(crate) fn has_run_at(&self, seen: &Seen) -> bool {
        self.has_run.contains(&seen.owner) || self.has_run.contains(&seen.link.profile().account)
    }

    fn fits(&self, seen: &Seen) -> bool {
        let candidate = seen.candidate(self.wants.wanted());
        !self.is_refused_by(seen) && !self.has_run_at(seen) && inability(&candidate, self.wants.request()).is_none()
    }
}

/// What a call that waits is told.
pub(crate) enum Word {
    Slot(Slot),
    /// No provider can take it now or soon.
    Nobody,
}

/// The slots of all providers and the calls that wait for one.
pub(crate) struct Fair(Arc<Shared>);

struct Shared {
    began: Instant,
    state: Mutex<State>,
}

struct State {
    room: Room<Label, oneshot::Sender<Word>>,
    /// By their index in the room.
    berths: Vec<Berth>,
    index: HashMap<AccountId, usize>,
}

/// A provider as the room was last told of it.
struct Berth {
    seen: Arc<Seen>,
    trust: Trust,
    presence: Presence,
    /// Since when its link is down.
    away_since: Option<Instant>,
}

/// One of a provider's slots, from the assignment of a job to its end.
pub(crate) struct Slot {
    shared: Arc<Shared>,
    seen: Arc<Seen>,
    provider: usize,
    claim: Claim,
}

impl Slot {
    fn new(shared: &Arc<Shared>, seen: Arc<Seen>, provider: usize, claim: Claim) -> Self {
        seen.job_begins(claim.memory_bytes);
        Self {
            shared: shared.clone(),
            seen,
            provider,
            claim,
        }
    }

    pub(crate) fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// Changes it for a slot of `other`, if one is free. Whether it was.
    pub(crate) fn swap(&mut self, other: &Arc<Seen>) -> bool {
        let (from, claim) = (self.provider, self.claim);
        let swapped = self.shared.give(|state, now_us| {
            let to = state.index_of(other)?;
            state.room.swap(from, to, &claim, now_us).then_some(to)
        });
        if let Some(to) = swapped {
            other.job_begins(claim.memory_bytes);
            self.seen.job_ends(claim.memory_bytes);
            (self.seen, self.provider) = (other.clone(), to);
        }
        swapped.is_some()
    }

    /// The provider would not take the job although it had a slot free by the count here: it is asked less for a moment.
    /// `is_full`: others use its slots; else it takes nothing at all.
    pub(crate) fn was_refused(&self, is_full: bool) {
        let mut state = self.shared.state.lock();
        let others = state.room.taken(self.provider) - 1;
        state.room.lower(self.provider, if is_full { others } else { 0 });
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.seen.job_ends(self.claim.memory_bytes);
        self.shared
            .give(|state, now_us| state.room.release(self.provider, &self.claim, now_us));
    }
}

/// A call in its line. Dropped, it leaves.
pub(crate) struct Waiting {
    shared: Arc<Shared>,
    ticket: Ticket,
    receiver: oneshot::Receiver<Word>,
}

impl Waiting {
    /// Its place in order of arrival, to be kept if the call has to wait again.
    pub(crate) fn arrival(&self) -> u64 {
        self.ticket.arrival
    }

    /// Cancel safe: a slot that came and was not taken goes to the next.
    pub(crate) async fn word(&mut self) -> Word {
        (&mut self.receiver)
            .await
            .expect("the room tells every call that it takes out of its line")
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.shared.state.lock().room.leave(&self.ticket));
    }
}

impl Default for Fair {
    fn default() -> Self {
        Self(Arc::new(Shared {
            began: Instant::now(),
            state: Mutex::new(State {
                room: Room::new(BOUNDS),
                berths: Vec::new(),
                index: HashMap::new(),
            }),
        }))
    }
}

impl Shared {
    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Changes the room, and hands out the slots that calls get by it.
    fn give<R>(self: &Arc<Self>, change: impl FnOnce(&mut State, u64) -> R) -> R {
        let mut granted = Vec::new();
        let result = {
            let mut state = self.state.lock();
            let now_us = self.now_us();
            let result = change(&mut state, now_us);
            while let Some(grant) = state.room.next(now_us) {
                let seen = state.berths[grant.provider].seen.clone();
                granted.push((grant.word, Slot::new(self, seen, grant.provider, grant.claim)));
            }
            result
        };
        for (word, slot) in granted {
            // A call that went away in this moment gives its slot back by dropping it.
            drop(word.send(Word::Slot(slot)));
        }
        result
    }
}

impl State {
    /// Where this run of a provider stands; `None` until it was looked at.
    fn index_of(&self, seen: &Arc<Seen>) -> Option<usize> {
        let index = *self.index.get(&seen.link.profile().account)?;
        Arc::ptr_eq(&self.berths[index].seen, seen).then_some(index)
    }

    fn look(&mut self, seen: &Arc<Seen>, found: Presence, now: Instant) {
        let (account, slots) = (seen.link.profile().account, seen.link.profile().slots);
        let trust = seen.trust();
        let mut is_new = false;
        let index = *self.index.entry(account).or_insert_with(|| {
            is_new = true;
            self.berths.push(Berth {
                seen: seen.clone(),
                trust,
                presence: Presence::Closed,
                away_since: None,
            });
            self.room.add_provider()
        });
        let berth = &mut self.berths[index];
        let is_other = is_new || !Arc::ptr_eq(&berth.seen, seen) || berth.trust != trust;
        let presence = match found {
            Presence::Open | Presence::Closed => {
                berth.away_since = None;
                found
            }
            Presence::Returning => match now.duration_since(*berth.away_since.get_or_insert(now)) < AWAY_MAX {
                true => Presence::Returning,
                false => Presence::Closed,
            },
        };
        let is_open_otherwise = is_other || berth.presence != presence;
        (berth.seen, berth.trust, berth.presence) = (seen.clone(), trust, presence);
        if is_other {
            self.room.set_owner(index, seen.owner);
            self.room.set_memory(index, seen.link.profile().memory_bytes);
            self.room.reconsider(index, |label| label.fits(seen));
        }
        if is_open_otherwise {
            self.room.open(index, presence, slots);
        }
    }
}

impl Fair {
    /// A slot of this provider, at once or not at all.
    pub(crate) fn admit(&self, seen: &Arc<Seen>, claim: &Claim) -> Result<Slot, Admission> {
        // By way of `give`: a limit that this call brings with it, raised since, may let in others that wait.
        let (admission, index) = self.0.give(|state, now_us| match state.index_of(seen) {
            Some(index) => (state.room.admit(index, claim, now_us), index),
            None => (Admission::Full, 0),
        });
        match admission {
            Admission::Taken => Ok(Slot::new(&self.0, seen.clone(), index, *claim)),
            Admission::Full | Admission::AtLimit => Err(admission),
        }
    }

    /// A place in the line of such calls. Refuses with `function.too_many` and `server.busy` where a caller waits.
    pub(crate) fn wait(&self, claim: Claim, label: Label, patient: bool, again: Option<u64>) -> Answer<Waiting> {
        let (word, receiver) = oneshot::channel();
        let arrival = Arrival {
            claim,
            label,
            word,
            patient,
            again,
        };
        let ticket = self.0.give(|state, now_us| {
            let berths = &state.berths;
            let able = |label: &Label| {
                let fitting = berths.iter().enumerate().filter(|(_, berth)| label.fits(&berth.seen));
                fitting.map(|(index, _)| index).collect()
            };
            state.room.wait(arrival, able, now_us)
        });
        match ticket {
            Ok(ticket) => Ok(Waiting {
                shared: self.0.clone(),
                ticket,
                receiver,
            }),
            Err(Crowded::Function) => refuse(
                Code::FunctionTooMany,
                "the function's concurrency limit is reached and its queue is full; retry later",
            ),
            Err(Crowded::Developer) => refuse(
                Code::ServerBusy,
                "too many calls of this developer's functions are waiting; retry later",
            ),
            Err(Crowded::All) => refuse(Code::ServerBusy, "too many calls are waiting; retry later"),
        }
    }

    /// Tells the room what these providers are like now.
    pub(crate) fn look(&self, all: &[Arc<Seen>]) {
        let found: Vec<_> = all.iter().map(|seen| (seen, presence(seen))).collect();
        let now = Instant::now();
        self.0.give(|state, _| {
            for (seen, presence) in found {
                state.look(seen, presence, now);
            }
        });
    }

    /// Sends away callers for whom no provider has been there for `patience`.
    fn sweep(&self, patience: Duration) {
        // A controller that has just started waits for its providers to come back.
        let patience = patience.max(AWAY_MAX.saturating_sub(self.0.began.elapsed()));
        let patience_us = u64::try_from(patience.as_micros()).unwrap_or(u64::MAX);
        let given_up = self.0.give(|state, now_us| state.room.sweep(now_us, patience_us));
        for word in given_up {
            drop(word.send(Word::Nobody));
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.0.state.lock().room.waiting()
    }
}

/// `Returning` where its link is down: for how long, its berth knows.
fn presence(seen: &Seen) -> Presence {
    if !seen.link.is_linked() {
        return Presence::Returning;
    }
    match seen.takes_jobs() {
        true => Presence::Open,
        false => Presence::Closed,
    }
}

/// Looks at the providers when one comes or says that something changed, and every [`LOOK_EVERY`], until shutdown.
pub(crate) async fn keep_watch(providers: Arc<Providers>) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watched = providers.all();
    let mut changes: FuturesUnordered<_> = watched.iter().cloned().map(changed).collect();
    loop {
        let all = providers.all();
        if !Arc::ptr_eq(&all, &watched) {
            watched = all;
            changes = watched.iter().cloned().map(changed).collect();
        }
        providers.fair.look(&watched);
        tokio::select! {
            () = providers.ground.shutdown.cancelled() => return,
            _ = every.tick() => providers.fair.sweep(providers.ground.tuning.provider_wait),
            () = providers.joined() => {}
            Some(seen) = changes.next(), if !changes.is_empty() => changes.push(changed(seen)),
        }
    }
}

async fn changed(seen: Arc<Seen>) -> Arc<Seen> {
    seen.link.changed().await;
    seen
}
