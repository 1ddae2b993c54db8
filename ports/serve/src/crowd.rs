//! How many may do one thing at a time, in all and of one caller.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;

use super::Caller;

/// Those who do it now. They are told apart by their addresses, or by what else names them.
#[derive(Clone)]
pub struct Crowd<K = Caller>(Arc<Within<K>>);

struct Within<K> {
    all_max: usize,
    of_one_max: usize,
    present: Mutex<Present<K>>,
}

struct Present<K> {
    all: usize,
    of_each: HashMap<K, usize>,
}

/// One of them, until it is dropped.
pub struct Member<K: Copy + Eq + Hash = Caller> {
    crowd: Crowd<K>,
    caller: K,
}

impl<K: Copy + Eq + Hash> Crowd<K> {
    pub fn new(all_max: usize, of_one_max: usize) -> Self {
        let present = Present {
            all: 0,
            of_each: HashMap::new(),
        };
        Self(Arc::new(Within {
            all_max,
            of_one_max,
            present: Mutex::new(present),
        }))
    }

    /// `None` where there are too many, in all or of this caller.
    pub fn enter(&self, caller: K) -> Option<Member<K>> {
        let mut present = self.0.present.lock();
        let own = present.of_each.get(&caller).copied().unwrap_or(0);
        if present.all >= self.0.all_max || own >= self.0.of_one_max {
            return None;
        }
        present.all += 1;
        present.of_each.insert(caller, own + 1);
        Some(Member {
            crowd: self.clone(),
            caller,
        })
    }
}

impl<K: Copy + Eq + Hash> Drop for Member<K> {
    fn drop(&mut self) {
        let mut present = self.crowd.0.present.lock();
        present.all -= 1;
        if let Some(own) = present.of_each.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                present.of_each.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_in_all_and_fewer_of_one_caller_and_places_are_given_back() {
        let crowd = Crowd::new(5, 2);
        let from = |last: u8| Caller([10, 0, 0, last].into());
        let one: Vec<_> = (0..9).filter_map(|_| crowd.enter(from(1))).collect();
        let others: Vec<_> = (2..9).filter_map(|last| crowd.enter(from(last))).collect();
        assert_eq!((one.len(), others.len()), (2, 3));
        drop((one, others));
        assert!(crowd.enter(from(1)).is_some());
        assert!(
            crowd.0.present.lock().of_each.is_empty(),
            "nothing is kept of who has gone"
        );
    }
}
