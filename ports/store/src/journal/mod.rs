//! An append-only journal: what is written into it survives the death of the process at once, and a power cut soon after.
//!
//! One write(2) an entry, in the caller's thread. A thread of its own syncs: at once where somebody waits, which groups
//! all who wait at that moment, else within [`SYNC_AFTER`]. After a sync that failed nothing is taken until all that was not
//! synced is on disk after all: see `heal`.

mod entry;
#[cfg(test)]
mod fuzz;
mod heal;
mod segment;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
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

/// Frames that wait for a sync are in memory, in case it fails. Whoever writes more than this syncs first.
const TAIL_BYTES_MAX: usize = 64 << 20;

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
    /// The frames since the last sync by position.
    tail: VecDeque<(u64, Vec<u8>)>,
    tail_bytes: usize,
}

impl Writer {
    fn forget_tail_until(&mut self, position: u64) {
        while let Some((_, bytes)) = self.tail.pop_front_if(|(start, _)| *start < position) {
            self.tail_bytes -= bytes.len();
        }
    }
}

#[derive(Default)]
struct SyncWish {
    dirty: bool,
    urgent: bool,
    stop: bool,
}

/// How a file is synced.
type SyncFile = Box<dyn Fn(&File) -> io::Result<()> + Send + Sync>;

/// See the module.
pub(crate) struct Journal {
    directory: PathBuf,
    segment_bytes: u64,
    writer: Mutex<Writer>,
    wish: Mutex<SyncWish>,
    wished: Condvar,
    synced: AtomicU64,
    /// A sync failed, and what it should have kept is not on disk yet.
    stalled: AtomicBool,
    closed: AtomicBool,
    /// One sync at a time: each answers for what it took from the writer.
    syncing: Mutex<()>,
    sync_file: SyncFile,
    synced_watch: watch::Sender<u64>,
}

impl Journal {
    /// Opens the journal of a directory and gives the entries from position `from` on, each with the position after it.
    pub(crate) fn open(
        directory: &Path,
        from: u64,
        segment_bytes: u64,
    ) -> Result<(Self, Vec<(u64, Entry)>), StoreFailure> {
        segment::remove_unfinished(directory).map_err(StoreFailure::io("removing an unfinished journal segment"))?;
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
                tail: VecDeque::new(),
                tail_bytes: 0,
            }),
            wish: Mutex::default(),
            wished: Condvar::new(),
            synced: AtomicU64::new(position),
            stalled: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            syncing: Mutex::default(),
            sync_file: Box::new(File::sync_data),
            synced_watch: watch::Sender::new(position),
        };
        Ok((journal, recovered.entries))
    }

    /// Writes one frame; when it returns the entry survives the death of the process. On a failure nothing is written.
    ///
    /// `then` is called with the position after the frame, in the order of the frames.
    pub(crate) fn append(&self, mut frame: Frame, then: impl FnOnce(u64)) -> Result<u64, StoreFailure> {
        self.make_room()?;
        let mut writer = self.writer.lock();
        self.check()?;
        self.mend(&mut writer)
            .and_then(|()| self.roll_if_full(&mut writer))
            .and_then(|()| self.write(&mut writer, &mut frame))
            .map_err(StoreFailure::io("writing the journal"))?;
        let position = writer.position;
        let bytes = frame.into_bytes();
        writer.tail_bytes += bytes.len();
        let start = position - bytes.len() as u64;
        writer.tail.push_back((start, bytes));
        then(position);
        drop(writer);
        self.wish_for_sync(false);
        Ok(position)
    }

    fn check(&self) -> Result<(), StoreFailure> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreFailure::JournalClosed);
        }
        match self.stalled.load(Ordering::Acquire) {
            true => Err(StoreFailure::JournalStalled),
            false => Ok(()),
        }
    }

    /// Holds a writer up while the disk syncs too slowly for what is written.
    fn make_room(&self) -> Result<(), StoreFailure> {
        while self.writer.lock().tail_bytes > TAIL_BYTES_MAX {
            self.check()?;
            if self.sync().is_err() {
                // The sync thread sees to it.
                self.wish_for_sync(true);
            }
        }
        Ok(())
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

    /// Returns once everything before `position` is on disk; fails with `JournalStalled` while a sync has failed: then it may get
    /// there later.
    pub(crate) async fn synced(&self, position: u64) -> Result<(), StoreFailure> {
        let mut synced = self.synced_watch.subscribe();
        if *synced.borrow() < position {
            self.wish_for_sync(true);
        }
        let done = |synced: &u64| *synced >= position || self.check().is_err();
        synced.wait_for(done).await.map_err(|_| StoreFailure::JournalClosed)?;
        if self.synced.load(Ordering::Acquire) < position {
            return self.check().and(Err(StoreFailure::JournalStalled));
        }
        Ok(())
    }

    /// Syncs until told to stop; the body of the sync thread.
    pub(crate) fn run_sync(&self) {
        loop {
            let stop = self.wait_for_wish();
            if let Err(error) = self.sync() {
                tracing::error!(%error, "syncing the journal failed; no records are accepted until the disk takes them");
                if !self.heal_in_time() {
                    return;
                }
            }
            if stop {
                return;
            }
        }
    }

    /// Tries until the disk has all that was written. Whether it has: the process may end before, or what was there is damaged.
    fn heal_in_time(&self) -> bool {
        loop {
            match self.heal() {
                Ok(()) => {
                    tracing::info!("the journal is on disk again and accepts records");
                    return true;
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.closed.store(true, Ordering::Release);
                    tracing::error!(%error, "the journal is damaged; it accepts no records until a restart");
                    self.synced_watch.send_modify(|_| {});
                    return false;
                }
                Err(error) => tracing::debug!(%error, "the journal is not on disk yet"),
            }
            let mut wish = self.wish.lock();
            if wish.stop {
                return false;
            }
            let _ = self.wished.wait_for(&mut wish, heal::AGAIN_AFTER);
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

    /// On a failure nothing more is taken until [`Journal::heal`] has succeeded.
    fn sync(&self) -> io::Result<()> {
        let _one = self.syncing.lock();
        if self.stalled.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier sync failed"));
        }
        let (older, file, position) = {
            let mut writer = self.writer.lock();
            let older = std::mem::take(&mut writer.unsynced);
            (older, writer.file.clone(), writer.position)
        };
        let synced = self.sync_files(&older, &file);
        if synced.is_err() {
            self.stalled.store(true, Ordering::Release);
            self.synced_watch.send_modify(|_| {});
            return synced;
        }
        self.synced.store(position, Ordering::Release);
        self.writer.lock().forget_tail_until(position);
        self.synced_watch.send_replace(position);
        Ok(())
    }

    fn sync_files(&self, older: &[Arc<File>], file: &File) -> io::Result<()> {
        older.iter().try_for_each(|file| (self.sync_file)(file))?;
        (self.sync_file)(file)?;
        match older.is_empty() {
            true => Ok(()),
            false => File::open(&self.directory)?.sync_all(),
        }
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
