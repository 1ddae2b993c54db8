//! Which block holds a transaction: the latest ones, in memory.

use std::collections::{HashMap, VecDeque};

use piecework_ledger::{Outcome, TransactionId};

/// Where a transaction is, and whether it was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) height: u64,
    pub(crate) index: u32,
    pub(crate) executed: bool,
}

/// Bounded: the oldest leave first.
pub(crate) struct Index {
    located: HashMap<TransactionId, Located>,
    /// Newest at the back.
    order: VecDeque<(TransactionId, u64)>,
    max: usize,
}

impl Index {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            located: HashMap::new(),
            order: VecDeque::new(),
            max,
        }
    }

    pub(crate) fn get(&self, id: &TransactionId) -> Option<Located> {
        self.located.get(id).copied()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.order.len() >= self.max
    }

    /// Adds the outcomes of a new block. A transaction that was refused before may come again: its latest place counts.
    pub(crate) fn push(&mut self, height: u64, outcomes: &[Outcome]) {
        for (id, located) in locate(height, outcomes) {
            self.located.insert(id, located);
            self.order.push_back((id, height));
        }
        while self.order.len() > self.max {
            self.pop_oldest();
        }
    }

    /// Adds the outcomes of a block older than all that are here, as far as there is room.
    pub(crate) fn push_older(&mut self, height: u64, outcomes: &[Outcome]) {
        for (id, located) in locate(height, outcomes).rev() {
            if self.is_full() {
                return;
            }
            self.located.entry(id).or_insert(located);
            self.order.push_front((id, height));
        }
    }

    fn pop_oldest(&mut self) {
        if let Some((id, height)) = self.order.pop_front()
            && self.located.get(&id).is_some_and(|located| located.height == height)
        {
            self.located.remove(&id);
        }
    }
}

fn locate(height: u64, outcomes: &[Outcome]) -> impl DoubleEndedIterator<Item = (TransactionId, Located)> {
    outcomes.iter().enumerate().map(move |(index, outcome)| {
        let located = Located {
            height,
            index: index as u32,
            executed: outcome.result.is_ok(),
        };
        (outcome.id, located)
    })
}

#[cfg(test)]
mod tests {
    use piecework_model::{Code, Digest, Rejection};

    use super::*;

    fn id(byte: u8) -> TransactionId {
        TransactionId(Digest([byte; 32]))
    }

    fn outcome(byte: u8, executed: bool) -> Outcome {
        let result = if executed {
            Ok(Vec::new())
        } else {
            Err(Rejection::new(Code::LeaseUnknown, "no"))
        };
        Outcome { id: id(byte), result }
    }

    #[test]
    fn the_oldest_leave_first() {
        let mut index = Index::new(2);
        for height in 1..=3 {
            index.push(height.into(), &[outcome(height, true)]);
        }
        assert_eq!(index.get(&id(1)), None);
        assert_eq!(index.get(&id(2)).map(|located| located.height), Some(2));
        assert_eq!(index.get(&id(3)).map(|located| located.height), Some(3));
    }

    #[test]
    fn the_latest_place_of_a_transaction_counts() {
        let mut index = Index::new(9);
        index.push(5, &[outcome(1, true)]);
        index.push_older(4, &[outcome(2, true), outcome(1, false)]);
        let located = index.get(&id(1)).expect("it is here");
        assert_eq!((located.height, located.executed), (5, true));
        assert_eq!(index.get(&id(2)).map(|located| located.index), Some(0));
    }

    #[test]
    fn history_fills_only_what_room_there_is() {
        let mut index = Index::new(2);
        index.push(9, &[outcome(9, true)]);
        index.push_older(8, &[outcome(7, true), outcome(8, true)]);
        assert!(index.is_full());
        assert!(index.get(&id(8)).is_some());
        assert_eq!(index.get(&id(7)), None);
    }
}
