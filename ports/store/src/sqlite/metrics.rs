//! Rollups: kept up in the transaction that files the jobs, read as points.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use piecework_model::FunctionId;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Sqlite, bulk::Bulk, row::fixed};
use crate::{
    HOURS_KEPT_MS, Job, MINUTES_KEPT_MS, MetricScope, Metrics, POINTS_MAX, Point, StoreFailure,
    rollup::{HOUR_MS, MINUTE_MS, Rollup, RollupKey, STEPS_MS, keys_of},
};

/// Rollups held in memory between batches: those of some thousand functions at work, below 50 MiB.
const CACHED_MAX: usize = 20_000;

const READ: Bulk = Bulk {
    operation: "reading rollups",
    before: "SELECT scope, step_ms, start_ms, count, errors, cold, cpu_us, duration_us, price_ucr, memory_peak_bytes, \
             durations FROM rollups WHERE (scope, step_ms, start_ms) IN (VALUES ",
    columns: 3,
    after: ")",
};

const WRITE: Bulk = Bulk {
    operation: "writing rollups",
    before: "INSERT INTO rollups (scope, step_ms, start_ms, count, errors, cold, cpu_us, duration_us, price_ucr, \
             memory_peak_bytes, durations) VALUES ",
    columns: 11,
    after: " ON CONFLICT (scope, step_ms, start_ms) DO UPDATE SET count = excluded.count, errors = excluded.errors, \
             cold = excluded.cold, cpu_us = excluded.cpu_us, duration_us = excluded.duration_us, \
             price_ucr = excluded.price_ucr, memory_peak_bytes = excluded.memory_peak_bytes, \
             durations = excluded.durations",
};

/// Rollups as the tables have them; only the filer writes them, so what is here is true until a transaction fails.
#[derive(Default)]
pub(super) struct RollupCache {
    rollups: HashMap<RollupKey, Rollup>,
}

impl RollupCache {
    /// After a failed transaction the tables do not have what is here.
    pub(super) fn forget(&mut self) {
        self.rollups.clear();
    }

    /// Adds finished jobs, each once.
    pub(super) async fn add(&mut self, writer: &mut SqliteConnection, jobs: &[Arc<Job>]) -> Result<(), StoreFailure> {
        let mut news: BTreeMap<RollupKey, Rollup> = BTreeMap::new();
        for job in jobs {
            for key in keys_of(job) {
                news.entry(key).or_default().add(job);
            }
        }
        if self.rollups.len() + news.len() > CACHED_MAX {
            self.rollups.clear();
        }
        self.load(writer, news.keys()).await?;
        for (key, rollup) in &news {
            self.rollups.entry(*key).or_default().merge(rollup);
        }
        let keys: Vec<RollupKey> = news.into_keys().collect();
        self.write(writer, &keys).await
    }

    async fn load(
        &mut self,
        writer: &mut SqliteConnection,
        keys: impl Iterator<Item = &RollupKey>,
    ) -> Result<(), StoreFailure> {
        let unknown: Vec<RollupKey> = keys.filter(|key| !self.rollups.contains_key(key)).copied().collect();
        let rows = READ.fetch(writer, &unknown, |row, key| {
            row.blob(RollupKey::scope_bytes(key.scope))
                .number(key.step_ms)
                .number(key.start_ms);
        });
        for row in rows.await? {
            self.rollups.insert(key(&row)?, rollup(&row)?);
        }
        Ok(())
    }

    async fn write(&self, writer: &mut SqliteConnection, keys: &[RollupKey]) -> Result<(), StoreFailure> {
        WRITE
            .run(writer, keys, |row, key| {
                let rollup = &self.rollups[key];
                row.blob(RollupKey::scope_bytes(key.scope))
                    .number(key.step_ms)
                    .number(key.start_ms)
                    .number(rollup.count)
                    .number(rollup.errors)
                    .number(rollup.cold)
                    .number(rollup.cpu_us)
                    .number(rollup.duration_us)
                    .number(rollup.price_ucr)
                    .number(rollup.memory_peak_bytes)
                    .blob(rollup.encode_durations());
            })
            .await?;
        Ok(())
    }
}

fn key(row: &SqliteRow) -> Result<RollupKey, StoreFailure> {
    let scope: &[u8] = row.get(0);
    Ok(RollupKey {
        scope: scope_of(scope)?,
        step_ms: row.get::<i64, _>(1) as u64,
        start_ms: row.get::<i64, _>(2) as u64,
    })
}

/// Nothing, a function's id, or that and a version.
fn scope_of(bytes: &[u8]) -> Result<MetricScope, StoreFailure> {
    const ID_BYTES: usize = size_of::<FunctionId>();
    Ok(match bytes.split_at_checked(ID_BYTES) {
        None if bytes.is_empty() => MetricScope::System,
        Some((id, [])) => MetricScope::Function(FunctionId(fixed(id, "rollup")?)),
        Some((id, version)) => MetricScope::Version(
            FunctionId(fixed(id, "rollup")?),
            u32::from_be_bytes(fixed(version, "rollup")?),
        ),
        None => return Err(StoreFailure::Undecodable { what: "rollup" }),
    })
}

fn rollup(row: &SqliteRow) -> Result<Rollup, StoreFailure> {
    let number = |column: usize| row.get::<i64, _>(column) as u64;
    Ok(Rollup {
        count: number(3),
        errors: number(4),
        cold: number(5),
        cpu_us: number(6),
        duration_us: number(7),
        price_ucr: number(8),
        memory_peak_bytes: number(9),
        durations: Rollup::decode_durations(row.get(10)).ok_or(StoreFailure::Undecodable { what: "rollup" })?,
    })
}

/// The coarsest rollups that make up a step exactly.
fn source_of(step_ms: u64) -> u64 {
    let fitting = STEPS_MS
        .into_iter()
        .rev()
        .find(|source| step_ms.is_multiple_of(*source));
    fitting.unwrap_or(MINUTE_MS)
}

#[async_trait]
impl Metrics for Sqlite {
    async fn points(
        &self,
        scope: MetricScope,
        from_ms: u64,
        to_ms: u64,
        step_ms: u64,
    ) -> Result<Vec<Point>, StoreFailure> {
        let step_ms = step_ms.max(1).div_ceil(MINUTE_MS).saturating_mul(MINUTE_MS);
        let source_ms = source_of(step_ms);
        let rows = sqlx::query(
            "SELECT scope, step_ms, start_ms, count, errors, cold, cpu_us, duration_us, price_ucr, memory_peak_bytes, \
             durations FROM rollups WHERE scope = $1 AND step_ms = $2 AND start_ms >= $3 AND start_ms < $4 \
             ORDER BY start_ms LIMIT $5",
        )
        .bind(RollupKey::scope_bytes(scope))
        .bind(source_ms as i64)
        .bind(i64::try_from(from_ms - from_ms % step_ms).unwrap_or(i64::MAX))
        .bind(i64::try_from(to_ms).unwrap_or(i64::MAX))
        .bind(
            (POINTS_MAX as u64)
                .saturating_mul(step_ms / source_ms)
                .min(SOURCE_ROWS_MAX) as i64,
        )
        .fetch_all(&self.shared.readers)
        .await
        .map_err(StoreFailure::database("reading metrics"))?;
        merge(&rows, step_ms)
    }

    async fn prune_points(&self, now_ms: u64) -> Result<u64, StoreFailure> {
        let mut pruned = 0;
        for (step_ms, kept_ms) in [(MINUTE_MS, MINUTES_KEPT_MS), (HOUR_MS, HOURS_KEPT_MS)] {
            loop {
                let deleted = sqlx::query(
                    "DELETE FROM rollups WHERE (scope, step_ms, start_ms) IN (SELECT scope, step_ms, start_ms FROM rollups \
                     WHERE step_ms = $1 AND start_ms < $2 LIMIT $3)",
                )
                .bind(step_ms as i64)
                .bind(i64::try_from(now_ms.saturating_sub(kept_ms)).unwrap_or(i64::MAX))
                .bind(PRUNED_AT_ONCE as i64)
                .execute(&mut *self.shared.writer.lock().await)
                .await
                .map_err(StoreFailure::database("removing old metrics"))?
                .rows_affected();
                pruned += deleted;
                if deleted < PRUNED_AT_ONCE {
                    break;
                }
            }
        }
        Ok(pruned)
    }
}

/// Rows of one transaction: others who write wait for milliseconds only.
const PRUNED_AT_ONCE: u64 = 2_000;

/// Rollups read for one answer: a week of minutes ten times over.
const SOURCE_ROWS_MAX: u64 = 100_000;

fn merge(rows: &[SqliteRow], step_ms: u64) -> Result<Vec<Point>, StoreFailure> {
    let mut merged: BTreeMap<u64, Rollup> = BTreeMap::new();
    for row in rows {
        let start_ms = key(row)?.start_ms;
        merged
            .entry(start_ms - start_ms % step_ms)
            .or_default()
            .merge(&rollup(row)?);
    }
    Ok(merged
        .iter()
        .take(POINTS_MAX)
        .map(|(start_ms, rollup)| rollup.point(*start_ms))
        .collect())
}
