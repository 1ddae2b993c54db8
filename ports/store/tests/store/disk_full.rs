//! A full disk is said at once, leaves nothing half-written, and is forgotten when space returns.

use std::{fs, io::Write as _, path::Path, process::Command, time::Duration};

use piecework_store::{Accepted, AcceptedJob, Jobs, Options, Sqlite, StoreFailure, Users};

use crate::conformance::samples::{accepted, account, finished, function_id, user};

/// A small file system in memory, gone with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        mount(&format!("size={size}"), directory.path()).then_some(Self(directory))
    }

    fn grow(&self, size: &str) {
        assert!(
            mount(&format!("remount,size={size}"), self.path()),
            "the disk could not grow"
        );
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn mount(options: &str, path: &Path) -> bool {
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(path)
        .status();
    status.is_ok_and(|status| status.success())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "the small disk could not be unmounted"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount("6m") else {
        assert!(std::env::var("CI").is_err(), "in CI the test has the right to mount");
        eprintln!("SKIPPED: mounting a small disk needs root");
        return;
    };
    let options = Options::new(disk.path().join("store"));
    let store = Sqlite::open(options.clone()).await.expect("opened");
    let written = fill(&store);
    for _ in 0..3 {
        let refused = store.accept(order()).await.expect_err("full");
        assert!(matches!(refused, StoreFailure::DiskFull), "{refused:?}");
    }
    for number in 1..=written {
        let job = large(number);
        assert_eq!(store.job(job.id).await.expect("read"), Some(job), "read while full");
    }
    disk.grow("64m");
    store.finish(large(written + 1)).expect("space again");
    assert_eq!(store.accept(order()).await.expect("space again"), Accepted::New);
    store.insert_user(&user(1)).await.expect("space again");
    while store.flush().await.is_err() {}
    drop(store);
    let store = Sqlite::open(options).await.expect("nothing is torn");
    for number in 1..=written + 1 {
        let job = large(number);
        assert_eq!(store.job(job.id).await.expect("read"), Some(job), "kept");
    }
    assert_eq!(
        store.job(large(written + 2).id).await.expect("read"),
        None,
        "what was refused is not there"
    );
    assert_eq!(store.unfinished().await.expect("read").len(), 1);
}

/// The tables' own log meets the end of the disk at a commit, which SQLite then undoes by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_others_have_filled_and_emptied_again_stops_no_later_writer() {
    let Some(disk) = SmallDisk::mount("16m") else {
        assert!(std::env::var("CI").is_err(), "in CI the test has the right to mount");
        eprintln!("SKIPPED: mounting a small disk needs root");
        return;
    };
    let store = Sqlite::open(Options::new(disk.path().join("store")))
        .await
        .expect("opened");
    store.finish(finished(0, function_id(1), account(1))).expect("room");
    store.flush().await.expect("filed");
    let ballast = disk.path().join("ballast");
    let mut file = fs::File::create(&ballast).expect("made");
    while file.write_all(&[7; 4_096]).is_ok() {}
    // A commit takes whole pages, a job in the journal a few hundred bytes: the tables are full first.
    let mut number = 0;
    let full = async {
        while store.flush().await.is_ok() {
            number += 1;
            let job = finished(number, function_id(1), account(1));
            store.finish(job).expect("room in the journal's last page");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), full)
        .await
        .expect("it is full");
    drop(file);
    fs::remove_file(&ballast).expect("room again");
    let healed = async { while store.flush().await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), healed)
        .await
        .expect("the tables go on");
    store.insert_user(&user(number + 1)).await.expect("room again");
}

fn order() -> AcceptedJob {
    let mut order = accepted(1_000_001, function_id(1), account(1));
    order.input = vec![7; 64 << 10].into();
    order
}

fn large(number: u64) -> piecework_store::Job {
    let mut job = finished(number, function_id(1), account(1));
    job.logs = "0123456789abcdef".repeat(1_000 + number as usize % 7);
    job
}

/// Writes until the disk is full for good: the journal may find room again while the tables' files are cut back.
fn fill(store: &Sqlite) -> u64 {
    let (mut written, mut refusals) = (0, 0);
    while refusals < 50 {
        match store.finish(large(written + 1)) {
            Ok(()) => written += 1,
            Err(StoreFailure::DiskFull) => refusals += 1,
            Err(other) => panic!("{other:?}"),
        }
        assert!(written < 10_000, "the disk never filled");
    }
    written
}
