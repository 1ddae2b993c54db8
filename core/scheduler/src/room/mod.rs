//! The waiting room: the slots of the providers, the calls that wait for one, and who gets the next.
//!
//! ```text
//! admit ----> a slot, if the provider has one free        (nobody waits for a slot that is free)
//! wait -----> the developer's line for this function --.
//! leave  <----------- gone before its turn ------------|
//! release, open, able -> a slot is free ---------------+-> next: to one of those who can use it
//! ```
//!
//! A line is one developer's calls that can run at the same providers (its eligibility class). A slot that comes free is
//! given away at once: among the developers with a call that can use it, to the one that has had the least of this
//! provider by its weight ([`shares`]); of that developer's calls to the one that came first. Each provider is shared
//! by itself, so nobody gets less than its share of any provider that it can use, nor of them all together. A slot is of no
//! use to a call that the provider has no memory for ([`memory`]).
//!
//! Some slots of each provider stay in reserve for developers that hold few there ([`reserve`]): long jobs of one never
//! fill a provider, and a developer that holds none starts at once.
//!
//! Pure: the time comes in with each call, and what comes of it goes out through [`Room::next`], which has to be asked
//! until it says `None` after everything that may free a slot.

mod memory;
mod reserve;
mod set;
mod shares;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use memory::Purse;
use piecework_model::{AccountId, FunctionId};

pub use set::ProviderSet;
use shares::Shares;
pub use terms::{Admission, Arrival, Bounds, Claim, Crowded, Grant, Presence, Ticket};

/// One provider's slots.
struct Berth {
    presence: Presence,
    slots: u32,
    /// Fewer than the slots while others than this controller seem to use some.
    ceiling: u32,
    taken: u32,
    memory: Purse,
    shares: Shares,
    /// Whose computer it is: nothing is kept back from its owner.
    owner: Option<AccountId>,
}

impl Berth {
    fn free(&self) -> u32 {
        match self.presence {
            Presence::Open => self.given().saturating_sub(self.taken),
            Presence::Returning | Presence::Closed => 0,
        }
    }

    fn given(&self) -> u32 {
        self.slots.min(self.ceiling)
    }

    fn is_free(&self) -> bool {
        self.free() > 0
    }

    /// Whether a free slot is for this developer.
    fn gives_slot_to(&self, developer: AccountId) -> bool {
        let kept_back = match self.owner == Some(developer) {
            true => 0,
            false => reserve::kept_back(self.given(), self.shares.running(developer)),
        };
        self.free() > kept_back
    }

    /// Whether a free slot, and enough of the free memory, is for this developer, by how many slots it holds.
    fn has_room_for(&self, claim: &Claim) -> bool {
        let kept_bytes = match self.owner == Some(claim.developer) {
            true => 0,
            false => reserve::kept_bytes(self.given(), self.shares.running(claim.developer), self.memory.bytes),
        };
        self.gives_slot_to(claim.developer) && self.memory.fits(claim.memory_bytes.saturating_add(kept_bytes))
    }
}

struct Line<L, T> {
    label: L,
    claim: Claim,
    able: ProviderSet,
    calls: BTreeMap<u64, Call<T>>,
    /// Since when no provider that could take its calls is there or about to be.
    barren_since_us: Option<u64>,
    /// How many calls got a slot of a provider while the first of these waited for its memory.
    passed_over: u32,
}

struct Call<T> {
    word: T,
    patient: bool,
}

/// One developer's calls that wait.
struct Queue<L, T> {
    weight: u32,
    impatient: u32,
    lines: Vec<Line<L, T>>,
}

#[derive(Default)]
struct Turnstile {
    limit: u32,
    inside: u32,
    impatient: u32,
}

impl Turnstile {
    fn is_full(&self) -> bool {
        self.inside >= self.limit
    }
}

/// Functions that were called lately and are not now; beyond, they are forgotten.
const TURNSTILES_KEPT: usize = 1_024;

/// See the module. `L` tells lines of one function apart, `T` is whatever a call is told with.
pub struct Room<L, T> {
    bounds: Bounds,
    berths: Vec<Berth>,
    queues: BTreeMap<AccountId, Queue<L, T>>,
    functions: BTreeMap<FunctionId, Turnstile>,
    /// Providers that may have a slot for somebody who waits.
    stirred: Vec<usize>,
    arrivals: u64,
    waiting: usize,
    impatient: u32,
    /// Lines that were passed over as often as may be.
    starving: usize,
    /// Whose calls could take the slot that is given away: developer, weight, line. Kept for its memory alone.
    takers: Vec<(AccountId, u32, usize)>,
}

impl<L: PartialEq, T> Room<L, T> {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            berths: Vec::new(),
            queues: BTreeMap::new(),
            functions: BTreeMap::new(),
            stirred: Vec::new(),
            arrivals: 0,
            waiting: 0,
            impatient: 0,
            starving: 0,
            takers: Vec::new(),
        }
    }

    /// A new provider, closed until [`Self::open`]; its index is given out once.
    pub fn add_provider(&mut self) -> usize {
        self.berths.push(Berth {
            presence: Presence::Closed,
            slots: 0,
            ceiling: u32::MAX,
            taken: 0,
            memory: Purse::default(),
            shares: Shares::default(),
            owner: None,
        });
        self.berths.len() - 1
    }

    /// Says how many slots a provider has and whether it gives any.
    pub fn open(&mut self, provider: usize, presence: Presence, slots: u32) {
        let berth = &mut self.berths[provider];
        (berth.presence, berth.slots) = (presence, slots);
        self.stir(provider);
    }

    /// Says whose computer it is: its owner may fill it.
    pub fn set_owner(&mut self, provider: usize, owner: AccountId) {
        self.berths[provider].owner = Some(owner);
        self.stir(provider);
    }

    /// A provider said that it has no slot although one is free by the count here: it is given no more than `most` until
    /// [`Self::sweep`] raises that again.
    pub fn lower(&mut self, provider: usize, most: u32) {
        let berth = &mut self.berths[provider];
        berth.ceiling = berth.ceiling.min(most);
        // With so few slots nothing is in reserve, neither slots nor memory: somebody who waits may have what was.
        self.stir(provider);
    }

    pub fn taken(&self, provider: usize) -> u32 {
        self.berths[provider].taken
    }

    /// Asks again, for each line, whether the provider can take its calls.
    pub fn reconsider(&mut self, provider: usize, is_able: impl Fn(&L) -> bool) {
        for queue in self.queues.values_mut() {
            for line in &mut queue.lines {
                line.able.set(provider, is_able(&line.label));
            }
        }
        self.stir(provider);
    }

    /// A slot there, at once or not at all. Passes nobody over but calls that wait for more memory than is free: a slot that is
    /// free is one that no other waiting call may have. A limit that was raised may let others in: ask [`Self::next`].
    pub fn admit(&mut self, provider: usize, claim: &Claim, now_us: u64) -> Admission {
        self.set_limit(claim);
        if self.is_at_limit(claim) {
            return Admission::AtLimit;
        }
        if !self.fits(provider, claim) || self.is_kept(provider) {
            return Admission::Full;
        }
        self.take(provider, claim, now_us);
        self.note_passed_over(provider);
        Admission::Taken
    }

    /// Puts a call in line; `able` is asked where the line is new. Then [`Self::next`] gives it a slot that is free.
    pub fn wait(
        &mut self,
        arrival: Arrival<L, T>,
        able: impl FnOnce(&L) -> ProviderSet,
        now_us: u64,
    ) -> Result<Ticket, Crowded> {
        let claim = arrival.claim;
        self.set_limit(&claim);
        if !arrival.patient && arrival.again.is_none() {
            self.check_bounds(&claim)?;
        }
        let place = arrival.again.unwrap_or(self.arrivals);
        self.arrivals += u64::from(arrival.again.is_none());
        self.count(&claim, arrival.patient, true);
        let queue = self.queues.entry(claim.developer).or_insert_with(|| Queue {
            weight: claim.weight,
            impatient: 0,
            lines: Vec::new(),
        });
        queue.weight = claim.weight;
        queue.impatient += u32::from(!arrival.patient);
        let is_same = |line: &Line<L, T>| line.claim.function == claim.function && line.label == arrival.label;
        let index = queue.lines.iter().position(is_same).unwrap_or_else(|| {
            let able = able(&arrival.label);
            queue.lines.push(Line {
                label: arrival.label,
                claim,
                able,
                calls: BTreeMap::new(),
                barren_since_us: None,
                passed_over: 0,
            });
            queue.lines.len() - 1
        });
        let line = &mut queue.lines[index];
        let call = Call {
            word: arrival.word,
            patient: arrival.patient,
        };
        line.calls.insert(place, call);
        line.note_barren(&self.berths, now_us);
        for provider in line.able.iter() {
            stir(&mut self.stirred, &self.berths, provider);
        }
        Ok(Ticket {
            developer: claim.developer,
            arrival: place,
        })
    }

    /// Takes a call out of its line that has not got a slot; `None` where it has.
    pub fn leave(&mut self, ticket: &Ticket) -> Option<T> {
        let queue = self.queues.get(&ticket.developer)?;
        let index = queue
            .lines
            .iter()
            .position(|line| line.calls.contains_key(&ticket.arrival))?;
        Some(self.pull(ticket.developer, index, ticket.arrival).0)
    }

    /// The slot of a call that is over, or was not to have it.
    pub fn release(&mut self, provider: usize, claim: &Claim, now_us: u64) {
        let berth = &mut self.berths[provider];
        berth.taken -= 1;
        berth.memory.taken -= claim.memory_bytes;
        berth.shares.end(claim.developer, now_us);
        if let Some((function, _)) = claim.function {
            let turnstile = self.functions.get_mut(&function).expect("who runs has come in");
            let was_full = turnstile.is_full();
            turnstile.inside -= 1;
            if was_full {
                self.stir_lines(claim.developer, function);
            }
        }
        self.stir(provider);
    }

    /// Changes one slot for another, if the other is free. Whether it was.
    pub fn swap(&mut self, from: usize, to: usize, claim: &Claim, now_us: u64) -> bool {
        if !self.fits(to, claim) || self.is_kept(to) {
            return false;
        }
        self.take(to, claim, now_us);
        self.release(from, claim, now_us);
        true
    }

    /// The next slot that somebody who waits gets, if there is one.
    pub fn next(&mut self, now_us: u64) -> Option<Grant<T>> {
        while let Some(&provider) = self.stirred.last() {
            match self.grant(provider, now_us) {
                Some(grant) => return Some(grant),
                None => self.stirred.pop(),
            };
        }
        None
    }

    /// To be called some times a second. Gives out the calls that nobody can take for at least `patience_us`, except for
    /// patient ones, and raises what [`Self::lower`] lowered.
    pub fn sweep(&mut self, now_us: u64, patience_us: u64) -> Vec<T> {
        for provider in 0..self.berths.len() {
            if self.starving > 0 {
                // Where memory is kept may have changed with what is open.
                stir(&mut self.stirred, &self.berths, provider);
            }
            let berth = &mut self.berths[provider];
            if berth.ceiling < berth.slots {
                berth.ceiling += 1 + berth.slots / 8;
                self.stir(provider);
            } else {
                berth.ceiling = u32::MAX;
            }
        }
        if self.functions.len() > TURNSTILES_KEPT {
            self.functions
                .retain(|_, turnstile| turnstile.inside + turnstile.impatient > 0);
        }
        let mut given_up = Vec::new();
        for (developer, queue) in &mut self.queues {
            for (index, line) in queue.lines.iter_mut().enumerate() {
                line.note_barren(&self.berths, now_us);
                let is_over = |since| now_us.saturating_sub(since) >= patience_us;
                if queue.impatient > 0 && line.barren_since_us.is_some_and(is_over) {
                    let impatient = line.calls.iter().filter(|(_, call)| !call.patient);
                    given_up.extend(impatient.map(|(arrival, _)| (*developer, index, *arrival)));
                }
            }
        }
        // From the last line to the first: a line that is empty goes, and those behind it move up.
        given_up.reverse();
        given_up
            .into_iter()
            .map(|(developer, index, arrival)| self.pull(developer, index, arrival).0)
            .collect()
    }

    /// Calls that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    fn is_at_limit(&self, claim: &Claim) -> bool {
        let turnstile = claim.function.and_then(|(function, _)| self.functions.get(&function));
        turnstile.is_some_and(Turnstile::is_full)
    }

    fn set_limit(&mut self, claim: &Claim) {
        let Some((function, limit)) = claim.function else {
            return;
        };
        let turnstile = self.functions.entry(function).or_default();
        let before = std::mem::replace(&mut turnstile.limit, limit);
        if before < limit && turnstile.inside >= before && self.waiting > 0 {
            self.stir_lines(claim.developer, function);
        }
    }

    fn check_bounds(&self, claim: &Claim) -> Result<(), Crowded> {
        let Bounds {
            function_per_slot,
            developer,
            all,
        } = self.bounds;
        if let Some((function, limit)) = claim.function
            && let Some(turnstile) = self.functions.get(&function)
            && turnstile.impatient >= limit.saturating_mul(function_per_slot)
        {
            return Err(Crowded::Function);
        }
        let queue = self.queues.get(&claim.developer);
        if queue.is_some_and(|queue| queue.impatient >= developer) {
            return Err(Crowded::Developer);
        }
        match self.impatient >= all {
            true => Err(Crowded::All),
            false => Ok(()),
        }
    }

    fn count(&mut self, claim: &Claim, patient: bool, is_more: bool) {
        let step = |count: u32| if is_more { count + 1 } else { count - 1 };
        self.waiting = if is_more { self.waiting + 1 } else { self.waiting - 1 };
        if patient {
            return;
        }
        self.impatient = step(self.impatient);
        if let Some((function, _)) = claim.function {
            let turnstile = self.functions.entry(function).or_default();
            turnstile.impatient = step(turnstile.impatient);
        }
    }

    fn take(&mut self, provider: usize, claim: &Claim, now_us: u64) {
        let berth = &mut self.berths[provider];
        berth.taken += 1;
        berth.memory.taken += claim.memory_bytes;
        berth.shares.begin(claim.developer, claim.weight, now_us);
        if let Some((function, limit)) = claim.function {
            // A function whose calls wait and are patient may have been forgotten.
            let turnstile = self.functions.entry(function).or_insert(Turnstile {
                limit,
                inside: 0,
                impatient: 0,
            });
            turnstile.inside += 1;
        }
    }

    /// Out of its line, which goes when it is empty.
    fn pull(&mut self, developer: AccountId, index: usize, arrival: u64) -> (T, Claim) {
        if self.queues[&developer].lines[index].first() == arrival {
            self.forget_passed_over(developer, index);
        }
        let queue = self.queues.get_mut(&developer).expect("who waits is in a queue");
        let line = &mut queue.lines[index];
        let claim = line.claim;
        let call = line.calls.remove(&arrival).expect("it waits in this line");
        queue.impatient -= u32::from(!call.patient);
        if line.calls.is_empty() {
            queue.lines.remove(index);
        }
        if queue.lines.is_empty() {
            self.queues.remove(&developer);
        }
        self.count(&claim, call.patient, false);
        (call.word, claim)
    }

    /// One slot of this provider, to whom it belongs next.
    fn grant(&mut self, provider: usize, now_us: u64) -> Option<Grant<T>> {
        if !self.berths[provider].is_free() {
            return None;
        }
        if let Some((developer, line)) = self.starving_line(provider) {
            let claim = self.queues[&developer].lines[line].claim;
            return self
                .fits(provider, &claim)
                .then(|| self.hand(provider, developer, line, now_us));
        }
        let mut takers = std::mem::take(&mut self.takers);
        takers.clear();
        let mut is_awaited = false;
        for (developer, queue) in &self.queues {
            match self.oldest(queue, provider) {
                Some(line) => takers.push((*developer, queue.weight, line)),
                None => is_awaited |= queue.lines.iter().any(|line| self.could_take(line, provider)),
            }
        }
        let berth = &mut self.berths[provider];
        let granted = if takers.is_empty() {
            // A call that waits for a slot outside of the reserve goes on being counted for.
            if !is_awaited {
                berth.shares.calm();
            }
            None
        } else {
            let waiting = takers.iter().map(|(developer, weight, _)| (*developer, *weight));
            Some(takers[berth.shares.next(waiting, berth.slots, now_us)])
        };
        self.takers = takers;
        let (developer, _, line) = granted?;
        let grant = self.hand(provider, developer, line, now_us);
        self.note_passed_over(provider);
        Some(grant)
    }

    /// A slot there, to the first call of this line.
    fn hand(&mut self, provider: usize, developer: AccountId, line: usize, now_us: u64) -> Grant<T> {
        let queue = &self.queues[&developer];
        let (weight, arrival) = (queue.weight, queue.lines[line].first());
        let (word, claim) = self.pull(developer, line, arrival);
        let claim = Claim { weight, ..claim };
        self.take(provider, &claim, now_us);
        Grant { provider, claim, word }
    }

    /// The line whose first call came first, of those that this provider can take a call of now.
    fn oldest(&self, queue: &Queue<L, T>, provider: usize) -> Option<usize> {
        let berth = &self.berths[provider];
        let can = |line: &Line<L, T>| self.could_take(line, provider) && berth.has_room_for(&line.claim);
        let lines = queue.lines.iter().enumerate().filter(|(_, line)| can(line));
        lines.min_by_key(|(_, line)| line.first()).map(|(index, _)| index)
    }

    /// Whether this provider could take a call of the line now, were it not for the reserve.
    fn could_take(&self, line: &Line<L, T>, provider: usize) -> bool {
        let memory = &self.berths[provider].memory;
        line.able.contains(provider) && memory.fits(line.claim.memory_bytes) && !self.is_at_limit(&line.claim)
    }

    fn stir(&mut self, provider: usize) {
        stir(&mut self.stirred, &self.berths, provider);
    }

    /// A function may run one more: whatever is free may be for its calls.
    fn stir_lines(&mut self, developer: AccountId, function: FunctionId) {
        let Some(queue) = self.queues.get(&developer) else {
            return;
        };
        let is_its = |line: &&Line<L, T>| line.claim.function.is_some_and(|(of, _)| of == function);
        for line in queue.lines.iter().filter(is_its) {
            for provider in line.able.iter() {
                stir(&mut self.stirred, &self.berths, provider);
            }
        }
    }
}

fn stir(stirred: &mut Vec<usize>, berths: &[Berth], provider: usize) {
    if berths[provider].is_free() && !stirred.contains(&provider) {
        stirred.push(provider);
    }
}

impl<L, T> Line<L, T> {
    fn first(&self) -> u64 {
        *self
            .calls
            .first_key_value()
            .expect("a line without calls is taken away")
            .0
    }

    fn note_barren(&mut self, berths: &[Berth], now_us: u64) {
        let is_there = |provider: usize| berths[provider].presence != Presence::Closed;
        self.barren_since_us = match self.able.iter().any(is_there) {
            true => None,
            false => self.barren_since_us.or(Some(now_us)),
        };
    }
}
