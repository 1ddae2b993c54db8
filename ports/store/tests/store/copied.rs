//! A store is copied while it is used, and the copy takes its place.

use std::os::unix::fs::PermissionsExt as _;

use piecework_model::LeaseId;
use piecework_store::{
    Functions as _, Jobs as _, Options, Sealing as _, Sequences as _, Sqlite, StoreFailure, Users as _, Values as _,
    copy_store, take_over,
};

use crate::conformance::samples::{account, finished, function_id, user};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_use_is_copied_whole_and_the_copy_goes_on_beyond_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("store"), folder.path().join("copy"));
    let store = Sqlite::open(Options::new(&from)).await.expect("opened");
    store.insert_user(&user(1)).await.expect("inserted");
    store.put_value("space", "key", b"value").await.expect("put");
    let job = finished(1, function_id(1), account(1));
    store.finish(job.clone()).expect("kept");
    let lane = (LeaseId([1; 20]), account(2));
    store.reserve_sequences(lane.0, lane.1, 10_000).await.expect("reserved");
    store.flush().await.expect("filed");
    let sealed = store.seal("context", b"secret").expect("sealed");

    copy_store(&from, &to).await.expect("copied");
    for entry in std::fs::read_dir(&to).expect("a folder") {
        let entry = entry.expect("readable");
        let mode = entry.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.file_name());
    }
    // The first one is not disturbed.
    store.put_value("space", "later", b"value").await.expect("put");
    drop(store);

    take_over(&to).await.expect("moved on");
    let copy = Sqlite::open(Options::new(&to)).await.expect("opened");
    let found = copy.user_by_name(&user(1).name).await.expect("read");
    assert_eq!(found, Some(user(1)));
    assert_eq!(copy.value("space", "key").await.expect("read"), Some(b"value".to_vec()));
    assert_eq!(copy.value("space", "later").await.expect("read"), None);
    assert_eq!(copy.job(job.id).await.expect("read").map(|job| job.id), Some(job.id));
    assert_eq!(copy.open_sealed("context", &sealed).expect("the same key"), b"secret");
    assert!(copy.sequence_high_water(lane.0, lane.1) > 1_000_000);
    // And it is a store like any other.
    let next = finished(2, function_id(1), account(1));
    copy.finish(next.clone()).expect("kept");
    copy.flush().await.expect("filed");
    assert!(copy.job(next.id).await.expect("read").is_some());
    assert!(copy.versions(job.function).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_what_was_kept_before_also_what_only_the_journal_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = folder.path().join("store");
    let options = Options {
        // Segments come and go, and the tables are behind.
        segment_bytes: 4 << 10,
        filing_interval: std::time::Duration::from_millis(20),
        ..Options::new(&from)
    };
    let store = Sqlite::open(options).await.expect("opened");
    let mut kept = 0;
    for round in 0..20 {
        for _ in 0..40 {
            kept += 1;
            store.finish(finished(kept, function_id(1), account(1))).expect("kept");
        }
        let to = folder.path().join(format!("copy-{round}"));
        copy_store(&from, &to).await.expect("copied");
        take_over(&to).await.expect("it is whole");
        let copy = Sqlite::open(Options::new(&to)).await.expect("opened");
        for number in 1..=kept {
            let id = finished(number, function_id(1), account(1)).id;
            assert!(
                copy.job(id).await.expect("read").is_some(),
                "{number} of {kept} in round {round}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_replaces_nothing_and_is_of_a_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("store"), folder.path().join("copy"));
    let missing = copy_store(&from, &to).await.expect_err("there is none");
    assert!(matches!(missing, StoreFailure::Gone { .. }), "{missing:?}");
    drop(Sqlite::open(Options::new(&from)).await.expect("opened"));
    copy_store(&from, &to).await.expect("copied");
    assert!(copy_store(&from, &to).await.is_err(), "there is a copy already");
}
