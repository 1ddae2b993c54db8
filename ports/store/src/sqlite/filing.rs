//! Files a batch of journal entries: one transaction, few statements, and the journal position with them.
//!
//! The position makes filing exactly-once: a batch and the note that it was filed are committed together.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use piecework_model::{AccountId, FunctionId, JobId, LeaseId};
use sqlx::SqliteConnection;

use super::{
    bulk::Bulk,
    metrics::RollupCache,
    quotas::Quotas,
    results::BEGUN,
    row::{encode_accepted, encode_job, has_contents_row, job_id, set_mark},
};
use crate::{AcceptedJob, Idempotency, Job, JobState, ResultNote, StoreFailure, journal::Entry};

const ENDED: Bulk = Bulk {
    operation: "looking for jobs that have ended",
    before: "SELECT id FROM jobs WHERE state >= 2 AND id IN (VALUES ",
    columns: 1,
    after: ")",
};

const JOBS: Bulk = Bulk {
    operation: "filing jobs",
    before: "INSERT INTO jobs (id, function, developer, state, unsettled, record) VALUES ",
    columns: 6,
    after: " ON CONFLICT (id) DO UPDATE SET state = excluded.state, unsettled = excluded.unsettled, \
             record = excluded.record, provider = NULL WHERE jobs.state < 2",
};

const CONTENTS: Bulk = Bulk {
    operation: "filing outputs and logs",
    before: "INSERT INTO job_contents (id, developer, output, logs) VALUES ",
    columns: 4,
    after: " ON CONFLICT (id) DO UPDATE SET output = excluded.output, logs = excluded.logs",
};

const ACCEPTED: Bulk = Bulk {
    operation: "filing accepted jobs",
    before: "INSERT INTO accepted (id, record) VALUES ",
    columns: 2,
    after: " ON CONFLICT (id) DO NOTHING",
};

const NO_LONGER_ACCEPTED: Bulk = Bulk {
    operation: "removing ended jobs from the accepted ones",
    before: "DELETE FROM accepted WHERE id IN (VALUES ",
    columns: 1,
    after: ")",
};

const KEYS: Bulk = Bulk {
    operation: "filing idempotency keys",
    before: "INSERT INTO idempotency (account, function, key, request, job, created_at_ms) VALUES ",
    columns: 6,
    after: " ON CONFLICT (account, function, key) DO UPDATE SET request = excluded.request, job = excluded.job, \
             created_at_ms = excluded.created_at_ms",
};

const LANES: Bulk = Bulk {
    operation: "filing sequences",
    before: "INSERT INTO lanes (lease, provider, high_water) VALUES ",
    columns: 3,
    after: " ON CONFLICT (lease, provider) DO UPDATE SET high_water = excluded.high_water \
             WHERE excluded.high_water > lanes.high_water",
};

/// What a batch comes down to: the first outcome of each job, the last progress, the highest mark.
#[derive(Default)]
struct Batch {
    finished: Vec<Arc<Job>>,
    finished_ids: HashSet<JobId>,
    accepted: Vec<Arc<AcceptedJob>>,
    progress: BTreeMap<JobId, (JobState, Option<AccountId>)>,
    lanes: BTreeMap<(LeaseId, AccountId), u64>,
    keys: HashMap<(FunctionId, AccountId, String), (Idempotency, JobId, u64)>,
    results: BTreeMap<JobId, ResultNote>,
}

impl Batch {
    fn of(entries: &[(u64, Entry)]) -> Self {
        let mut batch = Self::default();
        for (_, entry) in entries {
            batch.add(entry);
        }
        let ended = &batch.finished_ids;
        batch.accepted.retain(|job| !ended.contains(&job.id));
        batch.progress.retain(|job, _| !ended.contains(job));
        batch
    }

    fn add(&mut self, entry: &Entry) {
        match entry {
            Entry::Accepted(job) => {
                self.add_key(job.function, job.idempotency.as_ref(), job.id, job.created_at_ms);
                self.accepted.push(job.clone());
            }
            Entry::Progressed { job, state, provider } => {
                let known = self.progress.entry(*job).or_insert((*state, *provider));
                *known = (*state, provider.or(known.1));
            }
            Entry::Finished(job) => {
                if self.finished_ids.insert(job.id) {
                    self.add_key(job.function, job.idempotency.as_ref(), job.id, job.created_at_ms);
                    self.finished.push(job.clone());
                }
            }
            Entry::Reserved { lease, provider, up_to } => {
                let mark = self.lanes.entry((*lease, *provider)).or_default();
                *mark = (*mark).max(*up_to);
            }
            Entry::Result(note) => {
                self.results.entry(note.job).or_insert_with(|| note.clone());
            }
        }
    }

    fn add_key(&mut self, function: FunctionId, idempotency: Option<&Idempotency>, job: JobId, created_at_ms: u64) {
        if let Some(idempotency) = idempotency {
            let key = (function, idempotency.account, idempotency.key.clone());
            self.keys.insert(key, (idempotency.clone(), job, created_at_ms));
        }
    }
}

/// Files batches, and remembers between them what saves looking it up.
pub(super) struct Filer {
    /// Jobs with a row in `accepted`.
    accepted: HashSet<JobId>,
    quotas: Arc<Quotas>,
    rollups: RollupCache,
}

impl Filer {
    /// `accepted` are the jobs with a row in that table.
    pub(super) fn new(accepted: HashSet<JobId>, quotas: Arc<Quotas>) -> Self {
        Self {
            accepted,
            quotas,
            rollups: RollupCache::default(),
        }
    }

    /// All of the entries or, on a failure, none of them.
    pub(super) async fn file(
        &mut self,
        writer: &mut SqliteConnection,
        entries: &[(u64, Entry)],
    ) -> Result<(), StoreFailure> {
        let Some((position, _)) = entries.last() else {
            return Ok(());
        };
        let mut batch = Batch::of(entries);
        let mut filed = self.transact(writer, &batch, *position).await;
        if let Ok(Filed::SecondOutcomes) = filed {
            drop_ended(writer, &mut batch).await?;
            filed = self.transact(writer, &batch, *position).await;
        }
        match filed {
            Ok(Filed::All) => Ok(()),
            Ok(Filed::SecondOutcomes) => {
                unreachable!("second outcomes were dropped and only this writer adds outcomes")
            }
            Err(failure) => {
                self.rollups.forget();
                Err(failure)
            }
        }
    }

    async fn transact(
        &mut self,
        writer: &mut SqliteConnection,
        batch: &Batch,
        position: u64,
    ) -> Result<Filed, StoreFailure> {
        let mut transaction = super::begin(writer).await?;
        if insert_jobs(&mut transaction, &batch.finished).await? < batch.finished.len() as u64 {
            // Rare: rolling back is dearer than looking first, but looking first costs every job.
            super::roll_back(transaction).await?;
            return Ok(Filed::SecondOutcomes);
        }
        let ended = self.file_accepted(&mut transaction, batch).await?;
        file_keys(&mut transaction, batch).await?;
        file_lanes(&mut transaction, batch).await?;
        file_results(&mut transaction, batch).await?;
        let developers: BTreeSet<AccountId> = batch.finished.iter().map(|job| job.developer).collect();
        self.quotas.drop_oldest(&mut transaction, developers).await?;
        self.rollups.add(&mut transaction, &batch.finished).await?;
        set_mark(&mut transaction, "journal_position", position).await?;
        super::commit(transaction).await?;
        for job in ended {
            self.accepted.remove(&job);
        }
        self.accepted.extend(batch.accepted.iter().map(|job| job.id));
        Ok(Filed::All)
    }

    /// Gives the jobs that left the accepted ones.
    async fn file_accepted(&self, writer: &mut SqliteConnection, batch: &Batch) -> Result<Vec<JobId>, StoreFailure> {
        let queued: Vec<Arc<Job>> = batch.accepted.iter().map(|job| Arc::new(job.to_job())).collect();
        insert_jobs(writer, &queued).await?;
        insert_accepted(writer, &batch.accepted).await?;
        update_progress(writer, &batch.progress).await?;
        let finished = batch.finished.iter().map(|job| job.id);
        let ended: Vec<JobId> = finished.filter(|job| self.accepted.contains(job)).collect();
        NO_LONGER_ACCEPTED
            .run(writer, &ended, |row, job| {
                row.blob(job.0.to_vec());
            })
            .await?;
        Ok(ended)
    }
}

/// What came of an attempt.
enum Filed {
    All,
    /// Some job had ended before; nothing was filed.
    SecondOutcomes,
}

/// A second outcome of a job is dropped, whatever it says.
async fn drop_ended(writer: &mut SqliteConnection, batch: &mut Batch) -> Result<(), StoreFailure> {
    let rows = ENDED.fetch(writer, &batch.finished, |row, job| {
        row.blob(job.id.0.to_vec());
    });
    let ended: HashSet<JobId> = rows.await?.iter().map(|row| job_id(row, 0)).collect::<Result<_, _>>()?;
    tracing::warn!(jobs = ended.len(), "dropped duplicate outcomes of jobs");
    batch.finished.retain(|job| !ended.contains(&job.id));
    Ok(())
}

/// Gives the number of jobs that had not ended before.
async fn insert_jobs(writer: &mut SqliteConnection, jobs: &[Arc<Job>]) -> Result<u64, StoreFailure> {
    let inserted = JOBS.run(writer, jobs, |row, job| {
        row.blob(job.id.0.to_vec())
            .blob(job.function.0.to_vec())
            .blob(job.developer.0.to_vec())
            .number(job.state as u64)
            .number(u64::from(job.is_unsettled()))
            .blob(encode_job(job));
    });
    let inserted = inserted.await?;
    let with_contents: Vec<&Arc<Job>> = jobs.iter().filter(|job| has_contents_row(job)).collect();
    CONTENTS
        .run(writer, &with_contents, |row, job| {
            row.blob(job.id.0.to_vec())
                .blob(job.developer.0.to_vec())
                .optional_blob(job.output.clone())
                .text(job.logs.clone());
        })
        .await?;
    Ok(inserted)
}

async fn insert_accepted(writer: &mut SqliteConnection, jobs: &[Arc<AcceptedJob>]) -> Result<(), StoreFailure> {
    ACCEPTED
        .run(writer, jobs, |row, job| {
            row.blob(job.id.0.to_vec()).blob(encode_accepted(job));
        })
        .await?;
    Ok(())
}

/// One statement each: progress is noted of long or queued jobs only.
async fn update_progress(
    writer: &mut SqliteConnection,
    progress: &BTreeMap<JobId, (JobState, Option<AccountId>)>,
) -> Result<(), StoreFailure> {
    for (job, (state, provider)) in progress {
        sqlx::query("UPDATE jobs SET state = $2, provider = COALESCE($3, provider) WHERE id = $1 AND state < 2")
            .bind(job.0.to_vec())
            .bind(*state as i64)
            .bind(provider.map(|provider| provider.0.to_vec()))
            .execute(&mut *writer)
            .await
            .map_err(StoreFailure::database("filing a job's progress"))?;
    }
    Ok(())
}

async fn file_keys(writer: &mut SqliteConnection, batch: &Batch) -> Result<(), StoreFailure> {
    let keys: Vec<_> = batch.keys.iter().collect();
    KEYS.run(
        writer,
        &keys,
        |row, ((function, account, key), (idempotency, job, created_at_ms))| {
            row.blob(account.0.to_vec())
                .blob(function.0.to_vec())
                .text(key.clone())
                .blob(idempotency.request.0.to_vec())
                .blob(job.0.to_vec())
                .number(*created_at_ms);
        },
    )
    .await?;
    Ok(())
}

async fn file_lanes(writer: &mut SqliteConnection, batch: &Batch) -> Result<(), StoreFailure> {
    let lanes: Vec<_> = batch.lanes.iter().collect();
    LANES
        .run(writer, &lanes, |row, ((lease, provider), up_to)| {
            row.blob(lease.0.to_vec()).blob(provider.0.to_vec()).number(**up_to);
        })
        .await?;
    Ok(())
}

async fn file_results(writer: &mut SqliteConnection, batch: &Batch) -> Result<(), StoreFailure> {
    let notes: Vec<&ResultNote> = batch.results.values().collect();
    BEGUN
        .run(writer, &notes, |row, note| {
            row.blob(note.job.0.to_vec())
                .blob(note.function.0.to_vec())
                .number(note.state as u64)
                .number(u64::from(note.attempts))
                .number(note.next_at_ms)
                .optional_number(note.expires_at_ms)
                .text(note.detail.clone());
        })
        .await?;
    Ok(())
}
