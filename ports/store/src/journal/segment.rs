//! Segment files, and reading them back after a start.
//!
//! A segment is named by the position of its first frame (16 hex digits) and begins with an 8-byte magic, the last two
//! digits of which are its version, and that position again. A position is an offset into all frames ever written, so it never repeats.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use piecework_model::Format;

use super::{
    SyncFile,
    entry::{self, Entry},
};
use crate::StoreFailure;

pub(crate) const SEGMENT_HEADER_BYTES: u64 = 16;
const MAGIC: [u8; 8] = *b"PWjrnl01";
/// The part of it before the version.
const KIND: &[u8] = b"PWjrnl";
const SEGMENT: Format = Format::new("segment of the job journal", 1);
const EXTENSION: &str = "segment";
const UNFINISHED: &str = "new";

pub(super) fn path_of(directory: &Path, start: u64) -> PathBuf {
    directory.join(format!("{start:016x}.{EXTENSION}"))
}

/// Makes an empty segment. The directory entry is not synced yet.
pub(super) fn create(directory: &Path, start: u64) -> io::Result<File> {
    let path = path_of(directory, start);
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(true).open(&path)?;
    file.write_all(&header(start)).inspect_err(|_| {
        // A file without a whole header would only be cut at the next start.
        let _ = fs::remove_file(&path);
    })?;
    Ok(file)
}

/// What a process left that died while it made a segment anew.
pub(super) fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Puts a segment of these frames in place of the one that is there; synced, but for the directory.
pub(super) fn replace(directory: &Path, start: u64, frames: &[u8], sync: &SyncFile) -> io::Result<File> {
    let aside = directory.join(format!("{start:016x}.{UNFINISHED}"));
    let written = write_aside(&aside, start, frames).and_then(|file| {
        sync(&file)?;
        fs::rename(&aside, path_of(directory, start))?;
        Ok(file)
    });
    written.inspect_err(|_| {
        // It would only take room; the next attempt writes it anew.
        let _ = fs::remove_file(&aside);
    })
}

fn write_aside(path: &Path, start: u64, frames: &[u8]) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(true).open(path)?;
    file.write_all(&header(start))?;
    file.write_all(frames)?;
    Ok(file)
}

fn header(start: u64) -> [u8; SEGMENT_HEADER_BYTES as usize] {
    let mut header = [0; SEGMENT_HEADER_BYTES as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..].copy_from_slice(&start.to_le_bytes());
    header
}

pub(super) fn remove(directory: &Path, start: u64) -> io::Result<()> {
    match fs::remove_file(path_of(directory, start)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(super) fn reopen(directory: &Path, start: u64) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path_of(directory, start))
}

/// What was found after a start.
pub(super) struct Recovered {
    /// Entries from the asked position on, each with the position after it.
    pub(super) entries: Vec<(u64, Entry)>,
    /// Starts of the segments that are left, ascending.
    pub(super) starts: Vec<u64>,
    /// The position after the last whole frame.
    pub(super) end: u64,
}

struct Stored {
    start: u64,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Stored {
    fn read(path: PathBuf, start: u64) -> Result<Self, StoreFailure> {
        let bytes = fs::read(&path).map_err(StoreFailure::io("reading the journal"))?;
        let stored = Self { start, path, bytes };
        if let Some(version) = stored.version() {
            SEGMENT.check(version)?;
        }
        Ok(stored)
    }

    fn header_is_whole(&self) -> bool {
        self.bytes.get(..8) == Some(&MAGIC[..]) && self.bytes.get(8..16) == Some(&self.start.to_le_bytes()[..])
    }

    /// `None` where the header is not that of a segment.
    fn version(&self) -> Option<u32> {
        let digits = self.bytes.get(..8)?.strip_prefix(KIND)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The bytes of frames from `position` on.
    fn frames_from(&self, position: u64) -> &[u8] {
        let offset = SEGMENT_HEADER_BYTES + position.saturating_sub(self.start);
        self.bytes.get(offset as usize..).unwrap_or_default()
    }
}

/// Copies what comes after `position` while it is written: a copy ends like a journal whose process was killed. `false` where a
/// part of it has been filed and removed meanwhile.
pub(crate) fn copy(directory: &Path, to: &Path, position: u64) -> Result<bool, StoreFailure> {
    // Listed once: each but the last of them is whole then, whatever is written meanwhile.
    let starts = list(directory)?;
    let Some(first) = starts.iter().rposition(|start| *start <= position) else {
        return Ok(starts.is_empty());
    };
    for start in &starts[first..] {
        let target = path_of(to, *start);
        match fs::copy(path_of(directory, *start), &target) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(StoreFailure::io("copying the journal")(error)),
        }
        let synced = File::open(&target).and_then(|file| file.sync_all());
        synced.map_err(StoreFailure::io("syncing the copy of the journal"))?;
    }
    Ok(true)
}

/// Reads everything from position `from` on, cuts off what a crash left half-written, and drops what lies before.
///
/// What cannot be read is a torn tail only if no later frame was written in the knowledge that it was on disk already;
/// otherwise it is `Corrupt`.
pub(super) fn recover(directory: &Path, from: u64) -> Result<Recovered, StoreFailure> {
    let starts = drop_before(directory, list(directory)?, from)?;
    let mut recovered = Recovered {
        entries: Vec::new(),
        starts: Vec::new(),
        end: starts.first().copied().unwrap_or(from).min(from),
    };
    for (index, start) in starts.iter().enumerate() {
        let stored = Stored::read(path_of(directory, *start), *start)?;
        let is_next = *start <= from || *start == recovered.end;
        if is_next && stored.header_is_whole() && read_frames(&stored, from, &mut recovered)? {
            recovered.starts.push(*start);
            continue;
        }
        let cut = recovered.end;
        refuse_damage(directory, &stored, &starts[index + 1..], cut)?;
        cut_off(directory, &stored, &starts[index + 1..], &mut recovered)?;
        break;
    }
    Ok(recovered)
}

/// Whether the segment was whole to its end.
fn read_frames(stored: &Stored, from: u64, recovered: &mut Recovered) -> Result<bool, StoreFailure> {
    let mut position = from.max(stored.start);
    let mut rest = stored.frames_from(position);
    if rest.is_empty() {
        // The tables may be ahead of what a power cut left of the journal.
        recovered.end = stored.start + (stored.bytes.len() as u64).saturating_sub(SEGMENT_HEADER_BYTES);
        return Ok(true);
    }
    recovered.end = position;
    while !rest.is_empty() {
        let Some(found) = entry::find(rest, position) else {
            return Ok(false);
        };
        let entry = found.entry()?.ok_or_else(|| corrupt(stored, position))?;
        position += found.frame_bytes() as u64;
        rest = &rest[found.frame_bytes()..];
        recovered.entries.push((position, entry));
        recovered.end = position;
    }
    Ok(true)
}

fn corrupt(stored: &Stored, position: u64) -> StoreFailure {
    let name = stored.path.file_name().unwrap_or_default().to_string_lossy();
    StoreFailure::Corrupt {
        what: format!("the journal segment {name}"),
        position: SEGMENT_HEADER_BYTES + position.saturating_sub(stored.start),
    }
}

/// Fails if a frame behind `cut` proves that what is unreadable there was on disk once.
fn refuse_damage(directory: &Path, stored: &Stored, later: &[u64], cut: u64) -> Result<(), StoreFailure> {
    let here = cut.max(stored.start);
    let mut proven = entry::synced_beyond(stored.frames_from(here), here);
    for start in later {
        let next = Stored::read(path_of(directory, *start), *start)?;
        proven = proven.max(entry::synced_beyond(next.frames_from(*start), *start));
    }
    if proven > cut {
        return Err(corrupt(stored, cut));
    }
    Ok(())
}

fn cut_off(directory: &Path, stored: &Stored, later: &[u64], recovered: &mut Recovered) -> Result<(), StoreFailure> {
    for start in later {
        remove(directory, *start).map_err(StoreFailure::io("removing a torn journal segment"))?;
    }
    if recovered.end < stored.start || !stored.header_is_whole() || recovered.end == stored.start {
        return remove(directory, stored.start).map_err(StoreFailure::io("removing a torn journal segment"));
    }
    let length = SEGMENT_HEADER_BYTES + (recovered.end - stored.start);
    let file = reopen(directory, stored.start).map_err(StoreFailure::io("opening the journal"))?;
    file.set_len(length)
        .and_then(|()| file.sync_all())
        .map_err(StoreFailure::io("cutting the journal's torn tail"))?;
    tracing::info!(
        bytes = stored.bytes.len() as u64 - length,
        "removed an incomplete record from the end of the journal"
    );
    recovered.starts.push(stored.start);
    Ok(())
}

/// Starts of all segments, ascending; other files are not ours to judge.
fn list(directory: &Path) -> Result<Vec<u64>, StoreFailure> {
    let mut starts = Vec::new();
    for entry in fs::read_dir(directory).map_err(StoreFailure::io("listing the journal"))? {
        let path = entry.map_err(StoreFailure::io("listing the journal"))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if path.extension().is_some_and(|extension| extension == EXTENSION)
            && let Some(start) = stem.and_then(|digits| u64::from_str_radix(digits, 16).ok())
        {
            starts.push(start);
        }
    }
    starts.sort_unstable();
    Ok(starts)
}

/// Removes segments that end before `from`; gives the rest. A gap at `from` itself is damage.
fn drop_before(directory: &Path, mut starts: Vec<u64>, from: u64) -> Result<Vec<u64>, StoreFailure> {
    while starts.len() > 1 && starts[1] <= from {
        remove(directory, starts.remove(0)).map_err(StoreFailure::io("removing a filed journal segment"))?;
    }
    if let Some(first) = starts.first()
        && *first > from
    {
        return Err(StoreFailure::Corrupt {
            what: format!("the journal (the segment before {first:016x} is missing)"),
            position: from,
        });
    }
    Ok(starts)
}
