//! Receipts that wait for their settlement, by lane.
//!
//! ```text
//! (nothing waits, no task) --push--> fresh -- a task is started --> served --all settled--> (nothing waits, no task)
//!                                                                      '-- the provider is away --> parked --'
//! ```
//! A lane is here while it has receipts, and has a task while its provider is here: idle lanes cost nothing.

use std::collections::{BTreeSet, VecDeque};

use dashmap::DashMap;
use parking_lot::Mutex;
use piecework_model::{AccountId, LeaseId, Receipt};
use tokio::sync::Notify;

/// A receipt that waits for its settlement, with the ack's time.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub receipt: Receipt,
    pub mark: [u8; 32],
    pub price_max_ucr: u64,
    pub received_at_ms: u64,
}

pub type LaneKey = (LeaseId, AccountId);

#[derive(Default)]
pub(crate) struct Outbox {
    lanes: DashMap<LaneKey, VecDeque<Outgoing>>,
    /// Got their first receipt and have no task yet.
    fresh: Mutex<Vec<LaneKey>>,
    /// Wait for their provider, without a task.
    parked: Mutex<BTreeSet<LaneKey>>,
    news: Notify,
}

impl Outbox {
    /// Takes microseconds: it is called on the way of an answer.
    pub(crate) fn push(&self, outgoing: Outgoing) {
        let lane = (outgoing.receipt.lease, outgoing.receipt.provider);
        let is_fresh = match self.lanes.entry(lane) {
            dashmap::Entry::Occupied(mut waiting) => {
                waiting.get_mut().push_back(outgoing);
                false
            }
            dashmap::Entry::Vacant(none) => {
                none.insert([outgoing].into());
                true
            }
        };
        if is_fresh {
            self.fresh.lock().push(lane);
            self.news.notify_one();
        }
    }

    /// What waits and is not in a batch.
    pub(crate) fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.len()).sum()
    }

    /// Resolves when lanes have become fresh since the last time. Cancel safe.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// The lanes that need a task.
    pub(super) fn take_fresh(&self) -> Vec<LaneKey> {
        std::mem::take(&mut *self.fresh.lock())
    }

    /// The lane has no task any more and still has receipts, or may have.
    pub(super) fn park(&self, lane: LaneKey) {
        self.parked.lock().insert(lane);
    }

    pub(super) fn has_parked(&self) -> bool {
        !self.parked.lock().is_empty()
    }

    /// Those whose provider is here again: they need a task.
    pub(super) fn take_parked(&self, is_here: impl Fn(AccountId) -> bool) -> Vec<LaneKey> {
        let mut parked = self.parked.lock();
        let (back, away): (Vec<LaneKey>, Vec<LaneKey>) = parked.iter().partition(|(_, provider)| is_here(*provider));
        *parked = away.into_iter().collect();
        back
    }

    /// The oldest receipts of the lane.
    pub(super) fn take(&self, lane: LaneKey, count_max: usize) -> Batch<'_> {
        let receipts = self.lanes.get_mut(&lane).map(|mut waiting| {
            let count = waiting.len().min(count_max);
            waiting.drain(..count).collect()
        });
        Batch {
            outbox: self,
            lane,
            receipts: receipts.unwrap_or_default(),
        }
    }

    /// Whether nothing waits in the lane: then it is forgotten, and the next receipt makes it fresh.
    pub(super) fn rest(&self, lane: LaneKey) -> bool {
        self.lanes.remove_if(&lane, |_, waiting| waiting.is_empty()).is_some() || !self.lanes.contains_key(&lane)
    }
}

/// Receipts on their way. Whatever ends the attempt, those that did not get through are back in the outbox.
pub(super) struct Batch<'a> {
    outbox: &'a Outbox,
    lane: LaneKey,
    receipts: Vec<Outgoing>,
}

impl Batch<'_> {
    /// In ascending order of their sequences, each once, as a settlement wants them.
    pub(super) fn sort(&mut self) {
        self.receipts.sort_unstable_by_key(|outgoing| outgoing.receipt.sequence);
        self.receipts.dedup_by_key(|outgoing| outgoing.receipt.sequence);
    }

    pub(super) fn receipts(&self) -> &[Outgoing] {
        &self.receipts
    }

    /// They are settled, or will never be.
    pub(super) fn done(mut self) {
        self.receipts.clear();
    }

    /// The last of them is.
    pub(super) fn done_with_last(&mut self) {
        self.receipts.pop();
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.receipts.is_empty() {
            // The lane's entry stays while its task runs.
            let mut waiting = self.outbox.lanes.entry(self.lane).or_default();
            for outgoing in self.receipts.drain(..).rev() {
                waiting.push_front(outgoing);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use piecework_model::{Counters, Digest, JobId, JobStatus};

    use super::*;

    const LANE: LaneKey = (LeaseId([1; 20]), AccountId([2; 20]));

    fn outgoing(sequence: u64) -> Outgoing {
        Outgoing {
            receipt: Receipt {
                lease: LANE.0,
                provider: LANE.1,
                sequence,
                job: JobId([sequence as u8; 16]),
                code: Digest::of(b"code"),
                input: Digest::of(b"input"),
                output: Digest::of(b"output"),
                status: JobStatus::Ok,
                counters: Counters::default(),
                price_ucr: 1,
                duration_us: 1,
            },
            mark: [0; 32],
            price_max_ucr: 1,
            received_at_ms: 1,
        }
    }

    fn sequences(batch: &Batch<'_>) -> Vec<u64> {
        batch
            .receipts()
            .iter()
            .map(|outgoing| outgoing.receipt.sequence)
            .collect()
    }

    #[test]
    fn a_lane_is_fresh_once_and_again_after_all_of_it_is_settled() {
        let outbox = Outbox::default();
        outbox.push(outgoing(1));
        outbox.push(outgoing(2));
        assert_eq!(outbox.take_fresh(), [LANE]);
        assert_eq!(outbox.take_fresh(), []);
        let batch = outbox.take(LANE, 10);
        outbox.push(outgoing(3));
        assert_eq!(outbox.take_fresh(), [], "its task runs");
        batch.done();
        assert!(!outbox.rest(LANE), "one came meanwhile");
        outbox.take(LANE, 10).done();
        assert!(outbox.rest(LANE));
        outbox.push(outgoing(4));
        assert_eq!(outbox.take_fresh(), [LANE]);
    }

    #[test]
    fn what_did_not_get_through_comes_first_again() {
        let outbox = Outbox::default();
        for sequence in [3, 1, 2] {
            outbox.push(outgoing(sequence));
        }
        let mut batch = outbox.take(LANE, 2);
        batch.sort();
        assert_eq!(sequences(&batch), [1, 3]);
        drop(batch);
        assert_eq!(sequences(&outbox.take(LANE, 10)), [1, 3, 2]);
        assert_eq!(outbox.len(), 3, "dropped again");
    }

    #[test]
    fn parked_lanes_wait_for_their_provider() {
        let outbox = Outbox::default();
        let other = (LANE.0, AccountId([9; 20]));
        outbox.park(LANE);
        outbox.park(other);
        assert_eq!(outbox.take_parked(|provider| provider == LANE.1), [LANE]);
        assert!(outbox.has_parked());
        assert_eq!(outbox.take_parked(|_| true), [other]);
        assert!(!outbox.has_parked());
    }
}
