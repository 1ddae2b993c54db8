//! After a sync that failed: what was written since the last good one may be lost, although it can still be read, and a second
//! sync would not say so (fsync(2), Linux: the pages count as clean). So it is not trusted. The frames since then are in memory
//! until a sync has succeeded; they are written anew, into new files, with what was synced before and still has its checksums.
//!
//! ```text
//! 0000.segment [ synced | lost? ]   0010.segment [ lost? ]
//!                |  copied and checked   | from memory     each: written aside, synced, renamed over the old one
//! ```
//! Each rename leaves a journal that says the same as before: the process may die anywhere in between.

use std::{
    fs::{self, File},
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Journal, SEGMENT_HEADER_BYTES, Writer, entry, segment};

/// Between attempts while the disk takes nothing.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(250);

impl Journal {
    /// Writes and syncs all that is not known to be on disk; nothing is appended meanwhile. On an error of kind `InvalidData`
    /// what was synced before is damaged: nothing can be promised any more.
    pub(super) fn heal(&self) -> io::Result<()> {
        let mut writer = self.writer.lock();
        let synced = self.synced.load(Ordering::Acquire);
        let starts: Vec<u64> = writer.older.iter().copied().chain([writer.start]).collect();
        let ends = starts.iter().copied().skip(1).chain([writer.position]);
        let mut last = None;
        for (start, end) in starts.iter().copied().zip(ends) {
            // The one in use is made anew in any case: nobody knows what became of its length.
            if end > synced || start == writer.start {
                last = Some(self.rewrite(&writer, (start, end), synced)?);
            }
        }
        File::open(&self.directory)?.sync_all()?;
        writer.file = Arc::new(last.expect("the segment in use is among them"));
        writer.torn = false;
        writer.unsynced.clear();
        let position = writer.position;
        writer.forget_tail_until(position);
        self.synced.store(writer.position, Ordering::Release);
        self.stalled.store(false, Ordering::Release);
        self.synced_watch.send_replace(writer.position);
        Ok(())
    }

    /// The segment from `start` to `end`, in a new file under the old name.
    pub(super) fn rewrite(&self, writer: &Writer, (start, end): (u64, u64), synced: u64) -> io::Result<File> {
        let mut frames = match start < synced {
            true => self.checked(start, synced.min(end))?,
            false => Vec::new(),
        };
        let lost = writer.tail.iter();
        let lost = lost.filter(|(at, _)| (synced.max(start)..end).contains(at));
        lost.for_each(|(_, bytes)| frames.extend_from_slice(bytes));
        assert_eq!(
            frames.len() as u64,
            end - start,
            "every frame since the last sync is in memory"
        );
        segment::replace(&self.directory, start, &frames, &self.sync_file)
    }

    /// What was synced of a segment, if all its frames are as they were written.
    fn checked(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let mut bytes = fs::read(segment::path_of(&self.directory, start))?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "what was synced before is damaged");
        let length = usize::try_from(SEGMENT_HEADER_BYTES + end - start).map_err(|_| damaged())?;
        if bytes.len() < length {
            return Err(damaged());
        }
        bytes.truncate(length);
        let frames = bytes.split_off(SEGMENT_HEADER_BYTES as usize);
        let (mut position, mut rest) = (start, &frames[..]);
        while !rest.is_empty() {
            let found = entry::find(rest, position).ok_or_else(damaged)?.frame_bytes();
            position += found as u64;
            rest = &rest[found..];
        }
        Ok(frames)
    }
}
