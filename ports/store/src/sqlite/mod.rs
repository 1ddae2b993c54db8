//! The built-in adapter: SQLite for the tables, a journal of its own in front of them for jobs.
//!
//! All writes go through one connection, in turn; reads have a few of their own. Each commit is synced, so what is in
//! the tables survives a power cut and its journal segments may go.

mod audit;
mod build_logs;
mod bulk;
mod copy;
mod filing;
mod functions;
#[cfg(test)]
mod fuzz;
mod jobs;
mod metrics;
mod project;
mod projector;
mod quotas;
mod results;
mod row;
#[cfg(test)]
mod tests;
mod users;
mod values;
mod whole;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use piecework_model::{AccountId, JobId, LeaseId};
use sqlx::{
    ConnectOptions, Connection, Row, SqlSafeStr, SqliteConnection, SqlitePool, Transaction,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    Amounts, QUOTAS_DEFAULT, Sealing, Sequences, StoreFailure,
    claims::Claims,
    directory::Directory,
    journal::{Entry, Frame, Journal},
    pending::Pending,
    seal::Vault,
};
pub use copy::{copy, take_over};
use projector::Projection;
use row::fixed;

/// Readers at a time; more would only wait for the same disk.
const READERS_MAX: u32 = 4;
/// Covers the bulk statements of each power of two and all others.
const STATEMENTS_MAX: usize = 256;
/// Pages of 4 KiB in the write-ahead log before it is copied back: 32 MiB, some seconds of full load.
const CHECKPOINT_PAGES: &str = "8192";

/// How to open a data directory.
#[derive(Clone, Debug)]
pub struct Options {
    /// Made (mode 0700) where it does not exist; used by one process at a time.
    pub directory: PathBuf,
    /// Size at which a journal segment is followed by the next.
    pub segment_bytes: u64,
    /// Journal entries that may wait for the tables before writers have to.
    pub pending_max: usize,
    /// Their bytes.
    pub pending_bytes_max: usize,
    /// How long the oldest entry waits at most while all goes well.
    pub filing_interval: Duration,
    /// What an account may keep for which nothing else is set.
    pub quotas: Amounts,
    /// Asked where the journal finds no room.
    pub relief: Relief,
}

/// Makes room on a full disk for what must be written, and says whether there is any now.
#[derive(Clone)]
pub struct Relief(pub Arc<dyn Fn() -> bool + Send + Sync>);

impl Default for Relief {
    /// None.
    fn default() -> Self {
        Self(Arc::new(|| false))
    }
}

impl std::fmt::Debug for Relief {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Relief")
    }
}

impl Options {
    /// The usual ones for a directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            segment_bytes: 16 << 20,
            pending_max: 50_000,
            pending_bytes_max: 256 << 20,
            filing_interval: Duration::from_millis(100),
            quotas: QUOTAS_DEFAULT,
            relief: Relief::default(),
        }
    }
}

/// What the adapter and its threads share.
pub(crate) struct Shared {
    // The lock on the directory goes last.
    readers: SqlitePool,
    writer: tokio::sync::Mutex<SqliteConnection>,
    journal: Journal,
    pending: Mutex<Pending>,
    claims: Mutex<Claims>,
    lanes: Mutex<HashMap<(LeaseId, AccountId), u64>>,
    projection: Projection,
    vault: Vault,
    quotas: Arc<quotas::Quotas>,
    options: Options,
    _directory: Directory,
}

/// The built-in store. Dropping it files what is pending and blocks for that long.
pub struct Sqlite {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Sqlite {
    /// Opens or makes a data directory and brings its tables up to its journal.
    ///
    /// Fails with `Locked`, `Foreign`, `Newer`, `Gone`, `OtherMasterKey` or `Corrupt` where it must not go on.
    pub async fn open(options: Options) -> Result<Arc<Self>, StoreFailure> {
        let directory = Directory::open(&options.directory)?;
        whole::check(&directory)?;
        let vault = Vault::open(directory.path())?;
        let connect = connect_options(&directory.path().join(whole::DATABASE));
        let mut writer = open_writer(&connect).await?;
        whole::check_key(&mut writer, &vault).await?;
        let filed = row::mark(&mut writer, "journal_position").await?;
        let (journal, entries) = Journal::open(&directory.subdirectory(whole::JOURNAL)?, filed, options.segment_bytes)?;
        let quotas = Arc::new(quotas::Quotas::read(&mut writer, options.quotas).await?);
        let mut filer = filing::Filer::new(unfinished(&mut writer).await?, quotas.clone());
        replay(&mut writer, &mut filer, &entries).await?;
        let shared = Arc::new(Shared {
            readers: open_readers(connect).await?,
            lanes: Mutex::new(lanes(&mut writer).await?),
            pending: Mutex::new(Pending::new(unfinished(&mut writer).await?, journal.position())),
            projection: Projection::new(journal.position()),
            writer: tokio::sync::Mutex::new(writer),
            claims: Mutex::default(),
            journal,
            vault,
            quotas,
            options,
            _directory: directory,
        });
        let threads = start_threads(&shared, filer)?;
        Ok(Arc::new(Self { shared, threads }))
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.shared.projection.stop();
        self.shared.journal.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a store thread panicked");
            }
        }
    }
}

fn start_threads(shared: &Arc<Shared>, filer: filing::Filer) -> Result<Vec<JoinHandle<()>>, StoreFailure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(StoreFailure::io("starting the projector"))?;
    let (sync, project) = (shared.clone(), shared.clone());
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(StoreFailure::io("starting a thread of the store"))
    };
    Ok(vec![
        spawn(
            "store-projector",
            Box::new(move || runtime.block_on(projector::run(&project, filer))),
        )?,
        spawn("store-sync", Box::new(move || sync.journal.run_sync()))?,
    ])
}

fn connect_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("cache_size", "-32768")
        .statement_cache_capacity(STATEMENTS_MAX)
        .disable_statement_logging()
}

/// Listed by hand: `sqlx::migrate!` needs sqlx's macros, and with them SQLite compiled twice. A file never changes once it was
/// released: the database keeps its checksum.
fn migrations() -> Migrator {
    let migration = |version, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        migration(1, "initial", include_str!("../../migrations/0001_initial.sql")),
        migration(12, "oversight", include_str!("../../migrations/0012_oversight.sql")),
        migration(20, "results", include_str!("../../migrations/0020_results.sql")),
        migration(30, "quotas", include_str!("../../migrations/0030_quotas.sql")),
        migration(
            31,
            "token_parents",
            include_str!("../../migrations/0031_token_parents.sql"),
        ),
        migration(
            40,
            "jobs_by_state",
            include_str!("../../migrations/0040_jobs_by_state.sql"),
        ),
        migration(
            50,
            "bounded_audit",
            include_str!("../../migrations/0050_bounded_audit.sql"),
        ),
        migration(60, "build_logs", include_str!("../../migrations/0060_build_logs.sql")),
    ])
}

async fn open_writer(options: &SqliteConnectOptions) -> Result<SqliteConnection, StoreFailure> {
    let mut writer = options
        .connect()
        .await
        .map_err(StoreFailure::database("opening the database"))?;
    migrations()
        .run(&mut writer)
        .await
        .map_err(|error| StoreFailure::database("preparing the tables")(error.into()))?;
    Ok(writer)
}

async fn open_readers(options: SqliteConnectOptions) -> Result<SqlitePool, StoreFailure> {
    SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .connect_with(options.pragma("query_only", "on"))
        .await
        .map_err(StoreFailure::database("opening the database"))
}

/// Files what the last process had written and not filed; a bounded lag bounds it.
async fn replay(
    writer: &mut SqliteConnection,
    filer: &mut filing::Filer,
    entries: &[(u64, Entry)],
) -> Result<(), StoreFailure> {
    for batch in entries.chunks(projector::BATCH_MAX) {
        filer.file(writer, batch).await?;
    }
    if !entries.is_empty() {
        tracing::info!(entries = entries.len(), "journal entries filed after a restart");
    }
    Ok(())
}

async fn unfinished(writer: &mut SqliteConnection) -> Result<HashSet<JobId>, StoreFailure> {
    let rows = sqlx::query("SELECT id FROM accepted").fetch_all(writer).await;
    let rows = rows.map_err(StoreFailure::database("reading accepted jobs"))?;
    rows.iter().map(|row| Ok(JobId(fixed(row.get(0), "job")?))).collect()
}

async fn lanes(writer: &mut SqliteConnection) -> Result<HashMap<(LeaseId, AccountId), u64>, StoreFailure> {
    let rows = sqlx::query("SELECT lease, provider, high_water FROM lanes")
        .fetch_all(writer)
        .await;
    let rows = rows.map_err(StoreFailure::database("reading sequences"))?;
    rows.iter()
        .map(|row| {
            let lane = (
                LeaseId(fixed(row.get(0), "lane")?),
                AccountId(fixed(row.get(1), "lane")?),
            );
            Ok((lane, row.get::<i64, _>(2) as u64))
        })
        .collect()
}

impl Shared {
    /// Journals an entry and shows it to readers.
    fn append(&self, entry: Entry) -> Result<u64, StoreFailure> {
        match self.journaled(&entry) {
            Err(StoreFailure::DiskFull | StoreFailure::JournalStalled) if (self.options.relief.0)() => {
                self.journaled(&entry)
            }
            done => done,
        }
    }

    fn journaled(&self, entry: &Entry) -> Result<u64, StoreFailure> {
        let frame = Frame::encode(entry)?;
        self.journal.append(frame, |end| self.take(end, entry.clone()))
    }

    fn take(&self, end: u64, entry: Entry) {
        self.note_claim(end, &entry);
        self.pending.lock().push(end, entry);
        self.projection.notify();
    }

    fn note_claim(&self, end: u64, entry: &Entry) {
        let (function, idempotency, job) = match entry {
            Entry::Accepted(job) => (job.function, &job.idempotency, job.id),
            Entry::Finished(job) => (job.function, &job.idempotency, job.id),
            Entry::Progressed { .. } | Entry::Reserved { .. } | Entry::Result(_) => return,
        };
        if let Some(idempotency) = idempotency {
            self.claims.lock().journaled(function, idempotency, job, end);
        }
    }
}

#[async_trait]
impl Sequences for Sqlite {
    async fn reserve_sequences(&self, lease: LeaseId, provider: AccountId, up_to: u64) -> Result<(), StoreFailure> {
        if self.sequence_high_water(lease, provider) >= up_to {
            return Ok(());
        }
        let end = self.shared.append(Entry::Reserved { lease, provider, up_to })?;
        self.shared.journal.synced(end).await?;
        let mut lanes = self.shared.lanes.lock();
        let mark = lanes.entry((lease, provider)).or_default();
        *mark = up_to.max(*mark);
        Ok(())
    }

    fn sequence_high_water(&self, lease: LeaseId, provider: AccountId) -> u64 {
        self.shared.lanes.lock().get(&(lease, provider)).copied().unwrap_or(0)
    }
}

impl Sealing for Sqlite {
    fn seal(&self, context: &str, bytes: &[u8]) -> Result<Vec<u8>, StoreFailure> {
        self.shared.vault.seal(context, bytes)
    }

    fn open_sealed(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreFailure> {
        self.shared.vault.open_sealed(context, sealed)
    }
}

/// Begins a transaction that will write.
async fn begin(writer: &mut SqliteConnection) -> Result<Transaction<'_, sqlx::Sqlite>, StoreFailure> {
    if writer.is_in_transaction() && is_stuck(writer).await {
        *writer = opened_again(writer).await?;
    }
    let transaction = writer.begin_with("BEGIN IMMEDIATE").await;
    transaction.map_err(StoreFailure::database("beginning a transaction"))
}

/// SQLite ends a transaction by itself when the disk is full; the driver goes on counting it and begins no other, for good.
/// One that was dropped a moment ago is counted too, but only until it is rolled back.
async fn is_stuck(writer: &mut SqliteConnection) -> bool {
    let begun = writer.begin_with("BEGIN").await;
    matches!(begun, Err(sqlx::Error::InvalidSavePointStatement))
}

/// Another connection to the same file.
async fn opened_again(writer: &mut SqliteConnection) -> Result<SqliteConnection, StoreFailure> {
    let file = sqlx::query_scalar("SELECT file FROM pragma_database_list WHERE name = 'main'")
        .fetch_one(writer)
        .await;
    let file: String = file.map_err(StoreFailure::database("reading the path of the database"))?;
    let again = connect_options(Path::new(&file)).connect().await;
    again.map_err(StoreFailure::database("opening the database"))
}

async fn commit(transaction: Transaction<'_, sqlx::Sqlite>) -> Result<(), StoreFailure> {
    transaction.commit().await.map_err(StoreFailure::database("committing"))
}

async fn roll_back(transaction: Transaction<'_, sqlx::Sqlite>) -> Result<(), StoreFailure> {
    transaction
        .rollback()
        .await
        .map_err(StoreFailure::database("rolling back"))
}

fn found(rows: u64, what: &'static str) -> Result<(), StoreFailure> {
    if rows == 0 {
        return Err(StoreFailure::NotFound { what });
    }
    Ok(())
}
