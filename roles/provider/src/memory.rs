//! Memory as a sum: what running jobs, warm instances and templates may hold together never exceeds what this machine has.
//!
//! ```text
//! job begins --take--> its limit and what an instance costs beyond --ends--> what the idle instance holds, or nothing
//!              `-- no room: idle instances go, the longest idle first; still none: the job is refused and waits elsewhere
//! ```
//! What there is: the machine's memory, or what its control group may use if that is less, without a reserve for the platform
//! itself; and never more than is free at the moment beside what guests hold already.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

mod machine;

pub use machine::guest_bytes;
pub(crate) use machine::{Groups, RESERVE_BYTES};

/// The sum of all reservations, and its bound.
pub(crate) struct Memory {
    state: Mutex<State>,
    /// Told when something is given back.
    pub(crate) freed: Notify,
}

struct State {
    /// Ever.
    most: u64,
    /// Now: less while others use the machine's memory.
    limit: u64,
    taken: u64,
}

impl Memory {
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                most: bytes,
                limit: bytes,
                taken: 0,
            }),
            freed: Notify::new(),
        })
    }

    /// Takes so many bytes, if there are.
    #[cfg(test)]
    pub(crate) fn take(self: &Arc<Self>, bytes: u64) -> Option<Reserved> {
        let mut reserved = Reserved {
            memory: self.clone(),
            bytes: 0,
        };
        reserved.grow(bytes).then_some(reserved)
    }

    /// Counts what is there already, whether there is room for it or not.
    pub(crate) fn count(self: &Arc<Self>, bytes: u64) -> Reserved {
        self.state.lock().taken += bytes;
        Reserved {
            memory: self.clone(),
            bytes,
        }
    }

    /// By how much the sum exceeds what there is now; with `more` on top of it.
    pub(crate) fn excess(&self, more: u64) -> u64 {
        let state = self.state.lock();
        state.taken.saturating_add(more).saturating_sub(state.limit)
    }

    /// What guests hold now and what is free beside them bounds what may be promised.
    pub(crate) fn look(&self, held_bytes: u64, available_bytes: u64) {
        let mut state = self.state.lock();
        // What they hold beyond what they may is none of theirs: page cache of a control group.
        let held_bytes = held_bytes.min(state.taken);
        state.limit = held_bytes.saturating_add(available_bytes).min(state.most);
    }

    #[cfg(test)]
    pub(crate) fn taken(&self) -> u64 {
        self.state.lock().taken
    }
}

/// A part of the sum; given back when dropped.
pub(crate) struct Reserved {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Reserved {
    /// To `bytes`, if there is room; else nothing changes.
    pub(crate) fn grow(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let mut state = self.memory.state.lock();
        let fits = more == 0 || state.taken.saturating_add(more) <= state.limit;
        if fits {
            state.taken += more;
            self.bytes += more;
        }
        fits
    }

    /// To what is held in fact.
    pub(crate) fn set(&mut self, bytes: u64) {
        {
            let mut state = self.memory.state.lock();
            state.taken = state.taken - self.bytes + bytes;
        }
        if bytes < std::mem::replace(&mut self.bytes, bytes) {
            self.memory.freed.notify_waiters();
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn five_of_900_mib_are_not_promised_of_3_gib() {
        let memory = Memory::new(3 << 30);
        let mut held: Vec<_> = (0..5).filter_map(|_| memory.take(916 * MIB)).collect();
        assert_eq!((held.len(), memory.taken()), (3, 3 * 916 * MIB));
        held.pop();
        assert!(memory.take(916 * MIB).is_some(), "given back");
    }

    #[test]
    fn an_instance_at_rest_counts_as_what_it_holds() {
        let memory = Memory::new(300 * MIB);
        let mut first = memory.take(200 * MIB).expect("it fits");
        assert!(memory.take(200 * MIB).is_none());
        first.set(50 * MIB);
        let second = memory.take(200 * MIB).expect("the first rests");
        assert!(!first.grow(200 * MIB), "and cannot go on beside it");
        assert_eq!(memory.excess(150 * MIB), 100 * MIB);
        drop(second);
        assert!(first.grow(200 * MIB));
    }

    #[test]
    fn what_others_use_is_not_promised() {
        let memory = Memory::new(1_000 * MIB);
        let running = memory.take(400 * MIB).expect("it fits");
        memory.look(100 * MIB, 250 * MIB);
        assert!(memory.take(10 * MIB).is_none(), "350 MiB are promised already");
        assert_eq!(memory.excess(0), 50 * MIB);
        memory.look(100 * MIB, 5_000 * MIB);
        assert!(memory.take(600 * MIB).is_some(), "and never more than at the start");
        drop(running);
    }
}
