//! Build logs: with their versions, and the last ones of deploys that failed.

use std::collections::BTreeSet;

use async_trait::async_trait;
use piecework_model::{AccountId, FunctionId, FunctionName};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Sqlite, begin, commit, row::fixed};
use crate::{BuildLog, BuildLogs, FAILED_BUILDS_MAX, FAILED_BUILDS_OF_NAME_MAX, Keeping, Kept, StoreFailure};

const BUILD_LOG: &str = "build log";
/// Of what an account's logs may take, the part of its build logs: those of its jobs have the rest.
const SHARE: u64 = 4;

fn build_log(row: &SqliteRow) -> Result<BuildLog, StoreFailure> {
    let undecodable = || StoreFailure::Undecodable { what: BUILD_LOG };
    let version = match (
        row.get::<Option<&[u8]>, _>("function"),
        row.get::<Option<i64>, _>("version"),
    ) {
        (Some(function), Some(version)) => {
            let number = u32::try_from(version).map_err(|_| undecodable())?;
            Some((FunctionId(fixed(function, BUILD_LOG)?), number))
        }
        (_, _) => None,
    };
    Ok(BuildLog {
        owner: AccountId(fixed(row.get("owner"), BUILD_LOG)?),
        name: row.get::<&str, _>("name").parse().map_err(|_| undecodable())?,
        version,
        at_ms: row.get::<i64, _>("at_ms") as u64,
        text: row.get("text"),
    })
}

/// Nothing where the version is gone by now.
async fn insert(writer: &mut SqliteConnection, log: &BuildLog) -> Result<(), StoreFailure> {
    sqlx::query(
        "INSERT INTO build_logs (owner, name, function, version, at_ms, text) SELECT $1, $2, $3, $4, $5, $6 \
         WHERE $4 IS NULL OR EXISTS (SELECT 1 FROM versions WHERE function = $3 AND version = $4) \
         ON CONFLICT DO NOTHING",
    )
    .bind(log.owner.0.to_vec())
    .bind(log.name.as_str())
    .bind(log.version.map(|(function, _)| function.0.to_vec()))
    .bind(log.version.map(|(_, number)| i64::from(number)))
    .bind(log.at_ms as i64)
    .bind(&log.text)
    .execute(writer)
    .await
    .map_err(StoreFailure::database("keeping a build log"))?;
    Ok(())
}

/// Of deploys that failed, those beyond the newest of a name, and of all names.
async fn drop_failed(writer: &mut SqliteConnection, log: &BuildLog) -> Result<(), StoreFailure> {
    let of_name = Some(log.name.as_str());
    for (name, most) in [(of_name, FAILED_BUILDS_OF_NAME_MAX), (None, FAILED_BUILDS_MAX)] {
        sqlx::query(
            "DELETE FROM build_logs WHERE owner = $1 AND version IS NULL AND ($2 IS NULL OR name = $2) AND id NOT IN \
             (SELECT id FROM build_logs WHERE owner = $1 AND version IS NULL AND ($2 IS NULL OR name = $2) \
             ORDER BY id DESC LIMIT $3)",
        )
        .bind(log.owner.0.to_vec())
        .bind(name)
        .bind(i64::from(most))
        .execute(&mut *writer)
        .await
        .map_err(StoreFailure::database("dropping old build logs"))?;
    }
    Ok(())
}

/// Those beyond the newest that the account has room for.
async fn drop_oldest(writer: &mut SqliteConnection, owner: AccountId, most: u64) -> Result<(), StoreFailure> {
    let failure = || StoreFailure::database("dropping an account's oldest build logs");
    let rows =
        sqlx::query("SELECT id, length(CAST(text AS BLOB)) AS bytes FROM build_logs WHERE owner = $1 ORDER BY id DESC")
            .bind(owner.0.to_vec())
            .fetch_all(&mut *writer)
            .await
            .map_err(failure())?;
    let mut used = 0;
    let over = rows.iter().find(|row| {
        used += row.get::<i64, _>("bytes") as u64;
        used > most
    });
    let Some(first_over) = over.map(|row| row.get::<i64, _>("id")) else {
        return Ok(());
    };
    sqlx::query("DELETE FROM build_logs WHERE owner = $1 AND id <= $2")
        .bind(owner.0.to_vec())
        .bind(first_over)
        .execute(writer)
        .await
        .map_err(failure())?;
    Ok(())
}

/// Failed deploys of functions that are removed for good.
pub(super) const PURGED: &str =
    "DELETE FROM build_logs WHERE version IS NULL AND (owner, name) IN (SELECT owner, name FROM functions";

#[async_trait]
impl BuildLogs for Sqlite {
    async fn put_build_log(&self, log: &BuildLog) -> Result<(), StoreFailure> {
        let most = self.quotas(log.owner).get(Kept::Logs);
        let mut writer = self.shared.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        insert(&mut transaction, log).await?;
        if log.version.is_none() {
            drop_failed(&mut transaction, log).await?;
        }
        drop_oldest(&mut transaction, log.owner, most / SHARE).await?;
        let account = BTreeSet::from([log.owner]);
        self.shared.quotas.drop_oldest(&mut transaction, account).await?;
        commit(transaction).await
    }

    async fn build_log(&self, function: FunctionId, version: u32) -> Result<Option<BuildLog>, StoreFailure> {
        let row = sqlx::query("SELECT * FROM build_logs WHERE function = $1 AND version = $2")
            .bind(function.0.to_vec())
            .bind(i64::from(version))
            .fetch_optional(&self.shared.readers)
            .await;
        row.map_err(StoreFailure::database("reading a build log"))?
            .as_ref()
            .map(build_log)
            .transpose()
    }

    async fn failed_builds(
        &self,
        owner: AccountId,
        name: Option<&FunctionName>,
    ) -> Result<Vec<BuildLog>, StoreFailure> {
        let rows = sqlx::query(
            "SELECT * FROM build_logs WHERE owner = $1 AND version IS NULL AND ($2 IS NULL OR name = $2) ORDER BY id DESC",
        )
        .bind(owner.0.to_vec())
        .bind(name.map(FunctionName::as_str))
        .fetch_all(&self.shared.readers)
        .await;
        rows.map_err(StoreFailure::database("listing failed deploys"))?
            .iter()
            .map(build_log)
            .collect()
    }
}
