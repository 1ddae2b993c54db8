//! Reading rows back into records.

use piecework_model::{AccountId, Format, JobId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use crate::{AcceptedJob, Job, JobState, StoreFailure};

/// Its version is the record's first byte: this kind had versions before the others.
const JOB: Format = Format::new("record of a job", 1);
const ACCEPTED: Format = Format::new("record of an accepted job", 1);
/// Those in JSON say it in a field of this name; fields may be added within a version.
const FORMAT_FIELD: &str = "format";

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
    bytes.push(JOB.newest());
    borsh::to_writer(&mut bytes, job).expect("a vector accepts every byte");
    if has_contents_row(job) {
        let lengths = if job.output.is_some() { 9 } else { 5 };
        bytes.truncate(bytes.len() - contents_bytes(job) - lengths);
        // No output, no logs.
        bytes.extend_from_slice(&[0; 5]);
    }
    bytes
}

pub(super) fn decode_job(bytes: &[u8]) -> Result<Job, StoreFailure> {
    let undecodable = StoreFailure::Undecodable { what: "job" };
    let Some((version, record)) = bytes.split_first() else {
        return Err(undecodable);
    };
    match JOB.check(u32::from(*version))? {
        0 => Err(undecodable),
        _ => borsh::from_slice(record).map_err(|_| undecodable),
    }
}

pub(super) fn encode_accepted(job: &AcceptedJob) -> Vec<u8> {
    let mut bytes = ACCEPTED.prefix().to_vec();
    borsh::to_writer(&mut bytes, job).expect("a vector accepts every byte");
    bytes
}

/// Version 0 has the fields of version 1 and no prefix.
pub(super) fn decode_accepted(bytes: &[u8]) -> Result<AcceptedJob, StoreFailure> {
    let (_, record) = ACCEPTED.split(bytes)?;
    borsh::from_slice(record).map_err(|_| StoreFailure::Undecodable { what: "accepted job" })
}

/// A record as JSON with its version in it.
pub(super) fn encode_json<T: Serialize>(format: Format, record: &T) -> String {
    let mut value = serde_json::to_value(record).expect("a record is valid JSON");
    let fields = value.as_object_mut().expect("a record has fields");
    fields.insert(FORMAT_FIELD.to_owned(), format.newest().into());
    value.to_string()
}

/// Version 0, without the field, has the other fields of version 1.
pub(super) fn decode_json<T: DeserializeOwned>(
    format: Format,
    text: &str,
    what: &'static str,
) -> Result<T, StoreFailure> {
    let undecodable = |_| StoreFailure::Undecodable { what };
    let head: Head = serde_json::from_str(text).map_err(undecodable)?;
    format.check(head.format)?;
    serde_json::from_str(text).map_err(undecodable)
}

/// What all records in JSON have in common.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    format: u32,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Policy,
        samples::{accepted, account, finished, function_id},
    };

    const POLICY: Format = Format::new("policy of a function", 1);

    fn newer<T>(read: Result<T, StoreFailure>, version: &str) {
        let failure = read.map(drop).expect_err("newer");
        assert_eq!(failure.code(), "store.newer");
        assert!(failure.to_string().contains(version), "{failure}");
    }

    #[test]
    fn records_from_before_versions_are_read_and_newer_ones_refused() {
        let job = accepted(9, function_id(1), account(1));
        let bytes = encode_accepted(&job);
        assert_eq!(decode_accepted(&bytes).expect("read"), job);
        assert_eq!(decode_accepted(&bytes[2..]).expect("without a version"), job);
        newer(decode_accepted(&[&[bytes[0], 2], &bytes[2..]].concat()), "version 2");

        let job = finished(9, function_id(1), account(1));
        let bytes = encode_job(&job);
        assert_eq!(decode_job(&bytes).expect("read").id, job.id);
        newer(decode_job(&[&[2], &bytes[1..]].concat()), "version 2");

        let policy = Policy {
            budget_ucr: Some(7),
            ..Policy::default()
        };
        let text = encode_json(POLICY, &policy);
        assert!(text.contains(r#""format":1"#), "{text}");
        let read = |text: &str| decode_json::<Policy>(POLICY, text, "function");
        assert_eq!(read(&text).expect("read"), policy);
        assert_eq!(read(r#"{"budget_ucr":7}"#).expect("without a version"), policy);
        assert_eq!(read("{}").expect("of the first migration"), Policy::default());
        newer(read(r#"{"format":2,"budget_ucr":"seven"}"#), "version 2");
    }
}
