//! Reading rows back into records.

use piecework_model::{AccountId, JobId};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use crate::{Job, JobState, StoreFailure};

/// First byte of a stored job record.
const RECORD_FORMAT: u8 = 1;

/// Columns that [`job`] reads, in its order.
pub(super) const JOB_COLUMNS: &str = "jobs.record, jobs.state, jobs.provider, jobs.paid_height, jobs.commission_ucr";

/// Bytes of fixed length: an id, a digest.
pub(super) fn fixed<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], StoreFailure> {
    bytes.try_into().map_err(|_| StoreFailure::Undecodable { what })
}

/// Output and logs up to this size together stay in the record; larger ones have a row of their own, so that lists do not
/// read them.
const INLINE_BYTES_MAX: usize = 512;

fn contents_bytes(job: &Job) -> usize {
    job.output.as_ref().map_or(0, Vec::len) + job.logs.len()
}

/// Whether output and logs go into a row of their own.
pub(super) fn has_contents_row(job: &Job) -> bool {
    contents_bytes(job) > INLINE_BYTES_MAX
}

/// A job's record for the tables. Output and logs are the last fields of the encoding, and cut off where they have a row.
pub(super) fn encode_job(job: &Job) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + job.weight());
    bytes.push(RECORD_FORMAT);
    borsh::to_writer(&mut bytes, job).expect("a vector accepts every byte");
    if has_contents_row(job) {
        let lengths = if job.output.is_some() { 9 } else { 5 };
        bytes.truncate(bytes.len() - contents_bytes(job) - lengths);
        // No output, no logs.
        bytes.extend_from_slice(&[0; 5]);
    }
    bytes
}

fn decode_job(bytes: &[u8]) -> Result<Job, StoreFailure> {
    let undecodable = StoreFailure::Undecodable { what: "job" };
    match bytes.split_first() {
        Some((&RECORD_FORMAT, record)) => borsh::from_slice(record).map_err(|_| undecodable),
        _ => Err(undecodable),
    }
}

/// A stored record without the output in it; `None` where there is none.
pub(super) fn without_output(record: &[u8]) -> Result<Option<Vec<u8>>, StoreFailure> {
    let mut job = decode_job(record)?;
    Ok(job.output.take().map(|_| encode_job(&job)))
}

/// A job from [`JOB_COLUMNS`], without output and logs that have a row of their own.
pub(super) fn job(row: &SqliteRow) -> Result<Job, StoreFailure> {
    let mut job = decode_job(row.get(0))?;
    job.state = JobState::from_code(row.get(1)).ok_or(StoreFailure::Undecodable { what: "job" })?;
    if let Some(provider) = row.get::<Option<&[u8]>, _>(2) {
        job.provider = Some(AccountId(fixed(provider, "job")?));
    }
    if let Some(height) = row.get::<Option<i64>, _>(3) {
        job.paid = true;
        job.paid_height = Some(height as u64);
        job.commission_ucr = row.get::<Option<i64>, _>(4).map(|ucr| ucr as u64);
    }
    Ok(job)
}

/// Jobs as lists give them: without output and logs.
pub(super) fn jobs(rows: &[SqliteRow]) -> Result<Vec<Job>, StoreFailure> {
    let without_contents = |row| {
        Ok(Job {
            output: None,
            logs: String::new(),
            ..job(row)?
        })
    };
    rows.iter().map(without_contents).collect()
}

pub(super) fn job_id(row: &SqliteRow, column: usize) -> Result<JobId, StoreFailure> {
    Ok(JobId(fixed(row.get(column), "job")?))
}

/// One of the single numbers.
pub(super) async fn mark(connection: &mut SqliteConnection, name: &str) -> Result<u64, StoreFailure> {
    let value: i64 = sqlx::query_scalar("SELECT value FROM marks WHERE name = $1")
        .bind(name)
        .fetch_one(connection)
        .await
        .map_err(StoreFailure::database("reading a mark"))?;
    Ok(value as u64)
}

pub(super) async fn set_mark(connection: &mut SqliteConnection, name: &str, value: u64) -> Result<(), StoreFailure> {
    sqlx::query("UPDATE marks SET value = $2 WHERE name = $1")
        .bind(name)
        .bind(value as i64)
        .execute(connection)
        .await
        .map_err(StoreFailure::database("writing a mark"))?;
    Ok(())
}
