//! What waits for a decision, in memory: by job, and of each developer the oldest first.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;
use piecework_model::{AccountId, JobId};

/// Of one developer's functions. Beyond it the oldest is decided about as if its time were over: nobody looks at so many, and
/// each takes memory, a record and a look now and then.
pub(super) const WAITING_EACH_MAX: usize = 1_000;

/// Whose it is and since when it waits, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since {
    pub(super) developer: AccountId,
    pub(super) at_ms: u64,
}

pub(super) struct Waiting<T>(Mutex<State<T>>);

struct State<T> {
    held: HashMap<JobId, (Since, T)>,
    of: HashMap<AccountId, BTreeSet<(u64, JobId)>>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self(Mutex::new(State {
            held: HashMap::new(),
            of: HashMap::new(),
        }))
    }
}

impl<T> State<T> {
    fn remove(&mut self, job: JobId) -> Option<(Since, T)> {
        let (since, held) = self.held.remove(&job)?;
        if let Some(own) = self.of.get_mut(&since.developer) {
            own.remove(&(since.at_ms, job));
            if own.is_empty() {
                self.of.remove(&since.developer);
            }
        }
        Some((since, held))
    }
}

impl<T> Waiting<T> {
    /// The job that must go for it, if its developer has too many.
    pub(super) fn add(&self, job: JobId, since: Since, held: T) -> Option<JobId> {
        let mut state = self.0.lock();
        // One that is held again, since its decision could not be written down, has its old place.
        state.remove(job);
        state.held.insert(job, (since, held));
        let own = state.of.entry(since.developer).or_default();
        own.insert((since.at_ms, job));
        own.first()
            .filter(|_| own.len() > WAITING_EACH_MAX)
            .map(|(_, oldest)| *oldest)
    }

    /// Whoever gets it decides.
    pub(super) fn take(&self, job: JobId) -> Option<(Since, T)> {
        self.0.lock().remove(job)
    }

    pub(super) fn which(&self, is: impl Fn(&T) -> bool) -> Vec<JobId> {
        let state = self.0.lock();
        let these = state.held.iter().filter(|(_, (_, held))| is(held));
        these.map(|(job, _)| *job).collect()
    }

    /// Those that have waited since then or longer.
    pub(super) fn since(&self, at_ms: u64) -> Vec<JobId> {
        let state = self.0.lock();
        let overdue = state.held.iter().filter(|(_, (since, _))| since.at_ms <= at_ms);
        overdue.map(|(job, _)| *job).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(developer: u8, at_ms: u64) -> Since {
        Since {
            developer: AccountId([developer; 20]),
            at_ms,
        }
    }

    fn job(number: u64) -> JobId {
        JobId::new(number, [0; 10])
    }

    #[test]
    fn of_one_developer_the_oldest_goes_where_there_are_too_many() {
        let waiting = Waiting::default();
        let most = WAITING_EACH_MAX as u64;
        for number in 0..most {
            assert_eq!(waiting.add(job(number), since(1, 10 + number), ()), None);
        }
        assert_eq!(waiting.add(job(most), since(2, 0), ()), None, "another's");
        assert_eq!(waiting.add(job(3), since(1, 13), ()), None, "again, in its old place");
        assert_eq!(
            waiting.add(job(most + 1), since(1, 5), ()),
            Some(job(most + 1)),
            "it is the oldest"
        );
        assert_eq!(waiting.take(job(most + 1)), Some((since(1, 5), ())));
        assert_eq!(waiting.add(job(most + 2), since(1, 9_999), ()), Some(job(0)));
        assert_eq!(waiting.take(job(0)), Some((since(1, 10), ())));
        assert_eq!(waiting.take(job(0)), None);
        assert_eq!(waiting.since(12).len(), 3, "two of one, one of the other");
        assert!(waiting.which(|()| false).is_empty());
        for job in waiting.which(|()| true) {
            waiting.take(job).expect("it is there");
        }
        assert!(waiting.0.lock().of.is_empty());
    }
}
