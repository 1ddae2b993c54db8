//! The built-in adapter passes the suite, on a fresh directory and on a used one.

use piecework_store::{Options, Sqlite};

use crate::conformance;

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_passes_the_suite_fresh_and_reopened() {
    let directory = tempfile::tempdir().expect("a directory");
    for _ in 0..2 {
        let store = Sqlite::open(Options::new(directory.path())).await.expect("opened");
        conformance::all(&*store).await;
    }
}
