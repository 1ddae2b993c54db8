//! Memory as a second measure of a provider's room: what its running jobs may use, together, never exceeds what it has.
//!
//! A call that has a slot and no memory waits like one that has no slot. Smaller calls go past it, so that memory that is there
//! is used, but only so often: from then on what comes free at one provider is kept until the call fits.

use piecework_model::AccountId;

use super::{Claim, Line, Presence, Queue, Room, stir};

/// So many calls may pass one that waits for memory. Each may hold its memory as long as its timeout, so that this bounds both
/// the wait of a large call and how much memory idles for it.
pub(super) const PASSED_OVER_MAX: u32 = 32;

/// One provider's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purse {
    pub(super) bytes: u64,
    pub(super) taken: u64,
}

impl Default for Purse {
    /// Without bound until the provider says how much it has.
    fn default() -> Self {
        Self {
            bytes: u64::MAX,
            taken: 0,
        }
    }
}

impl Purse {
    pub(super) fn fits(&self, bytes: u64) -> bool {
        self.taken.checked_add(bytes).is_some_and(|sum| sum <= self.bytes)
    }
}

impl<L: PartialEq, T> Room<L, T> {
    /// How much memory a provider has for all its jobs together.
    pub fn set_memory(&mut self, provider: usize, bytes: u64) {
        self.berths[provider].memory.bytes = bytes;
        self.stir(provider);
    }

    /// What is set aside there now.
    pub fn memory_taken(&self, provider: usize) -> u64 {
        self.berths[provider].memory.taken
    }

    /// Whether this provider keeps what comes free for a call that was passed over often enough.
    pub(super) fn is_kept(&self, provider: usize) -> bool {
        self.starving > 0 && self.starving_line(provider).is_some()
    }

    /// The line whose first call was passed over most, of those that this provider keeps its memory for.
    pub(super) fn starving_line(&self, provider: usize) -> Option<(AccountId, usize)> {
        if self.starving == 0 {
            return None;
        }
        let lines = self.queues.iter().flat_map(|(developer, queue)| {
            let numbered = queue.lines.iter().enumerate();
            numbered.map(move |(index, line)| (*developer, index, line))
        });
        lines
            .filter(|(_, _, line)| line.passed_over >= PASSED_OVER_MAX && !self.is_at_limit(&line.claim))
            .filter(|(_, _, line)| self.keeper_of(line) == Some(provider))
            // A call that may not have a slot of the reserve keeps nothing from those that may.
            .filter(|(developer, _, _)| self.berths[provider].gives_slot_to(*developer))
            .max_by_key(|(_, _, line)| line.passed_over)
            .map(|(developer, index, _)| (developer, index))
    }

    /// The one provider where memory is kept for the line's calls: the first that is open and large enough.
    fn keeper_of(&self, line: &Line<L, T>) -> Option<usize> {
        line.able.iter().find(|provider| {
            let berth = &self.berths[*provider];
            berth.presence == Presence::Open && berth.memory.bytes >= line.claim.memory_bytes
        })
    }

    /// Somebody got a slot there: counts it for the lines whose calls are too large for what is left.
    pub(super) fn note_passed_over(&mut self, provider: usize) {
        if self.waiting == 0 || self.berths[provider].memory.bytes == u64::MAX {
            return;
        }
        let memory = self.berths[provider].memory;
        let mut passed = Vec::new();
        for (developer, queue) in &self.queues {
            for (index, line) in queue.lines.iter().enumerate() {
                let waits_for_memory = line.able.contains(provider) && !memory.fits(line.claim.memory_bytes);
                if waits_for_memory && !self.is_at_limit(&line.claim) && self.keeper_of(line) == Some(provider) {
                    passed.push((*developer, index));
                }
            }
        }
        for (developer, index) in passed {
            let line = &mut self.queues.get_mut(&developer).expect("it was just there").lines[index];
            line.passed_over += 1;
            self.starving += usize::from(line.passed_over == PASSED_OVER_MAX);
        }
    }

    /// A line's first call got its slot, or the line is gone: what was counted for it is over.
    pub(super) fn forget_passed_over(&mut self, developer: AccountId, index: usize) {
        let queue: &mut Queue<L, T> = self.queues.get_mut(&developer).expect("who waits is in a queue");
        let line = &mut queue.lines[index];
        if std::mem::take(&mut line.passed_over) < PASSED_OVER_MAX {
            return;
        }
        self.starving -= 1;
        for provider in line.able.iter() {
            stir(&mut self.stirred, &self.berths, provider);
        }
    }

    pub(super) fn fits(&self, provider: usize, claim: &Claim) -> bool {
        self.berths[provider].has_room_for(claim)
    }
}
