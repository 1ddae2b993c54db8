use std::fs;

use piecework_model::{AccountId, LeaseId};
use proptest::prelude::*;

use super::*;

const LARGE: u64 = 1 << 20;

fn entry(number: u64) -> Entry {
    Entry::Reserved {
        lease: LeaseId([1; 20]),
        provider: AccountId([2; 20]),
        up_to: number,
    }
}

fn open(directory: &Path, segment_bytes: u64) -> (Journal, Vec<u64>) {
    let (journal, entries) = Journal::open(directory, 0, segment_bytes).expect("opened");
    (journal, numbers(&entries))
}

fn numbers(entries: &[(u64, Entry)]) -> Vec<u64> {
    let number = |(_, entry): &(u64, Entry)| match entry {
        Entry::Reserved { up_to, .. } => *up_to,
        other => panic!("never written: {other:?}"),
    };
    entries.iter().map(number).collect()
}

fn write(journal: &Journal, range: std::ops::Range<u64>) {
    for number in range {
        journal
            .append(Frame::encode(&entry(number)).expect("small"), |_| {})
            .expect("written");
    }
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .expect("read")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

fn frame_bytes() -> usize {
    let mut frame = Frame::encode(&entry(0)).expect("small");
    frame.place(0, 0).len()
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[offset] ^= 0x10;
    fs::write(path, bytes).expect("written");
}

#[test]
fn what_was_written_is_read_back_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, before) = open(directory.path(), LARGE);
    assert!(before.is_empty());
    write(&journal, 0..100);
    drop(journal);
    let (journal, found) = open(directory.path(), LARGE);
    assert_eq!(found, Vec::from_iter(0..100));
    write(&journal, 100..110);
    drop(journal);
    assert_eq!(open(directory.path(), LARGE).1, Vec::from_iter(0..110));
}

#[test]
fn a_full_segment_is_followed_by_the_next_and_filed_ones_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(directory.path(), 400);
    write(&journal, 0..50);
    let count = segments(directory.path()).len();
    assert!(count > 5, "{count} segments");
    assert_eq!(journal.segments(), count as u64);
    journal.discard_before(20 * frame_bytes() as u64).expect("discarded");
    let left = segments(directory.path()).len();
    assert!(left < count && left > 1, "{left} segments left");
    drop(journal);
    let from = 20 * frame_bytes() as u64;
    let (journal, entries) = Journal::open(directory.path(), from, 400).expect("opened");
    assert_eq!(numbers(&entries), Vec::from_iter(20..50));
    journal.discard_before(journal.position()).expect("discarded");
    assert_eq!(segments(directory.path()).len(), 1, "the one in use stays");
}

#[test]
fn damage_before_what_was_synced_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(directory.path(), LARGE);
    write(&journal, 0..10);
    journal.sync().expect("synced");
    write(&journal, 10..12);
    drop(journal);
    let segment = &segments(directory.path())[0];
    let offset = SEGMENT_HEADER_BYTES as usize + 4 * frame_bytes();
    flip(segment, offset + 30);
    let refused = Journal::open(directory.path(), 0, LARGE).err().expect("damaged");
    assert_eq!(refused.code(), "store.corrupt");
    assert!(
        matches!(&refused, StoreFailure::Corrupt { position, .. } if *position == offset as u64),
        "{refused}"
    );
    assert!(refused.to_string().contains("0000000000000000.segment"), "{refused}");
}

#[test]
fn damage_in_what_is_filed_already_does_no_harm() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(directory.path(), LARGE);
    write(&journal, 0..10);
    journal.sync().expect("synced");
    write(&journal, 10..12);
    drop(journal);
    flip(&segments(directory.path())[0], SEGMENT_HEADER_BYTES as usize + 30);
    let filed = 5 * frame_bytes() as u64;
    let (_, entries) = Journal::open(directory.path(), filed, LARGE).expect("opened");
    assert_eq!(numbers(&entries), Vec::from_iter(5..12));
}

#[test]
fn damage_in_what_was_never_synced_is_a_torn_tail() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(directory.path(), 400);
    write(&journal, 0..10);
    journal.sync().expect("synced");
    // A power cut may lose a page in the middle and keep later ones, here in later segments too.
    write(&journal, 10..40);
    drop(journal);
    let start = segments(directory.path()).len();
    let lost = 12 * frame_bytes() as u64;
    let of_lost = segments(directory.path())
        .into_iter()
        .rfind(|path| start_of(path) <= lost)
        .expect("a segment");
    flip(
        &of_lost,
        (SEGMENT_HEADER_BYTES + lost - start_of(&of_lost)) as usize + 8,
    );
    let (journal, found) = open(directory.path(), 400);
    assert_eq!(found, Vec::from_iter(0..12));
    assert!(segments(directory.path()).len() < start);
    write(&journal, 12..30);
    drop(journal);
    assert_eq!(open(directory.path(), 400).1, Vec::from_iter(0..30));
}

fn start_of(path: &Path) -> u64 {
    let stem = path.file_stem().expect("a name").to_str().expect("digits");
    u64::from_str_radix(stem, 16).expect("digits")
}

#[test]
fn a_missing_segment_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(directory.path(), 400);
    write(&journal, 0..20);
    journal.sync().expect("synced");
    write(&journal, 20..40);
    drop(journal);
    let paths = segments(directory.path());
    for missing in [0, 1] {
        let kept = fs::read(&paths[missing]).expect("read");
        fs::remove_file(&paths[missing]).expect("removed");
        let refused = Journal::open(directory.path(), 0, 400).err().expect("a gap");
        assert_eq!(refused.code(), "store.corrupt", "{refused}");
        fs::write(&paths[missing], kept).expect("put back");
    }
    assert_eq!(open(directory.path(), 400).1, Vec::from_iter(0..40));
}

#[test]
fn tables_ahead_of_the_journal_are_never_overtaken() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(directory.path(), LARGE);
    write(&journal, 0..3);
    drop(journal);
    // A power cut took frames 3 and 4, which the tables have.
    let filed = 5 * frame_bytes() as u64;
    let (journal, entries) = Journal::open(directory.path(), filed, LARGE).expect("opened");
    assert!(entries.is_empty());
    assert_eq!(journal.position(), filed);
    write(&journal, 5..7);
    drop(journal);
    let (_, entries) = Journal::open(directory.path(), filed, LARGE).expect("opened");
    assert_eq!(numbers(&entries), [5, 6]);
}

#[test]
fn an_entry_over_the_limit_is_refused() {
    let mut job = crate::Job::queued(
        piecework_model::JobId([0; 16]),
        (piecework_model::FunctionId([0; 12]), 1),
        "f".parse().expect("a name"),
        AccountId([0; 20]),
        0,
    );
    job.logs = "x".repeat(33 << 20);
    let refused = Frame::encode(&Entry::Finished(Arc::new(job))).err().expect("too large");
    assert_eq!(refused.code(), "store.too_large");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_journal_cut_anywhere_gives_the_whole_frames_before_the_cut(cut in 0usize..1_500) {
        let directory = tempfile::tempdir().expect("a directory");
        let (journal, _) = open(directory.path(), LARGE);
        write(&journal, 0..20);
        drop(journal);
        let path = &segments(directory.path())[0];
        let bytes = fs::read(path).expect("read");
        let cut = cut.min(bytes.len());
        fs::write(path, &bytes[..cut]).expect("written");
        let whole = cut.saturating_sub(SEGMENT_HEADER_BYTES as usize) / frame_bytes();
        let (journal, found) = open(directory.path(), LARGE);
        prop_assert_eq!(&found, &Vec::from_iter(0..whole as u64));
        write(&journal, 100..102);
        drop(journal);
        let expected: Vec<u64> = (0..whole as u64).chain(100..102).collect();
        prop_assert_eq!(open(directory.path(), LARGE).1, expected);
    }
}

/// What a newer build would write into the header of the frame at `offset` of a segment that begins at 0.
fn of_version(path: &Path, offset: usize, digit: u8) {
    let mut bytes = fs::read(path).expect("read");
    let header = &mut bytes[SEGMENT_HEADER_BYTES as usize + offset..][..entry::HEADER_BYTES];
    header[3] = digit;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(offset as u64).to_le_bytes());
    hasher.update(&header[..20]);
    header[20..].copy_from_slice(&hasher.finalize().to_le_bytes());
    fs::write(path, bytes).expect("written");
}

#[test]
fn an_entry_or_a_segment_of_an_unknown_version_is_no_torn_end() {
    type Write = fn(&Path);
    let cases: [(Write, &str); 2] = [
        (|path| of_version(path, 2 * frame_bytes(), b'7'), "version 7"),
        (
            |path| {
                let mut bytes = fs::read(path).expect("read");
                bytes[..8].copy_from_slice(b"PWjrnl12");
                fs::write(path, bytes).expect("written");
            },
            "version 12",
        ),
    ];
    for (change, version) in cases {
        let directory = tempfile::tempdir().expect("a directory");
        let (journal, _) = open(directory.path(), LARGE);
        write(&journal, 0..3);
        drop(journal);
        let path = segments(directory.path()).remove(0);
        change(&path);
        let before = fs::read(&path).expect("read");
        let refused = Journal::open(directory.path(), 0, LARGE).map(drop).expect_err("newer");
        assert_eq!(refused.code(), "store.newer");
        assert!(refused.to_string().contains(version), "{refused}");
        assert_eq!(fs::read(&path).expect("read"), before, "nothing was cut off");
    }
}

/// `ENOSPC` and `EIO` of Linux.
const NO_ROOM: i32 = 28;
const DISK_FAILS: i32 = 5;

/// Syncs fail while the flag is set, as on a file system that reports a full disk only then.
fn with_failing_syncs(journal: Journal) -> (Arc<Journal>, Arc<AtomicBool>) {
    with_syncs_that_say(journal, NO_ROOM)
}

fn with_syncs_that_say(mut journal: Journal, error: i32) -> (Arc<Journal>, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(false));
    let flag = fails.clone();
    journal.sync_file = Box::new(move |file| match flag.load(Ordering::SeqCst) {
        true => Err(io::Error::from_raw_os_error(error)),
        false => file.sync_data(),
    });
    (Arc::new(journal), fails)
}

/// What a disk may be left with after a failed sync: everything after this position is something else.
fn lose_after(directory: &Path, synced: u64) {
    // In place: it is being read from.
    for path in segments(directory)
        .iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "segment"))
    {
        let file = fs::OpenOptions::new().write(true).open(path).expect("opened");
        let lost = SEGMENT_HEADER_BYTES + synced.saturating_sub(start_of(path));
        let length = file.metadata().expect("asked").len();
        file.write_all_at(&vec![0; length.saturating_sub(lost) as usize], lost)
            .expect("written");
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_taken_until_all_is_on_disk_and_nothing_is_lost() {
    nothing_is_lost(NO_ROOM).await;
}

/// The kernel says once that it could not write, and takes the pages for clean from then on.
#[tokio::test]
async fn after_an_error_of_the_disk_nothing_is_taken_until_all_is_written_anew() {
    nothing_is_lost(DISK_FAILS).await;
}

async fn nothing_is_lost(error: i32) {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, fails) = with_syncs_that_say(open(directory.path(), 400).0, error);
    let syncing = journal.clone();
    let thread = std::thread::spawn(move || syncing.run_sync());
    write(&journal, 0..10);
    journal.synced(journal.position()).await.expect("synced");
    let synced = journal.position();
    for round in 0..3 {
        let from = 10 + round * 20;
        fails.store(true, Ordering::SeqCst);
        // It is not synced yet: taken in good faith, over several segments.
        let mut taken = from;
        while taken < from + 20 {
            let frame = Frame::encode(&entry(taken)).expect("small");
            match journal.append(frame, |_| {}) {
                Ok(_) => taken += 1,
                Err(StoreFailure::JournalStalled) => break,
                Err(other) => panic!("{other}"),
            }
        }
        let stalled = journal.synced(journal.position()).await.expect_err("no sync succeeds");
        assert_eq!(stalled.code(), "store.journal_stalled");
        let refused = journal.append(Frame::encode(&entry(0)).expect("small"), |_| {});
        assert_eq!(refused.expect_err("refused").code(), "store.journal_stalled");
        if round == 0 {
            lose_after(directory.path(), synced);
        }
        fails.store(false, Ordering::SeqCst);
        while journal.stalled.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        write(&journal, taken..from + 20);
        journal.synced(journal.position()).await.expect("synced");
        assert_eq!(journal.unsynced_bytes(), 0);
    }
    journal.stop();
    thread.join().expect("ended");
    drop(journal);
    assert_eq!(open(directory.path(), 400).1, Vec::from_iter(0..70));
    assert!(
        segments(directory.path())
            .iter()
            .all(|path| path.extension().is_some_and(|kind| kind == "segment"))
    );
}

#[test]
fn frames_are_kept_in_memory_only_until_they_are_synced() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(directory.path(), LARGE);
    write(&journal, 0..10);
    assert_eq!(journal.writer.lock().tail.len(), 10);
    journal.sync().expect("synced");
    let writer = journal.writer.lock();
    assert_eq!((writer.tail.len(), writer.tail_bytes), (0, 0));
}

#[test]
fn damage_in_what_was_synced_before_closes_the_journal_for_good() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, fails) = with_failing_syncs(open(directory.path(), LARGE).0);
    write(&journal, 0..10);
    journal.sync().expect("synced");
    write(&journal, 10..12);
    flip(&segments(directory.path())[0], SEGMENT_HEADER_BYTES as usize + 30);
    fails.store(true, Ordering::SeqCst);
    journal.sync().expect_err("full");
    fails.store(false, Ordering::SeqCst);
    assert!(!journal.heal_in_time());
    let refused = journal.append(Frame::encode(&entry(0)).expect("small"), |_| {});
    assert_eq!(refused.expect_err("refused").code(), "store.journal_closed");
}

#[test]
fn a_process_that_dies_while_it_heals_finds_every_frame() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, fails) = with_failing_syncs(open(directory.path(), 400).0);
    write(&journal, 0..10);
    journal.sync().expect("synced");
    write(&journal, 10..40);
    fails.store(true, Ordering::SeqCst);
    journal.sync().expect_err("full");
    journal.heal().expect_err("still full");
    // The first segments are made anew, then it dies.
    let synced = journal.synced.load(Ordering::SeqCst);
    let writer = journal.writer.lock();
    let starts: Vec<u64> = writer.older.iter().copied().chain([writer.start]).collect();
    fails.store(false, Ordering::SeqCst);
    for (nth, start) in starts.iter().enumerate() {
        let end = starts.get(nth + 1).copied().unwrap_or(writer.position);
        if end > synced {
            journal.rewrite(&writer, (*start, end), synced).expect("written");
            let copy = tempfile::tempdir().expect("a directory");
            for path in segments(directory.path()) {
                fs::copy(&path, copy.path().join(path.file_name().expect("a name"))).expect("copied");
            }
            assert_eq!(open(copy.path(), 400).1, Vec::from_iter(0..40));
        }
    }
}
