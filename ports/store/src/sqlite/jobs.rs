//! Jobs: written to the journal, read from the tables with what is pending laid over them.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use piecework_model::{AccountId, FunctionId, JobId};
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::{Shared, Sqlite, begin, commit, quotas, row};
use crate::{
    Accepted, AcceptedJob, Idempotency, Job, JobFilter, JobState, JobStep, Jobs, JournalLag, Page, Projected,
    StoreFailure,
    claims::{self, KEPT_MS},
    journal::Entry,
};

/// Jobs deleted in one transaction: others who write wait for milliseconds only.
const PRUNED_AT_ONCE: i64 = 2_000;
/// Reads of one job while batches are filed: a batch takes milliseconds, a read a fraction of one.
const READS_MAX: u32 = 20;
/// Jobs of one page of a list, whatever is asked.
const LISTED_MAX: u32 = 1_000;

impl Shared {
    async fn stored_key(
        &self,
        function: FunctionId,
        idempotency: &Idempotency,
        now_ms: u64,
    ) -> Result<Option<Accepted>, StoreFailure> {
        let row = sqlx::query(
            "SELECT request, job FROM idempotency WHERE account = $1 AND function = $2 AND key = $3 \
             AND created_at_ms >= $4",
        )
        .bind(idempotency.account.0.to_vec())
        .bind(function.0.to_vec())
        .bind(&idempotency.key)
        .bind(now_ms.saturating_sub(KEPT_MS) as i64)
        .fetch_optional(&self.readers)
        .await
        .map_err(StoreFailure::database("reading an idempotency key"))?;
        let Some(row) = row else { return Ok(None) };
        let request = piecework_model::Digest(row::fixed(row.get(0), "key")?);
        Ok(Some(claims::judge(
            (request, row::job_id(&row, 1)?),
            &idempotency.request,
        )))
    }

    /// Claims a key against the tables and against those in use, as one step.
    async fn claim(
        &self,
        function: FunctionId,
        idempotency: &Idempotency,
        (job, now_ms): (JobId, u64),
    ) -> Result<Accepted, StoreFailure> {
        loop {
            let generation = self.claims.lock().generation();
            let stored = self.stored_key(function, idempotency, now_ms).await?;
            let mut claims = self.claims.lock();
            if claims.generation() != generation {
                continue;
            }
            return Ok(stored.unwrap_or_else(|| claims.claim(function, idempotency, job)));
        }
    }

    async fn stored_job(&self, id: JobId) -> Result<Option<Job>, StoreFailure> {
        let sql = format!(
            "SELECT {}, job_contents.output, job_contents.logs, job_contents.dropped FROM jobs \
             LEFT JOIN job_contents ON job_contents.id = jobs.id WHERE jobs.id = $1",
            row::JOB_COLUMNS
        );
        let found = sqlx::query(AssertSqlSafe(sql))
            .bind(id.0.to_vec())
            .fetch_optional(&self.readers)
            .await;
        let Some(found) = found.map_err(StoreFailure::database("reading a job"))? else {
            return Ok(None);
        };
        let mut job = row::job(&found)?;
        if let Some(logs) = found.get::<Option<String>, _>("logs") {
            job.output = found.get("output");
            job.logs = logs;
            if found.get::<i64, _>("dropped") & quotas::LOGS_DROPPED != 0 {
                job.logs = quotas::NO_LOGS.to_owned();
            }
        }
        Ok(Some(job))
    }

    /// Of jobs that have not ended, both states come where one is asked for: the journal may know of another one.
    async fn stored_list(&self, filter: &JobFilter, limit: u32) -> Result<Vec<Job>, StoreFailure> {
        let states = match filter.state {
            None => "",
            Some(JobState::Queued | JobState::Running) => " AND state <> 2 AND state < 2",
            Some(JobState::Succeeded) => " AND state = 2",
            Some(JobState::Failed | JobState::TimedOut | JobState::Cancelled | JobState::Expired) => {
                " AND state <> 2 AND state = $5"
            }
        };
        // Through the index of the fewest: the plus keeps the planner from the other one.
        let function = filter.function.map(|function| function.0.to_vec());
        let walked = match (&function, states.contains("<> 2")) {
            (Some(_), false) => "function = $1 AND +developer = $2",
            (Some(_), true) => "+function = $1 AND developer = $2",
            (None, _) => "$1 IS NULL AND developer = $2",
        };
        let sql = format!(
            "SELECT {} FROM jobs WHERE {walked} AND id < $3{states} ORDER BY id DESC LIMIT $4",
            row::JOB_COLUMNS
        );
        // One byte longer than any id, and so above all of them.
        let before = filter.before.map_or_else(|| vec![0xff; 17], |before| before.0.to_vec());
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(function)
            .bind(filter.developer.0.to_vec())
            .bind(before)
            .bind(i64::from(limit))
            .bind(filter.state.map(|state| i64::from(state as u8)))
            .fetch_all(&self.readers)
            .await;
        row::jobs(&rows.map_err(StoreFailure::database("listing jobs"))?)
    }

    /// The same, with what the journal knows of them, and none that are in another state by that.
    async fn stored_in_state(&self, filter: &JobFilter, limit: u32) -> Result<Vec<Job>, StoreFailure> {
        let mut filter = filter.clone();
        let mut found: Vec<Job> = Vec::new();
        loop {
            let mut stored = self.stored_list(&filter, limit).await?;
            let last = stored.last().map(|job| job.id);
            let is_whole = stored.len() < limit as usize;
            let pending = self.pending.lock();
            stored.iter_mut().for_each(|job| pending.overlay(job));
            if let Some(state) = filter.state {
                let has_ended = |job: &Job| !state.is_final() && pending.has_ended(job.id);
                stored.retain(|job| job.state == state && !has_ended(job));
            }
            drop(pending);
            found.extend(stored);
            if is_whole || found.len() >= limit as usize {
                return Ok(found);
            }
            filter.before = last;
        }
    }

    fn keep(&self, job: Job) -> Result<(), StoreFailure> {
        assert!(job.state.is_final(), "only an outcome is kept");
        if self.pending.lock().has_ended(job.id) {
            return Ok(());
        }
        self.append(Entry::Finished(Arc::new(job)))?;
        Ok(())
    }

    async fn delete_jobs(&self, older_than: JobId) -> Result<u64, StoreFailure> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        delete_old(&mut transaction, "DELETE FROM job_contents WHERE id", older_than).await?;
        delete_old(&mut transaction, "DELETE FROM job_steps WHERE job", older_than).await?;
        delete_old(&mut transaction, "DELETE FROM job_results WHERE job", older_than).await?;
        let deleted = delete_old(&mut transaction, "DELETE FROM jobs WHERE id", older_than).await?;
        commit(transaction).await?;
        Ok(deleted)
    }

    /// A crash between a note and its job leaves such.
    async fn delete_orphaned_notes(&self, older_than: JobId) -> Result<(), StoreFailure> {
        sqlx::query("DELETE FROM job_results WHERE job < $1 AND job NOT IN (SELECT id FROM jobs)")
            .bind(older_than.0.to_vec())
            .execute(&mut *self.writer.lock().await)
            .await
            .map_err(StoreFailure::database("removing old notes"))?;
        Ok(())
    }
}

async fn delete_old(writer: &mut SqliteConnection, delete: &str, older_than: JobId) -> Result<u64, StoreFailure> {
    let sql = format!(
        "{delete} IN (SELECT id FROM jobs WHERE id < $1 AND unsettled = 0 AND state >= 2 ORDER BY id LIMIT $2)"
    );
    let deleted = sqlx::query(AssertSqlSafe(sql))
        .bind(older_than.0.to_vec())
        .bind(PRUNED_AT_ONCE)
        .execute(writer);
    let deleted = deleted.await.map_err(StoreFailure::database("removing old jobs"))?;
    Ok(deleted.rows_affected())
}

#[async_trait]
impl Jobs for Sqlite {
    fn finish(&self, job: Job) -> Result<(), StoreFailure> {
        self.shared.wait_for_space()?;
        self.shared.keep(job)
    }

    async fn accept(&self, job: AcceptedJob) -> Result<Accepted, StoreFailure> {
        self.shared.check_space()?;
        let (id, function, now_ms) = (job.id, job.function, job.created_at_ms);
        let idempotency = job.idempotency.clone();
        if let Some(key) = &idempotency {
            match self.shared.claim(function, key, (id, now_ms)).await? {
                Accepted::New => {}
                known => return Ok(known),
            }
        }
        let appended = self.shared.append(Entry::Accepted(Arc::new(job)));
        if let (Err(_), Some(key)) = (&appended, &idempotency) {
            self.shared.claims.lock().release(function, key, id);
        }
        self.shared.journal.synced(appended?).await?;
        Ok(Accepted::New)
    }

    async fn reserve_idempotency(
        &self,
        function: FunctionId,
        idempotency: &Idempotency,
        job: JobId,
    ) -> Result<Accepted, StoreFailure> {
        self.shared
            .claim(function, idempotency, (job, job.created_at_ms()))
            .await
    }

    fn release_idempotency(&self, function: FunctionId, idempotency: &Idempotency, job: JobId) {
        self.shared.claims.lock().release(function, idempotency, job);
    }

    fn set_state(&self, job: JobId, state: JobState, provider: Option<AccountId>) -> Result<(), StoreFailure> {
        assert!(!state.is_final(), "an outcome is kept by finish");
        if !self.shared.pending.lock().is_unfinished(job) {
            return Ok(());
        }
        self.shared.append(Entry::Progressed { job, state, provider })?;
        Ok(())
    }

    async fn cancel(&self, id: JobId) -> Result<Option<Job>, StoreFailure> {
        let Some(mut job) = self.job(id).await? else {
            return Ok(None);
        };
        if job.state.is_final() || !self.shared.pending.lock().is_unfinished(id) {
            return Ok(None);
        }
        job.state = JobState::Cancelled;
        self.shared.keep(job.clone())?;
        Ok(Some(job))
    }

    async fn unfinished(&self) -> Result<Vec<AcceptedJob>, StoreFailure> {
        self.shared.filed().await?;
        let records: Vec<Vec<u8>> = sqlx::query_scalar("SELECT record FROM accepted ORDER BY id")
            .fetch_all(&self.shared.readers)
            .await
            .map_err(StoreFailure::database("reading accepted jobs"))?;
        records.iter().map(|record| row::decode_accepted(record)).collect()
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreFailure> {
        let mut tries = 0;
        loop {
            let forgotten = {
                let pending = self.shared.pending.lock();
                if let Some(job) = pending.job(id) {
                    return Ok(Some(Arc::unwrap_or_clone(job)));
                }
                pending.forgotten()
            };
            let mut found = self.shared.stored_job(id).await?;
            let pending = self.shared.pending.lock();
            tries += 1;
            // What was filed meanwhile may be of this job: then it is in the tables, and was not when they were read.
            if pending.forgotten() != forgotten && tries < READS_MAX {
                continue;
            }
            if let Some(job) = &mut found {
                match pending.job(id) {
                    // It has ended meanwhile.
                    Some(newer) => *job = Arc::unwrap_or_clone(newer),
                    None => pending.overlay(job),
                }
            }
            return Ok(found);
        }
    }

    async fn list_jobs(&self, filter: &JobFilter) -> Result<Page<Job, JobId>, StoreFailure> {
        let limit = filter.limit.min(LISTED_MAX);
        let wider = JobFilter {
            limit: limit + 1,
            ..filter.clone()
        };
        let pending = self.shared.pending.lock().list(&wider);
        let stored = self.shared.stored_in_state(filter, limit + 1).await?;
        // Where both know a job, the pending one is the newer.
        let merged: BTreeMap<JobId, Job> = stored.into_iter().chain(pending).map(|job| (job.id, job)).collect();
        Ok(Page::cut(merged.into_values().rev().collect(), limit, |last: &Job| {
            last.id
        }))
    }

    async fn logs(&self, id: JobId) -> Result<Option<String>, StoreFailure> {
        Ok(self.job(id).await?.map(|job| job.logs))
    }

    async fn unsettled(&self) -> Result<Vec<Job>, StoreFailure> {
        self.shared.filed().await?;
        let sql = format!("SELECT {} FROM jobs WHERE unsettled = 1 ORDER BY id", row::JOB_COLUMNS);
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&self.shared.readers).await;
        row::jobs(&rows.map_err(StoreFailure::database("reading unsettled jobs"))?)
    }

    async fn project(&self, block: &Projected) -> Result<(), StoreFailure> {
        self.shared.project(block).await
    }

    async fn steps(&self, job: JobId) -> Result<Vec<(JobStep, u64)>, StoreFailure> {
        let rows = sqlx::query("SELECT step, height FROM job_steps WHERE job = $1 ORDER BY height")
            .bind(job.0.to_vec())
            .fetch_all(&self.shared.readers)
            .await
            .map_err(StoreFailure::database("reading a job's steps"))?;
        let step = |row: &sqlx::sqlite::SqliteRow| {
            let step = JobStep::from_name(row.get(0)).ok_or(StoreFailure::Undecodable { what: "job's step" })?;
            Ok((step, row.get::<i64, _>(1) as u64))
        };
        rows.iter().map(step).collect()
    }

    async fn projected_height(&self) -> Result<u64, StoreFailure> {
        row::mark(&mut *self.shared.writer.lock().await, "ledger_height").await
    }

    async fn prune(&self, older_than_ms: u64) -> Result<u64, StoreFailure> {
        let older_than = JobId::new(older_than_ms, [0; 10]);
        let mut pruned = 0;
        loop {
            let deleted = self.shared.delete_jobs(older_than).await?;
            pruned += deleted;
            if deleted < PRUNED_AT_ONCE as u64 {
                self.shared.delete_orphaned_notes(older_than).await?;
                return Ok(pruned);
            }
        }
    }

    async fn flush(&self) -> Result<(), StoreFailure> {
        self.shared.journal.synced(self.shared.journal.position()).await?;
        self.shared.filed().await
    }

    fn lag(&self) -> JournalLag {
        self.shared.lag()
    }
}
