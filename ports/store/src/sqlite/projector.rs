//! The thread that moves journal entries into the tables.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, MutexGuard};
use tokio::sync::{Notify, watch};

use super::{Shared, filing::Filer};
use crate::{JournalLag, StoreFailure, claims, pending::Pending};

/// Entries of one transaction: long enough to be cheap an entry, short enough that other writers wait little.
pub(super) const BATCH_MAX: usize = 8_192;
/// How long a writer that cannot wait asynchronously is held up before it is refused.
const SPACE_WAIT: Duration = Duration::from_secs(2);
/// Between attempts while the tables cannot be written.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Between looks for idempotency keys that are old enough to go.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// How far filing has come, as others may see and wait for it.
pub(super) struct Projection {
    work: Notify,
    hurry: Notify,
    stop: AtomicBool,
    /// The thread has ended: nothing is filed any more.
    ended: AtomicBool,
    /// The last failure was a full disk.
    disk_full: AtomicBool,
    progress: watch::Sender<Progress>,
    /// Told when entries have left the queue; goes with the mutex of `Pending`.
    space: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    filed: u64,
    failures: u64,
}

impl Projection {
    pub(super) fn new(filed: u64) -> Self {
        Self {
            work: Notify::new(),
            hurry: Notify::new(),
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
            progress: watch::Sender::new(Progress { filed, failures: 0 }),
            space: Condvar::new(),
        }
    }

    pub(super) fn notify(&self) {
        self.work.notify_one();
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.work.notify_one();
        self.hurry.notify_one();
    }

    fn failure(&self, pending: &Pending) -> StoreFailure {
        if self.ended.load(Ordering::Acquire) {
            return StoreFailure::JournalClosed;
        }
        if self.disk_full.load(Ordering::Acquire) {
            return StoreFailure::DiskFull;
        }
        StoreFailure::Overloaded {
            jobs: pending.entries() as u64,
            bytes: pending.bytes() as u64,
        }
    }
}

impl Shared {
    fn is_full(&self, pending: &Pending) -> bool {
        pending.entries() >= self.options.pending_max || pending.bytes() >= self.options.pending_bytes_max
    }

    /// Blocks while too much waits to be filed, for two seconds at most.
    pub(super) fn wait_for_space(&self) -> Result<(), StoreFailure> {
        let mut pending: MutexGuard<'_, Pending> = self.pending.lock();
        if !self.is_full(&pending) {
            return Ok(());
        }
        self.projection.hurry.notify_one();
        let until = Instant::now() + SPACE_WAIT;
        while self.is_full(&pending) {
            if self.projection.space.wait_until(&mut pending, until).timed_out() {
                return Err(self.projection.failure(&pending));
            }
        }
        Ok(())
    }

    /// Refuses at once while too much waits to be filed.
    pub(super) fn check_space(&self) -> Result<(), StoreFailure> {
        let pending = self.pending.lock();
        if self.is_full(&pending) {
            self.projection.hurry.notify_one();
            return Err(self.projection.failure(&pending));
        }
        Ok(())
    }

    /// Waits until all that was written before is in the tables; fails if an attempt to file it does.
    pub(super) async fn filed(&self) -> Result<(), StoreFailure> {
        let until = self.pending.lock().appended();
        let mut progress = self.projection.progress.subscribe();
        let before = *progress.borrow();
        if before.filed >= until {
            return Ok(());
        }
        if self.projection.ended.load(Ordering::Acquire) {
            return Err(StoreFailure::JournalClosed);
        }
        self.projection.hurry.notify_one();
        let done = |now: &Progress| now.filed >= until || now.failures > before.failures;
        let now = *progress.wait_for(done).await.map_err(|_| StoreFailure::JournalClosed)?;
        if now.filed < until {
            return Err(self.projection.failure(&self.pending.lock()));
        }
        Ok(())
    }

    pub(super) fn lag(&self) -> JournalLag {
        let (jobs, bytes) = {
            let pending = self.pending.lock();
            (pending.entries() as u64, pending.bytes() as u64)
        };
        JournalLag {
            jobs,
            bytes,
            unsynced_bytes: self.journal.unsynced_bytes(),
            segments: self.journal.segments(),
        }
    }
}

/// Tells those who wait that the thread has ended, be it by a panic.
struct Ending<'a>(&'a Projection);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.progress.send_modify(|progress| progress.failures += 1);
        self.0.space.notify_all();
    }
}

/// The body of the thread: files until told to stop, then once more what is left.
pub(super) async fn run(shared: &Shared, mut filer: Filer) {
    let _ending = Ending(&shared.projection);
    let mut expired_at = Instant::now();
    loop {
        wait_for_batch(shared).await;
        let stopping = shared.projection.stop.load(Ordering::Acquire);
        let failed = file_pending(shared, &mut filer).await.is_err();
        if stopping {
            return;
        }
        if failed {
            tokio::time::sleep(RETRY_AFTER).await;
        } else if expired_at.elapsed() >= EXPIRY_INTERVAL {
            expired_at = Instant::now();
            expire_keys(shared).await;
        }
    }
}

/// Waits for work, then until a batch has come together or somebody is in a hurry.
async fn wait_for_batch(shared: &Shared) {
    while shared.pending.lock().entries() == 0 && !shared.projection.stop.load(Ordering::Acquire) {
        shared.projection.work.notified().await;
    }
    let batch_time = tokio::time::sleep(shared.options.filing_interval);
    tokio::select! {
        () = batch_time => {}
        () = shared.projection.hurry.notified() => {}
    }
}

/// Files until nothing is left of what was there at the call.
async fn file_pending(shared: &Shared, filer: &mut Filer) -> Result<(), StoreFailure> {
    let until = shared.pending.lock().appended();
    loop {
        let batch = shared.pending.lock().oldest(BATCH_MAX);
        let Some((end, _)) = batch.last() else {
            return Ok(());
        };
        let filed = filer.file(&mut *shared.writer.lock().await, &batch).await;
        report(shared, filed, *end)?;
        if *end >= until {
            return Ok(());
        }
    }
}

fn report(shared: &Shared, filed: Result<(), StoreFailure>, end: u64) -> Result<(), StoreFailure> {
    let projection = &shared.projection;
    match filed {
        Ok(()) => {
            projection.disk_full.store(false, Ordering::Release);
            shared.pending.lock().forget_until(end);
            forget_claims(shared, end);
            projection.progress.send_modify(|progress| progress.filed = end);
            projection.space.notify_all();
            if let Err(error) = shared.journal.discard_before(end) {
                tracing::warn!(%error, "removing a finished journal segment failed; retrying at the next start");
            }
            Ok(())
        }
        Err(failure) => {
            let disk_full = matches!(failure, StoreFailure::DiskFull);
            projection.disk_full.store(disk_full, Ordering::Release);
            projection.progress.send_modify(|progress| progress.failures += 1);
            tracing::warn!(code = failure.code(), error = ?failure, "moving jobs from the journal to the database failed; retrying");
            Err(failure)
        }
    }
}

fn forget_claims(shared: &Shared, end: u64) {
    let mut claims = shared.claims.lock();
    if !claims.is_empty() {
        claims.forget(end, now_ms().saturating_sub(claims::KEPT_MS));
    }
}

fn now_ms() -> u64 {
    piecework_model::unix_ms(std::time::SystemTime::now())
}

async fn expire_keys(shared: &Shared) {
    let oldest = now_ms().saturating_sub(claims::KEPT_MS) as i64;
    let deleted = sqlx::query("DELETE FROM idempotency WHERE created_at_ms < $1")
        .bind(oldest)
        .execute(&mut *shared.writer.lock().await)
        .await;
    if let Err(error) = deleted {
        tracing::warn!(%error, "removing old idempotency keys failed; retrying");
    }
}
