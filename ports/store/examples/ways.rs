//! Compares ways to keep a job: this store's journal in front of its tables, and SQLite alone with one writer that commits in
//! batches. `cargo run --release -p piecework-store --example ways -- [SECONDS]`; figures are in decision 033.
//!
//! Each caller keeps one job after the other and waits until it is kept. SQLite gets the same records and the same indexes.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use piecework_store::{AcceptedJob, Job, Jobs, Options, Sqlite, StoreFailure};
use samples::{accepted, account, finished, function_id};
use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::{mpsc, oneshot};

#[path = "../tests/store/conformance/samples.rs"]
#[allow(dead_code)]
mod samples;

const CALLERS: [usize; 3] = [1, 16, 128];
/// Jobs of one commit at most.
const BATCH_MAX: usize = 512;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let seconds = std::env::args().nth(1).map_or(3, |text| text.parse().expect("seconds"));
    let time = Duration::from_secs(seconds);
    for callers in CALLERS {
        println!("{callers} callers");
        let directory = tempfile::tempdir_in(".").expect("a directory");
        let store = Sqlite::open(Options::new(directory.path())).await.expect("opened");
        let keep = store.clone();
        let kept = move |number| {
            let store = keep.clone();
            async move { store.finish(job(number)).expect("kept") }
        };
        measure("  journal, finish (a power cut may take 50 ms)", callers, time, kept).await;
        let keep = store.clone();
        let promised = move |number| {
            let store = keep.clone();
            async move {
                // The tables are behind what `finish` has written: as a caller would, try again.
                while let Err(failure) = store.accept(order(number)).await {
                    assert!(matches!(failure, StoreFailure::Overloaded { .. }), "{failure}");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        };
        measure("  journal, accept (a power cut takes nothing)", callers, time, promised).await;
        store.flush().await.expect("filed");
        drop(store);
        for (what, synchronous) in [
            ("  SQLite, FULL    (a power cut takes nothing)", SqliteSynchronous::Full),
            (
                "  SQLite, NORMAL  (a power cut takes all since the last checkpoint)",
                SqliteSynchronous::Normal,
            ),
        ] {
            let writer = Writer::start(synchronous).await;
            let sender = writer.sender.clone();
            let kept = move |number| {
                let sender = sender.clone();
                async move {
                    let (done, told) = oneshot::channel();
                    sender.send((job(number), done)).await.expect("it runs");
                    told.await.expect("committed");
                }
            };
            measure(what, callers, time, kept).await;
            writer.end().await;
        }
    }
}

fn job(number: u64) -> Job {
    let mut job = finished(1_000_000 + number, function_id(number % 50), account(number % 7));
    job.created_at_ms = 1_800_000_000_000 + number;
    job
}

fn order(number: u64) -> AcceptedJob {
    accepted(2_000_000_000 + number, function_id(number % 50), account(number % 7))
}

/// So many callers, for so long.
async fn measure<F>(what: &str, callers: usize, time: Duration, keep: impl Fn(u64) -> F + Clone + Send + Sync + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let (over, all) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Duration>>>::default());
    let (began, cpu_before) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (keep, over, all) = (keep.clone(), over.clone(), all.clone());
            tokio::spawn(async move {
                let mut own = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    keep(NUMBER.fetch_add(1, Ordering::Relaxed)).await;
                    own.push(began.elapsed());
                    tokio::task::yield_now().await;
                }
                all.lock().expect("no panics").append(&mut own);
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("no panic");
    }
    let (wall, cpu) = (began.elapsed(), cpu() - cpu_before);
    let mut latencies = std::mem::take(&mut *all.lock().expect("no panics"));
    latencies.sort_unstable();
    let at = |per_mille: usize| latencies[(latencies.len() * per_mille / 1_000).min(latencies.len() - 1)];
    println!(
        "{what}: {:.0}/s, p50 {:.1?}, p99 {:.1?}, {:.1} us CPU each",
        latencies.len() as f64 / wall.as_secs_f64(),
        at(500),
        at(990),
        cpu.as_secs_f64() * 1e6 / latencies.len() as f64,
    );
}

/// CPU time of this process so far; the kernel counts in hundredths of a second.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("user") + fields[12].parse::<u64>().expect("system");
    Duration::from_millis(ticks * 10)
}

/// SQLite alone: one task with the only connection, which commits what waits.
struct Writer {
    sender: mpsc::Sender<(Job, oneshot::Sender<()>)>,
    task: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Writer {
    async fn start(synchronous: SqliteSynchronous) -> Self {
        let directory = tempfile::tempdir_in(".").expect("a directory");
        let options = SqliteConnectOptions::new()
            .filename(directory.path().join("jobs.sqlite"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .pragma("wal_autocheckpoint", "8192")
            .pragma("cache_size", "-32768");
        let mut connection = options.connect().await.expect("opened");
        for sql in [
            "CREATE TABLE jobs (id BLOB NOT NULL PRIMARY KEY, function BLOB NOT NULL, developer BLOB NOT NULL, \
             state BIGINT NOT NULL, unsettled BIGINT NOT NULL, record BLOB NOT NULL) WITHOUT ROWID",
            "CREATE INDEX jobs_function ON jobs (function, id)",
            "CREATE INDEX jobs_developer ON jobs (developer, id)",
            "CREATE INDEX jobs_unsettled ON jobs (id) WHERE unsettled = 1",
        ] {
            sqlx::query(sql).execute(&mut connection).await.expect("made");
        }
        let (sender, jobs) = mpsc::channel(BATCH_MAX);
        Self {
            sender,
            task: tokio::spawn(write(connection, jobs)),
            _directory: directory,
        }
    }

    async fn end(self) {
        drop(self.sender);
        self.task.await.expect("no panic");
    }
}

async fn write(mut connection: SqliteConnection, mut jobs: mpsc::Receiver<(Job, oneshot::Sender<()>)>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while jobs.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.expect("begun");
        insert(&mut transaction, &batch).await;
        transaction.commit().await.expect("committed");
        for (_, done) in batch.drain(..) {
            // Whoever waited may have gone.
            let _ = done.send(());
        }
    }
}

/// In statements of as many rows as the largest power of two that is left, as the store's own projector does: sqlx hands each
/// statement to another thread.
async fn insert(connection: &mut SqliteConnection, batch: &[(Job, oneshot::Sender<()>)]) {
    let mut rest = batch;
    while let Some(bits) = rest.len().checked_ilog2() {
        let (rows, after) = rest.split_at(1 << bits.min(8));
        rest = after;
        let values = vec!["(?, ?, ?, ?, ?, ?)"; rows.len()].join(", ");
        let sql = format!("INSERT INTO jobs VALUES {values}");
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (job, _) in rows {
            query = query
                .bind(job.id.0.to_vec())
                .bind(job.function.0.to_vec())
                .bind(job.developer.0.to_vec())
                .bind(job.state as i64)
                .bind(i64::from(job.is_unsettled()))
                .bind(borsh::to_vec(job).expect("encodes"));
        }
        query.execute(&mut *connection).await.expect("inserted");
    }
}
