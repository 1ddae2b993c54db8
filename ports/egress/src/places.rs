//! Who holds how much of what all instances share, so that one payer's functions leave some for the others'.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use piecework_model::LeaseId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Whose calls count together: the lease that pays for them, of which a developer has one. Calls that nobody pays for (a
/// probe, packages that are resolved) count together as well.
pub(crate) type Payer = Option<LeaseId>;

/// A number of places. A payer gets another one while it holds fewer than are free, and no more than its part of all: then
/// the more one holds, the more is left for those that come later.
pub(crate) struct Places {
    all: u32,
    /// The most that one payer holds.
    part: u32,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    taken: u32,
    by_payer: HashMap<Payer, u32>,
}

/// One place, until dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    payer: Payer,
}

impl Places {
    pub(crate) fn new(all: u32, part: u32) -> Arc<Self> {
        Arc::new(Self {
            all,
            part,
            held: Mutex::default(),
        })
    }

    pub(crate) fn take(self: &Arc<Self>, payer: Payer) -> Option<Place> {
        let mut held = self.held.lock();
        let own = held.by_payer.get(&payer).copied().unwrap_or(0);
        let free = self.all - held.taken;
        if own >= self.part || own >= free {
            return None;
        }
        held.taken += 1;
        held.by_payer.insert(payer, own + 1);
        Some(Place {
            places: self.clone(),
            payer,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held.lock();
        held.taken -= 1;
        if let Some(own) = held.by_payer.get_mut(&self.payer) {
            *own -= 1;
            if *own == 0 {
                held.by_payer.remove(&self.payer);
            }
        }
    }
}

/// A number of turns, for which one waits: of one payer, a few at once are at work or wait for one of all.
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    each: usize,
    by_payer: Arc<Mutex<HashMap<Payer, Arc<Semaphore>>>>,
}

/// One turn, until dropped.
pub(crate) struct Turn {
    _of_all: OwnedSemaphorePermit,
    _own: Own,
}

/// A payer's place in its own line, which is forgotten with the last.
struct Own {
    by_payer: Arc<Mutex<HashMap<Payer, Arc<Semaphore>>>>,
    payer: Payer,
    line: Option<Arc<Semaphore>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(crate) fn new(all: usize, each: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            each,
            by_payer: Arc::default(),
        }
    }

    /// Cancel safe.
    pub(crate) async fn take(&self, payer: Payer) -> Turn {
        let line = self
            .by_payer
            .lock()
            .entry(payer)
            .or_insert_with(|| Arc::new(Semaphore::new(self.each)))
            .clone();
        let mut own = Own {
            by_payer: self.by_payer.clone(),
            payer,
            line: Some(line.clone()),
            permit: None,
        };
        own.permit = Some(acquire(line).await);
        Turn {
            _of_all: acquire(self.all.clone()).await,
            _own: own,
        }
    }
}

async fn acquire(semaphore: Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore
        .acquire_owned()
        .await
        .expect("these semaphores are never closed")
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut by_payer = self.by_payer.lock();
        self.permit = None;
        self.line = None;
        // One reference is the table's own: nobody holds or awaits the line.
        if by_payer
            .get(&self.payer)
            .is_some_and(|line| Arc::strong_count(line) == 1)
        {
            by_payer.remove(&self.payer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payer(number: u8) -> Payer {
        Some(LeaseId([number; 20]))
    }

    fn take_all(places: &Arc<Places>, payer: Payer) -> Vec<Place> {
        std::iter::from_fn(|| places.take(payer)).collect()
    }

    #[test]
    fn one_payer_takes_its_part_and_the_next_ones_get_some_all_the_same() {
        let places = Places::new(1_024, 256);
        let held: Vec<Vec<Place>> = (0..8).map(|number| take_all(&places, payer(number))).collect();
        let counts: Vec<usize> = held.iter().map(Vec::len).collect();
        assert_eq!(counts, [256, 256, 256, 128, 64, 32, 16, 8]);
        drop(held);
        assert!(places.held.lock().by_payer.is_empty() && places.held.lock().taken == 0);
    }

    #[tokio::test]
    async fn one_payers_slow_lookups_leave_turns_for_another() {
        let turns = Turns::new(4, 2);
        let held = (turns.take(payer(1)).await, turns.take(payer(1)).await);
        let mut third = Box::pin(turns.take(payer(1)));
        assert!(futures::poll!(&mut third).is_pending());
        let others = (turns.take(payer(2)).await, turns.take(payer(3)).await);
        drop(held);
        drop((third.await, others));
        assert!(turns.by_payer.lock().is_empty());
    }
}
