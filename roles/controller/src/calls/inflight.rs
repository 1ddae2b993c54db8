//! Jobs on their way: to be cancelled, and to be waited for.

use std::sync::Arc;

use dashmap::DashMap;
use piecework_model::JobId;
use piecework_store::Job;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// One job on its way.
pub(crate) struct Flight {
    pub(crate) cancel: CancellationToken,
    /// The record as it stands, for whoever asks before the end.
    ended: watch::Sender<bool>,
    pub(crate) queued: parking_lot::Mutex<Job>,
}

#[derive(Default)]
pub(crate) struct Inflight {
    flights: DashMap<JobId, Arc<Flight>>,
    halted: CancellationToken,
}

/// Takes the job off the list when it ends, however it ends.
pub(crate) struct Aboard<'a> {
    list: &'a Inflight,
    id: JobId,
    pub(crate) flight: Arc<Flight>,
}

impl Inflight {
    pub(crate) fn board(&self, job: Job) -> Aboard<'_> {
        let id = job.id;
        let flight = Arc::new(Flight {
            cancel: CancellationToken::new(),
            ended: watch::Sender::new(false),
            queued: parking_lot::Mutex::new(job),
        });
        self.flights.insert(id, flight.clone());
        Aboard { list: self, id, flight }
    }

    pub(crate) fn get(&self, job: JobId) -> Option<Arc<Flight>> {
        self.flights.get(&job).map(|entry| entry.value().clone())
    }

    /// The records, as they stand, of those that `wanted` takes.
    pub(crate) fn list(&self, wanted: impl Fn(&Job) -> bool) -> Vec<Job> {
        let record = |flight: &Flight| {
            let job = flight.queued.lock();
            wanted(&job).then(|| job.clone())
        };
        self.flights.iter().filter_map(|entry| record(&entry)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whatever still runs is given up: the process ends.
    pub(crate) fn halt(&self) {
        self.halted.cancel();
    }

    pub(crate) async fn halted(&self) {
        self.halted.cancelled().await;
    }

    /// Returns when the job is no longer on its way; at once if it is not.
    pub(crate) async fn ended(&self, job: JobId) {
        let Some(flight) = self.get(job) else { return };
        let mut ended = flight.ended.subscribe();
        drop(flight);
        // An error says that the flight is gone: it has ended.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

impl Drop for Aboard<'_> {
    fn drop(&mut self) {
        self.list.flights.remove(&self.id);
        self.flight.ended.send_replace(true);
    }
}
