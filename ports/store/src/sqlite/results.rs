//! Notes of results: begun through the journal with their jobs, changed in the tables.

use async_trait::async_trait;
use piecework_model::{FunctionId, JobId};
use sqlx::{AssertSqlSafe, Row, SqliteConnection, sqlite::SqliteRow};

use super::{Sqlite, begin, bulk::Bulk, commit, row};
use crate::{ResultNote, ResultState, Results, StoreFailure, journal::Entry};

/// The first note of a job counts: a job that is run again after a crash owes its result once.
pub(super) const BEGUN: Bulk = Bulk {
    operation: "filing notes of results",
    before: "INSERT INTO job_results (job, function, state, attempts, next_at_ms, expires_at_ms, detail) VALUES ",
    columns: 7,
    after: " ON CONFLICT (job) DO NOTHING",
};

const COLUMNS: &str = "job, function, state, attempts, next_at_ms, expires_at_ms, detail";

fn note(row: &SqliteRow) -> Result<ResultNote, StoreFailure> {
    let number = |column: usize| row.get::<i64, _>(column);
    Ok(ResultNote {
        job: row::job_id(row, 0)?,
        function: FunctionId(row::fixed(row.get(1), "result")?),
        state: ResultState::from_code(number(2)).ok_or(StoreFailure::Undecodable { what: "result" })?,
        attempts: number(3) as u32,
        next_at_ms: number(4) as u64,
        expires_at_ms: row.get::<Option<i64>, _>(5).map(|at_ms| at_ms as u64),
        detail: row.get(6),
    })
}

fn notes(rows: &[SqliteRow]) -> Result<Vec<ResultNote>, StoreFailure> {
    rows.iter().map(note).collect()
}

async fn write(writer: &mut SqliteConnection, note: &ResultNote) -> Result<(), StoreFailure> {
    sqlx::query(
        "UPDATE job_results SET state = $2, attempts = $3, next_at_ms = $4, expires_at_ms = $5, detail = $6 WHERE job = $1",
    )
    .bind(note.job.0.to_vec())
    .bind(note.state as i64)
    .bind(i64::from(note.attempts))
    .bind(note.next_at_ms as i64)
    .bind(note.expires_at_ms.map(|at_ms| at_ms as i64))
    .bind(&note.detail)
    .execute(writer)
    .await
    .map_err(StoreFailure::database("noting a result"))?;
    Ok(())
}

/// Takes a job's output out of wherever it lies.
async fn drop_output(writer: &mut SqliteConnection, job: JobId) -> Result<(), StoreFailure> {
    let failure = || StoreFailure::database("dropping an output");
    sqlx::query("UPDATE job_contents SET output = NULL WHERE id = $1")
        .bind(job.0.to_vec())
        .execute(&mut *writer)
        .await
        .map_err(failure())?;
    let record: Option<Vec<u8>> = sqlx::query_scalar("SELECT record FROM jobs WHERE id = $1")
        .bind(job.0.to_vec())
        .fetch_optional(&mut *writer)
        .await
        .map_err(failure())?;
    let Some(record) = record else { return Ok(()) };
    let Some(record) = row::without_output(&record)? else {
        return Ok(());
    };
    sqlx::query("UPDATE jobs SET record = $2 WHERE id = $1")
        .bind(job.0.to_vec())
        .bind(record)
        .execute(writer)
        .await
        .map_err(failure())?;
    Ok(())
}

#[async_trait]
impl Results for Sqlite {
    fn begin_result(&self, note: ResultNote) -> Result<(), StoreFailure> {
        self.shared.wait_for_space()?;
        self.shared.append(Entry::Result(note)).map(drop)
    }

    async fn note_result(&self, note: &ResultNote, keep_output: bool) -> Result<(), StoreFailure> {
        self.shared.filed().await?;
        let mut writer = self.shared.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        write(&mut transaction, note).await?;
        if !keep_output {
            drop_output(&mut transaction, note.job).await?;
        }
        commit(transaction).await
    }

    async fn result(&self, job: JobId) -> Result<Option<ResultNote>, StoreFailure> {
        // In this order: a note leaves the pending ones only after it is in the tables, and is changed only there.
        if let Some(note) = self.shared.pending.lock().result(job) {
            return Ok(Some(note));
        }
        let found = sqlx::query(AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM job_results WHERE job = $1"
        )))
        .bind(job.0.to_vec())
        .fetch_optional(&self.shared.readers)
        .await
        .map_err(StoreFailure::database("reading a result's note"))?;
        found.as_ref().map(note).transpose()
    }

    async fn due_results(
        &self,
        now_ms: u64,
        but_of: &[FunctionId],
        limit: u32,
    ) -> Result<Vec<ResultNote>, StoreFailure> {
        self.shared.filed().await?;
        let places: Vec<String> = (0..but_of.len()).map(|at| format!("${}", at + 3)).collect();
        let sql = format!(
            "SELECT {COLUMNS} FROM job_results WHERE state = 1 AND next_at_ms <= $1 AND function NOT IN ({}) \
             ORDER BY next_at_ms LIMIT $2",
            places.join(", ")
        );
        let query = sqlx::query(AssertSqlSafe(sql))
            .bind(now_ms as i64)
            .bind(i64::from(limit));
        let query = but_of
            .iter()
            .fold(query, |query, function| query.bind(function.0.to_vec()));
        let rows = query.fetch_all(&self.shared.readers).await;
        notes(&rows.map_err(StoreFailure::database("reading owed results"))?)
    }

    async fn expired_results(&self, now_ms: u64, limit: u32) -> Result<Vec<ResultNote>, StoreFailure> {
        let sql = format!(
            "SELECT {COLUMNS} FROM job_results WHERE expires_at_ms IS NOT NULL AND state IN (0, 3) AND expires_at_ms <= $1 \
             ORDER BY expires_at_ms LIMIT $2"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(now_ms as i64)
            .bind(i64::from(limit))
            .fetch_all(&self.shared.readers)
            .await;
        notes(&rows.map_err(StoreFailure::database("reading expired results"))?)
    }
}
