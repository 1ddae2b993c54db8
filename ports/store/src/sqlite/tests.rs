use super::*;
use crate::{
    Functions, JobState, Jobs,
    samples::{accepted, account, finished, function_id},
};

#[tokio::test(flavor = "multi_thread")]
async fn writers_wait_or_are_refused_while_too_much_is_pending() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options {
        pending_max: 5,
        ..Options::new(directory.path())
    };
    let store = Sqlite::open(options).await.expect("opened");
    let held_up = store.shared.writer.lock().await;
    for number in 0..5 {
        store
            .finish(finished(number, function_id(1), account(1)))
            .expect("room");
    }
    let refused = store
        .accept(accepted(9, function_id(1), account(1)))
        .await
        .expect_err("no room");
    assert!(
        matches!(refused, StoreFailure::Overloaded { jobs: 5, .. }),
        "{refused:?}"
    );
    let refused = store
        .finish(finished(6, function_id(1), account(1)))
        .expect_err("no room for too long");
    assert_eq!(refused.code(), "store.overloaded");
    assert_eq!(store.lag().jobs, 5);
    drop(held_up);
    for number in 10..40 {
        store
            .finish(finished(number, function_id(1), account(1)))
            .expect("waits for room");
    }
    store.flush().await.expect("filed");
    assert_eq!((store.lag().jobs, store.lag().unsynced_bytes), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_outcome_amid_a_batch_costs_no_other_job() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Sqlite::open(Options::new(directory.path())).await.expect("opened");
    let job = |number: u64| finished(number, function_id(1), account(1));
    store.finish(job(1)).expect("kept");
    store.flush().await.expect("filed");
    for number in 0..3 {
        store.finish(job(number)).expect("kept");
    }
    store.flush().await.expect("filed");
    for number in 0..3 {
        assert_eq!(store.job(job(number).id).await.expect("read"), Some(job(number)));
    }
    let points = crate::Metrics::points(&*store, crate::MetricScope::System, 0, u64::MAX, 86_400_000).await;
    assert_eq!(points.expect("read").iter().map(|point| point.count).sum::<u64>(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_record_cannot_be_changed_or_shortened() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Sqlite::open(Options::new(directory.path())).await.expect("opened");
    let change = crate::Change {
        at_ms: 1,
        actor: None,
        owner: account(1),
        action: "function.deleted".into(),
        target: "f".into(),
        detail: "{}".into(),
    };
    crate::Audit::record(&*store, &change).await.expect("recorded");
    for sql in ["UPDATE audit SET target = 'g'", "DELETE FROM audit"] {
        let done = sqlx::query(sql).execute(&mut *store.shared.writer.lock().await).await;
        assert!(done.expect_err("refused").to_string().contains("append-only"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_directory_is_not_begun_anew() {
    use crate::Sealing;
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    let open = || Sqlite::open(Options::new(directory.path()));
    let store = open().await.expect("opened");
    let sealed = store.seal("a", b"secret").expect("sealed");
    store.finish(finished(1, function_id(1), account(1))).expect("kept");
    drop(store);
    let key = std::fs::read(place("master.key")).expect("a key");

    std::fs::remove_file(place("master.key")).expect("removed");
    assert_eq!(open().await.err().map(|failure| failure.code()), Some("store.gone"));
    assert!(!place("master.key").exists(), "no new key was made");
    std::fs::write(place("master.key"), [7; 32]).expect("written");
    assert_eq!(
        open().await.err().map(|failure| failure.code()),
        Some("store.bad_master_key")
    );
    std::fs::write(place("master.key"), &key).expect("written");

    std::fs::rename(place("store.sqlite"), place("elsewhere")).expect("moved");
    let gone = open().await.err().expect("refused");
    assert!(gone.to_string().contains("store.sqlite is missing"), "{gone}");
    assert!(!place("store.sqlite").exists(), "no new database was made");
    std::fs::rename(place("elsewhere"), place("store.sqlite")).expect("moved");

    let store = open().await.expect("whole again");
    assert_eq!(store.open_sealed("a", &sealed).expect("opened"), b"secret");
}

/// Commits in the write-ahead log: each ends with a frame that says how large the database is after it.
fn commits(directory: &Path) -> usize {
    let log = std::fs::read(directory.join("store.sqlite-wal")).expect("a log");
    let page_bytes = u32::from_be_bytes(log[8..12].try_into().expect("four bytes")) as usize;
    let frames = log[32..].chunks_exact(24 + page_bytes);
    frames.filter(|frame| frame[4..8] != [0; 4]).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_of_2000_transfers_is_one_commit() {
    use crate::{Payment, Projected, Put, Values};
    let directory = tempfile::tempdir().expect("a directory");
    let store = Sqlite::open(Options::new(directory.path())).await.expect("opened");
    let jobs: Vec<crate::Job> = (0..500)
        .map(|number| finished(number, function_id(1), account(1)))
        .collect();
    for job in &jobs {
        store.finish(job.clone()).expect("kept");
    }
    store.flush().await.expect("filed");
    let before = commits(directory.path());
    let lines = (0..4_000).map(|line| Put {
        space: format!("statement/{}", line % 7),
        key: format!("{line:08x}"),
        value: vec![b'x'; 300],
    });
    let payments = jobs.iter().map(|job| Payment {
        job: job.id,
        height: 1,
        commission_ucr: 1,
    });
    let read = Projected {
        payments: payments.collect(),
        puts: lines.collect(),
        ..Projected::at(1)
    };
    store.project(&read).await.expect("written");
    assert_eq!(commits(directory.path()) - before, 1);
    let first = store.list_values("statement/0", "", None, 1_000).await.expect("listed");
    assert_eq!(first.items.len(), 572);
    assert!(store.unsettled().await.expect("read").is_empty());
}

/// A database as the build before quotas left it, with one job that has a row of contents and one that has none.
async fn before_quotas(path: &Path) {
    let mut old = connect_options(path).connect().await.expect("opened");
    let all = migrations();
    let known: Vec<Migration> = all.iter().filter(|migration| migration.version < 30).cloned().collect();
    Migrator::with_migrations(known).run(&mut old).await.expect("migrated");
    let small = finished(1, function_id(1), account(1));
    let large = crate::Job {
        output: Some(vec![7; 3_000]),
        logs: "ä".repeat(1_000),
        ..finished(2, function_id(1), account(1))
    };
    for job in [&small, &large] {
        sqlx::query(
            "INSERT INTO jobs (id, function, developer, state, unsettled, record) VALUES ($1, $2, $3, 2, 1, $4)",
        )
        .bind(job.id.0.to_vec())
        .bind(job.function.0.to_vec())
        .bind(job.developer.0.to_vec())
        .bind(row::encode_job(job))
        .execute(&mut old)
        .await
        .expect("inserted");
    }
    sqlx::query("INSERT INTO job_contents (id, output, logs) VALUES ($1, $2, $3)")
        .bind(large.id.0.to_vec())
        .bind(large.output.clone())
        .bind(&large.logs)
        .execute(&mut old)
        .await
        .expect("inserted");
    sqlx::query("INSERT INTO functions VALUES ($1, $2, 'ada', 'f', 1, 0, 1, 0, 0, NULL, '{}')")
        .bind(function_id(1).0.to_vec())
        .bind(account(1).0.to_vec())
        .execute(&mut old)
        .await
        .expect("inserted");
    let record = serde_json::to_string(&crate::samples::version(function_id(1), 1)).expect("JSON");
    sqlx::query("INSERT INTO versions VALUES ($1, 1, $2, x'')")
        .bind(function_id(1).0.to_vec())
        .bind(record)
        .execute(&mut old)
        .await
        .expect("inserted");
    old.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_accounts_keep_in_an_older_store_is_counted_when_it_is_opened() {
    use crate::{Keeping as _, Kept};
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options::new(directory.path());
    drop(Sqlite::open(options.clone()).await.expect("made"));
    for file in ["store.sqlite", "store.sqlite-wal", "store.sqlite-shm"] {
        let _ = std::fs::remove_file(directory.path().join(file));
    }
    std::fs::remove_dir_all(directory.path().join("journal")).expect("removed");
    before_quotas(&directory.path().join("store.sqlite")).await;
    let store = Sqlite::open(options).await.expect("brought up");
    let usage = store.usage(account(1)).await.expect("read");
    assert_eq!(usage.get(Kept::Outputs), 3_000);
    assert_eq!(usage.get(Kept::Logs), 2_000, "in bytes");
    let records: i64 = sqlx::query_scalar("SELECT SUM(length(record)) FROM jobs")
        .fetch_one(&store.shared.readers)
        .await
        .expect("read");
    assert_eq!(usage.get(Kept::Records), records as u64);
    assert_eq!((usage.get(Kept::Functions), usage.get(Kept::Versions)), (1, 1));
    let code = crate::samples::digest(1);
    assert_eq!(store.unsized_bundles().await.expect("read"), [code]);
    store.size_bundle(&code, 77).await.expect("noted");
    assert_eq!(store.usage(account(1)).await.expect("read").get(Kept::Bundles), 77);
    let kept = store
        .job(crate::samples::job_id(2))
        .await
        .expect("read")
        .expect("there");
    assert_eq!(kept.output.map(|output| output.len()), Some(3_000));
}

/// As an account that deletes all it has: the writer is held for a few statements, not for some of each function.
#[tokio::test(flavor = "multi_thread")]
async fn removed_functions_go_together_with_their_rollups_and_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Sqlite::open(Options::new(directory.path())).await.expect("opened");
    {
        let mut writer = store.shared.writer.lock().await;
        for number in 0..300_u64 {
            let id = [[0, 7].as_slice(), &number.to_be_bytes(), &[0xff, 0]].concat();
            let deleted_at_ms = (number != 42).then_some(5_i64);
            sqlx::query(
                "INSERT INTO functions (id, owner, owner_name, name, live_version, public, concurrency, created_at_ms, \
                 updated_at_ms, policy, deleted_at_ms) VALUES ($1, $2, 'ada', $3, 1, 0, 1, 1, 1, '{}', $4)",
            )
            .bind(id.clone())
            .bind(vec![1_u8; 20])
            .bind(format!("f{number}"))
            .bind(deleted_at_ms)
            .execute(&mut *writer)
            .await
            .expect("a function");
            for version in [&[][..], &[0, 0, 0, 1], &[0xff; 4]] {
                sqlx::query("INSERT INTO rollups VALUES ($1, 1, 1, 1, 0, 0, 1, 1, 1, 1, x'')")
                    .bind([&id, version].concat())
                    .execute(&mut *writer)
                    .await
                    .expect("a rollup");
            }
        }
    }
    let taken = store.purge_deleted(6).await.expect("purged");
    assert_eq!(taken, 299);
    let left = async |sql: &'static str| {
        let left: i64 = sqlx::query_scalar(sql)
            .fetch_one(&store.shared.readers)
            .await
            .expect("a number");
        left
    };
    assert_eq!(left("SELECT COUNT(*) FROM functions").await, 1);
    assert_eq!(
        left("SELECT COUNT(*) FROM rollups").await,
        3,
        "those of the one that is left"
    );
}

/// Each state is told in its order, whatever is filed while a job is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_read_while_it_is_filed_never_goes_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options {
        filing_interval: Duration::ZERO,
        ..Options::new(directory.path())
    };
    let store = Sqlite::open(options).await.expect("opened");
    for number in 0..150 {
        let job = accepted(number, function_id(1), account(1));
        let id = job.id;
        store.accept(job).await.expect("kept");
        store.flush().await.expect("filed");
        let reader = tokio::spawn({
            let store = store.clone();
            async move {
                let mut last = JobState::Queued;
                while !last.is_final() {
                    let state = store.job(id).await.expect("read").expect("there").state;
                    assert!(state as u8 >= last as u8, "job {number}: {last:?}, then {state:?}");
                    last = state;
                }
            }
        });
        store.set_state(id, JobState::Running, None).expect("kept");
        store.flush().await.expect("filed");
        let mut done = finished(number, function_id(1), account(1));
        done.id = id;
        store.finish(done).expect("kept");
        reader.await.expect("in order");
    }
}
