//! Failed attempts of strangers, in a table of a fixed size: whoever guesses has to wait, and nobody else.
//!
//! A name is never locked: what is counted is an address, and an address together with a name. So strangers cannot keep an
//! account's owner out, unless they share the owner's address, and even then a login is only slow at first.

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// 8,192 counters of 32 bytes, whatever strangers send.
const SETS: usize = 2_048;
const WAYS: usize = 4;

/// How often something may fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// So often at once.
    pub(crate) failures_max: u32,
    /// And once more in each such time.
    pub(crate) forgets: Duration,
}

#[derive(Clone, Copy)]
struct Counter {
    /// What it counts: a keyed hash, so that nobody can choose who shares a counter.
    tag: u64,
    failures: u32,
    /// Up to when failures have been forgotten.
    at: Instant,
    forgets: Duration,
}

impl Counter {
    fn forget(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        let forgotten = passed.as_nanos() / self.forgets.as_nanos().max(1);
        let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
        if forgotten >= self.failures {
            (self.failures, self.at) = (0, now);
        } else {
            self.failures -= forgotten;
            self.at += self.forgets * forgotten;
        }
    }
}

/// The counters. One that has to make room for another is the one with the fewest failures.
pub(crate) struct Throttle {
    keys: RandomState,
    sets: Box<[Mutex<[Option<Counter>; WAYS]>]>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            keys: RandomState::new(),
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Throttle {
    /// Counts an attempt before it is known to fail, so that many at once are counted too. How many failed before it; `None`
    /// where they were too many, and this one is not counted.
    pub(crate) fn attempt(&self, key: impl Hash, patience: Patience, now: Instant) -> Option<u32> {
        let tag = self.keys.hash_one(key);
        let mut set = self.set(tag).lock();
        set.iter_mut().flatten().for_each(|counter| counter.forget(now));
        let at = set
            .iter()
            .position(|counter| counter.is_some_and(|counter| counter.tag == tag));
        let at = at.unwrap_or_else(|| least(&*set));
        let counter = set[at].filter(|counter| counter.tag == tag);
        let mut counter = counter.unwrap_or(Counter {
            tag,
            failures: 0,
            at: now,
            forgets: patience.forgets,
        });
        let before = counter.failures;
        if before >= patience.failures_max {
            return None;
        }
        counter.failures += 1;
        set[at] = Some(counter);
        Some(before)
    }

    /// Whether an attempt would be let through; nothing is counted.
    pub(crate) fn may(&self, key: impl Hash, patience: Patience, now: Instant) -> bool {
        let tag = self.keys.hash_one(key);
        let mut set = self.set(tag).lock();
        let counter = set.iter_mut().flatten().find(|counter| counter.tag == tag);
        counter.is_none_or(|counter| {
            counter.forget(now);
            counter.failures < patience.failures_max
        })
    }

    /// The attempt did not fail: all before it are forgotten, too.
    pub(crate) fn forgive(&self, key: impl Hash) {
        let tag = self.keys.hash_one(key);
        for counter in self.set(tag).lock().iter_mut() {
            if counter.is_some_and(|counter| counter.tag == tag) {
                *counter = None;
            }
        }
    }

    /// The attempt did not fail: it alone is not counted.
    pub(crate) fn take_back(&self, key: impl Hash) {
        let tag = self.keys.hash_one(key);
        let mut set = self.set(tag).lock();
        if let Some(counter) = set.iter_mut().flatten().find(|counter| counter.tag == tag) {
            counter.failures = counter.failures.saturating_sub(1);
        }
    }

    fn set(&self, tag: u64) -> &Mutex<[Option<Counter>; WAYS]> {
        // The low bits choose the set, all of them tell counters apart.
        &self.sets[(tag % SETS as u64) as usize]
    }
}

/// An empty counter, else the one with the fewest failures.
fn least(set: &[Option<Counter>]) -> usize {
    let failures = |at: &usize| set[*at].map_or(0, |counter| counter.failures + 1);
    (0..set.len()).min_by_key(failures).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        failures_max: 3,
        forgets: Duration::from_secs(10),
    };

    #[test]
    fn who_fails_waits_and_nobody_else() {
        let (throttle, begun) = (Throttle::default(), Instant::now());
        let at = |s| begun + Duration::from_secs(s);
        let tried: Vec<_> = (0..5).map(|_| throttle.attempt("one", PATIENCE, at(0))).collect();
        assert_eq!(tried, [Some(0), Some(1), Some(2), None, None]);
        assert!(!throttle.may("one", PATIENCE, at(9)) && throttle.may("other", PATIENCE, at(0)));
        assert_eq!(throttle.attempt("other", PATIENCE, at(0)), Some(0));
        assert_eq!(throttle.attempt("one", PATIENCE, at(10)), Some(2), "one is forgotten");
        assert_eq!(throttle.attempt("one", PATIENCE, at(19)), None);
        assert_eq!(
            throttle.attempt("one", PATIENCE, at(1_000)),
            Some(0),
            "all are forgotten"
        );
        throttle.forgive("one");
        assert_eq!(throttle.attempt("one", PATIENCE, at(1_000)), Some(0));
        throttle.take_back("one");
        assert_eq!(throttle.attempt("one", PATIENCE, at(1_000)), Some(0));
    }

    #[test]
    fn a_million_names_take_no_more_room_and_do_not_free_the_one_that_fails_most() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        while throttle.attempt("guessed", PATIENCE, now).is_some() {}
        for name in 0..100_000_u32 {
            throttle.attempt(name, PATIENCE, now);
        }
        assert_eq!(throttle.sets.len() * WAYS, 8_192);
        assert!(!throttle.may("guessed", PATIENCE, now));
    }
}
