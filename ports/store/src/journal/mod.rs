//! An append-only journal: what is written into it survives the death of the process at once, and a power cut soon after.
//!
//! One write(2) an entry, in the caller's thread. A thread of its own syncs: at once where somebody waits, which groups
//! all who wait at that moment, else within [`SYNC_AFTER`].

mod entry;
#[cfg(test)]
mod fuzz;
mod segment;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

pub(crate) use entry::{Entry, Frame};
use segment::SEGMENT_HEADER_BYTES;
pub(crate) use segment::copy as copy_segments;

use crate::StoreFailure;

/// With the sync itself, the window that a power cut may take stays below 50 ms on a usual disk.
pub(crate) const SYNC_AFTER: Duration = Duration::from_millis(30);

struct Writer {
    file: Arc<File>,
    /// Position of the first frame of `file`.
    start: u64,
    /// Where the next frame goes.
    position: u64,
    /// A write failed midway and could not be undone yet.
    torn: bool,
    /// Segments before the current one that are still there.
    older: Vec<u64>,
    /// Left by rolling over since the last sync.
    unsynced: Vec<Arc<File>>,
}

#[derive(Default)]
struct SyncWish {
    dirty: bool,
    urgent: bool,
    stop: bool,
}

/// See the module.
pub(crate) struct Journal {
    directory: PathBuf,
    segment_bytes: u64,
    writer: Mutex<Writer>,
    wish: Mutex<SyncWish>,
    wished: Condvar,
    synced: AtomicU64,
    closed: AtomicBool,
    synced_watch: watch::Sender<u64>,
}

impl Journal {
    /// Opens the journal of a directory and gives the entries from position `from` on, each with the position after it.
    pub(crate) fn open(
        directory: &Path,
        from: u64,
        segment_bytes: u64,
    ) -> Result<(Self, Vec<(u64, Entry)>), StoreFailure> {
        let mut recovered = segment::recover(directory, from)?;
        let behind = recovered.end < from;
        let last = recovered.starts.last().copied().filter(|_| !behind);
        let (file, start) = match last {
            Some(start) => (segment::reopen(directory, start), start),
            None => {
                let start = recovered.end.max(from);
                (segment::create(directory, start), start)
            }
        };
        let file = file.map_err(StoreFailure::io("opening the journal"))?;
        file.sync_all()
            .and_then(|()| File::open(directory)?.sync_all())
            .map_err(StoreFailure::io("syncing the journal"))?;
        recovered.starts.retain(|older| *older < start);
        let position = recovered.end.max(from);
        let journal = Self {
            directory: directory.to_owned(),
            segment_bytes,
            writer: Mutex::new(Writer {
                file: Arc::new(file),
                start,
                position,
                torn: false,
                older: recovered.starts,
                unsynced: Vec::new(),
            }),
            wish: Mutex::default(),
            wished: Condvar::new(),
            synced: AtomicU64::new(position),
            closed: AtomicBool::new(false),
            synced_watch: watch::Sender::new(position),
        };
        Ok((journal, recovered.entries))
    }

    /// Writes one frame; when it returns the entry survives the death of the process. On a failure nothing is written.
    ///
    /// `then` is called with the position after the frame, in the order of the frames.
    pub(crate) fn append(&self, mut frame: Frame, then: impl FnOnce(u64)) -> Result<u64, StoreFailure> {
        let mut writer = self.writer.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreFailure::JournalClosed);
        }
        self.mend(&mut writer)
            .and_then(|()| self.roll_if_full(&mut writer))
            .and_then(|()| self.write(&mut writer, &mut frame))
            .map_err(StoreFailure::io("writing the journal"))?;
        let position = writer.position;
        then(position);
        drop(writer);
        self.wish_for_sync(false);
        Ok(position)
    }

    fn mend(&self, writer: &mut Writer) -> io::Result<()> {
        if writer.torn {
            writer
                .file
                .set_len(SEGMENT_HEADER_BYTES + writer.position - writer.start)?;
            writer.torn = false;
        }
        Ok(())
    }

    fn roll_if_full(&self, writer: &mut Writer) -> io::Result<()> {
        if writer.position - writer.start < self.segment_bytes {
            return Ok(());
        }
        let next = segment::create(&self.directory, writer.position)?;
        writer
            .unsynced
            .push(std::mem::replace(&mut writer.file, Arc::new(next)));
        writer.older.push(writer.start);
        writer.start = writer.position;
        Ok(())
    }

    fn write(&self, writer: &mut Writer, frame: &mut Frame) -> io::Result<()> {
        let offset = SEGMENT_HEADER_BYTES + writer.position - writer.start;
        let bytes = frame.place(writer.position, self.synced.load(Ordering::Acquire));
        if let Err(error) = writer.file.write_all_at(bytes, offset) {
            writer.torn = true;
            // If this fails too, the next call tries again before it writes.
            let _ = self.mend(writer);
            return Err(error);
        }
        writer.position += bytes.len() as u64;
        Ok(())
    }

    fn wish_for_sync(&self, urgent: bool) {
        let mut wish = self.wish.lock();
        let news = !wish.dirty || (urgent && !wish.urgent);
        wish.dirty = true;
        wish.urgent |= urgent;
        if news {
            self.wished.notify_one();
        }
    }

    /// Returns once everything before `position` is on disk.
    pub(crate) async fn synced(&self, position: u64) -> Result<(), StoreFailure> {
        let mut synced = self.synced_watch.subscribe();
        if *synced.borrow() < position {
            self.wish_for_sync(true);
        }
        let done = |synced: &u64| *synced >= position || self.closed.load(Ordering::Acquire);
        synced.wait_for(done).await.map_err(|_| StoreFailure::JournalClosed)?;
        if self.synced.load(Ordering::Acquire) < position {
            return Err(StoreFailure::JournalClosed);
        }
        Ok(())
    }

    /// Syncs until told to stop; the body of the sync thread.
    pub(crate) fn run_sync(&self) {
        loop {
            let stop = self.wait_for_wish();
            if let Err(error) = self.sync() {
                // After a failed sync the kernel may have dropped the pages: trying again would claim what is not so.
                self.closed.store(true, Ordering::Release);
                tracing::error!(%error, "syncing the journal failed; it accepts no records until a restart");
                self.synced_watch.send_modify(|_| {});
                return;
            }
            if stop {
                return;
            }
        }
    }

    /// Waits until there is something to sync and its time has come. Whether to stop afterwards.
    fn wait_for_wish(&self) -> bool {
        let mut wish = self.wish.lock();
        while !wish.dirty && !wish.stop {
            self.wished.wait(&mut wish);
        }
        let due = Instant::now() + SYNC_AFTER;
        while !wish.urgent && !wish.stop && !self.wished.wait_until(&mut wish, due).timed_out() {}
        wish.dirty = false;
        wish.urgent = false;
        wish.stop
    }

    fn sync(&self) -> io::Result<()> {
        let (older, file, position) = {
            let mut writer = self.writer.lock();
            let older = std::mem::take(&mut writer.unsynced);
            (older, writer.file.clone(), writer.position)
        };
        for file in &older {
            file.sync_data()?;
        }
        file.sync_data()?;
        if !older.is_empty() {
            File::open(&self.directory)?.sync_all()?;
        }
        self.synced.store(position, Ordering::Release);
        self.synced_watch.send_replace(position);
        Ok(())
    }

    pub(crate) fn stop(&self) {
        self.wish.lock().stop = true;
        self.wished.notify_one();
    }

    /// Removes segments that lie wholly before `position`; never the one in use.
    pub(crate) fn discard_before(&self, position: u64) -> io::Result<()> {
        let gone: Vec<u64> = {
            let mut writer = self.writer.lock();
            // Each ends where the next begins.
            let ends = writer.older.iter().skip(1).chain([&writer.start]);
            let count = writer
                .older
                .iter()
                .zip(ends)
                .take_while(|(_, end)| **end <= position)
                .count();
            writer.older.drain(..count).collect()
        };
        gone.into_iter()
            .try_for_each(|start| segment::remove(&self.directory, start))
    }

    pub(crate) fn position(&self) -> u64 {
        self.writer.lock().position
    }

    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.position().saturating_sub(self.synced.load(Ordering::Acquire))
    }

    pub(crate) fn segments(&self) -> u64 {
        self.writer.lock().older.len() as u64 + 1
    }
}
