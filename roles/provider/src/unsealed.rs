//! Receipts that have no seal yet: the controller pays only under a seal, and only this provider can give it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use piecework_model::JobId;
use piecework_queue::Unsealed as Asked;

/// A controller asks within a second; one that does not in this time holds a receipt back, or does not pay it.
const ASKED_WITHIN: Duration = Duration::from_secs(10);
/// Some seconds of full load; beyond, the eldest are not waited for.
const WAITED_FOR_MAX: usize = 20_000;

#[derive(Default)]
pub(crate) struct Unsealed(Mutex<HashMap<JobId, Instant>>);

impl Unsealed {
    pub(crate) fn ran(&self, job: JobId) {
        let mut open = self.0.lock();
        if open.len() >= WAITED_FOR_MAX {
            open.retain(|_, since| since.elapsed() < ASKED_WITHIN);
        }
        if open.len() < WAITED_FOR_MAX {
            open.insert(job, Instant::now());
        }
    }

    pub(crate) fn sealed(&self, receipts: &[Asked]) {
        let mut open = self.0.lock();
        for asked in receipts {
            open.remove(&asked.receipt.job);
        }
    }

    /// Those for which it is worth to wait.
    pub(crate) fn len(&self) -> usize {
        let mut open = self.0.lock();
        open.retain(|_, since| since.elapsed() < ASKED_WITHIN);
        open.len()
    }
}
