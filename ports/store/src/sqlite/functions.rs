//! Functions and their versions.

use async_trait::async_trait;
use piecework_model::{AccountId, Format, FunctionId, FunctionName};
use sqlx::{AssertSqlSafe, Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Sqlite, begin,
    build_logs::PURGED,
    commit, found,
    row::{decode_json, encode_json, fixed},
};
use crate::{Function, FunctionSettings, Functions, Page, Policy, StoreFailure, VERSIONS_OF_ONE_MAX, Version};

const FUNCTION: &str = "function";
const VERSION: &str = "version";
const POLICY_FORMAT: Format = Format::new("policy of a function", 1);
const VERSION_FORMAT: Format = Format::new("record of a function's version", 2);
/// Deleted functions of one answer: who deletes more within the restore window restores by id.
const DELETED_LISTED_MAX: i64 = 1_000;

fn function(row: &SqliteRow) -> Result<Function, StoreFailure> {
    let undecodable = || StoreFailure::Undecodable { what: FUNCTION };
    let small = |column: &str| u32::try_from(row.get::<i64, _>(column)).map_err(|_| undecodable());
    Ok(Function {
        id: FunctionId(fixed(row.get("id"), FUNCTION)?),
        owner: AccountId(fixed(row.get("owner"), FUNCTION)?),
        owner_name: row.get::<&str, _>("owner_name").parse().map_err(|_| undecodable())?,
        name: row.get::<&str, _>("name").parse().map_err(|_| undecodable())?,
        live_version: small("live_version")?,
        public: row.get::<i64, _>("public") != 0,
        concurrency: small("concurrency")?,
        created_at_ms: row.get::<i64, _>("created_at_ms") as u64,
        updated_at_ms: row.get::<i64, _>("updated_at_ms") as u64,
        policy: decode_json(POLICY_FORMAT, row.get("policy"), FUNCTION)?,
    })
}

fn version(row: &SqliteRow) -> Result<Version, StoreFailure> {
    let record: Version = decode_json(VERSION_FORMAT, row.get("record"), VERSION)?;
    Ok(Version {
        sealed_secrets: row.get("sealed_secrets"),
        bundle_bytes: row.get::<i64, _>("bundle_bytes") as u64,
        ..record
    })
}

fn policy_text(policy: &Policy) -> String {
    encode_json(POLICY_FORMAT, policy)
}

async fn insert_function(writer: &mut SqliteConnection, function: &Function) -> Result<(), StoreFailure> {
    sqlx::query(
        "INSERT INTO functions (id, owner, owner_name, name, live_version, public, concurrency, created_at_ms, \
         updated_at_ms, policy) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(function.id.0.to_vec())
    .bind(function.owner.0.to_vec())
    .bind(function.owner_name.as_str())
    .bind(function.name.as_str())
    .bind(i64::from(function.live_version))
    .bind(i64::from(function.public))
    .bind(i64::from(function.concurrency))
    .bind(function.created_at_ms as i64)
    .bind(function.updated_at_ms as i64)
    .bind(policy_text(&function.policy))
    .execute(writer)
    .await
    .map_err(StoreFailure::unique("adding a function", "the function's name"))?;
    Ok(())
}

async fn insert_version(writer: &mut SqliteConnection, version: &Version) -> Result<(), StoreFailure> {
    sqlx::query(
        "INSERT INTO versions (function, version, record, sealed_secrets, code, bundle_bytes) VALUES ($1, $2, $3, $4, $5, $6)",
    )
        .bind(version.function.0.to_vec())
        .bind(i64::from(version.version))
        .bind(encode_json(VERSION_FORMAT, version))
        .bind(version.sealed_secrets.clone())
        .bind(version.code.to_string())
        .bind(version.bundle_bytes as i64)
        .execute(writer)
        .await
        .map_err(StoreFailure::unique("adding a version", "the version"))?;
    Ok(())
}

/// The number after the function's highest; `NotFound` where there is no such function.
async fn next_version(writer: &mut SqliteConnection, function: FunctionId) -> Result<u32, StoreFailure> {
    let highest: Option<i64> = sqlx::query_scalar(
        "SELECT MAX(versions.version) FROM versions JOIN functions ON functions.id = versions.function \
         WHERE versions.function = $1 AND functions.deleted_at_ms IS NULL",
    )
    .bind(function.0.to_vec())
    .fetch_one(writer)
    .await
    .map_err(StoreFailure::database("counting versions"))?;
    let highest = highest.ok_or(StoreFailure::NotFound { what: FUNCTION })?;
    u32::try_from(highest + 1).map_err(|_| StoreFailure::Undecodable { what: VERSION })
}

/// Only to a version that exists.
async fn switch_live(
    writer: &mut SqliteConnection,
    (function, version): (FunctionId, u32),
    now_ms: u64,
) -> Result<(), StoreFailure> {
    let updated = sqlx::query(
        "UPDATE functions SET live_version = $2, updated_at_ms = $3 WHERE id = $1 AND deleted_at_ms IS NULL \
         AND EXISTS (SELECT 1 FROM versions WHERE function = $1 AND version = $2)",
    )
    .bind(function.0.to_vec())
    .bind(i64::from(version))
    .bind(now_ms as i64)
    .execute(writer)
    .await
    .map_err(StoreFailure::database("making a version live"))?;
    found(updated.rows_affected(), VERSION)
}

/// Versions beyond the newest ones that get no calls: neither live nor in the split.
async fn drop_old_versions(writer: &mut SqliteConnection, function: FunctionId) -> Result<(), StoreFailure> {
    let row = sqlx::query("SELECT * FROM functions WHERE id = $1")
        .bind(function.0.to_vec())
        .fetch_one(&mut *writer)
        .await;
    let known = self::function(&row.map_err(StoreFailure::database("reading a function"))?)?;
    let in_split = known
        .policy
        .traffic
        .into_iter()
        .flat_map(|traffic| traffic.weights.into_keys());
    let called: Vec<String> = in_split
        .chain([known.live_version])
        .map(|version| version.to_string())
        .collect();
    let sql = format!(
        "DELETE FROM versions WHERE function = $1 AND version NOT IN ({}) AND version <= \
         (SELECT version FROM versions WHERE function = $1 ORDER BY version DESC LIMIT 1 OFFSET $2)",
        called.join(", ")
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(function.0.to_vec())
        .bind(i64::from(VERSIONS_OF_ONE_MAX))
        .execute(writer)
        .await
        .map_err(StoreFailure::database("removing old versions"))?;
    Ok(())
}

async fn owner_of(writer: &mut SqliteConnection, function: FunctionId) -> Result<AccountId, StoreFailure> {
    let owner: Vec<u8> = sqlx::query_scalar("SELECT owner FROM functions WHERE id = $1")
        .bind(function.0.to_vec())
        .fetch_one(writer)
        .await
        .map_err(StoreFailure::database("reading a function"))?;
    Ok(AccountId(fixed(&owner, FUNCTION)?))
}

/// Takes the versions of the functions that are `meant`, and those functions of which no job is kept, with their rollups.
async fn purge<'q, T>(writer: &mut SqliteConnection, meant: &str, value: T) -> Result<u64, StoreFailure>
where
    T: Clone + Send + sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + 'q,
{
    let jobless = format!(
        "SELECT id FROM functions WHERE {meant} AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.function = functions.id)"
    );
    let versions = format!("DELETE FROM versions WHERE function IN (SELECT id FROM functions WHERE {meant})");
    // The scope of each function and those of its versions, which are longer: between its id and the id with more bytes than
    // a version has. `CROSS`: the functions first, and of each its part of the index, whatever the planner guesses.
    let rollups = format!(
        "DELETE FROM rollups WHERE (scope, step_ms, start_ms) IN (SELECT rollups.scope, rollups.step_ms, \
         rollups.start_ms FROM ({jobless}) AS gone CROSS JOIN rollups WHERE rollups.scope >= gone.id AND rollups.scope < CAST(gone.id || x'ffffffffffffffff' AS BLOB))"
    );
    let functions = format!("DELETE FROM functions WHERE id IN ({jobless})");
    let failed = format!("{PURGED} WHERE {meant})");
    let mut taken = 0;
    for (sql, is_told) in [(versions, true), (failed, false), (rollups, false), (functions, true)] {
        let deleted = sqlx::query(AssertSqlSafe(sql))
            .bind(value.clone())
            .execute(&mut *writer)
            .await
            .map_err(StoreFailure::database("removing functions"))?;
        if is_told {
            taken = deleted.rows_affected().max(taken);
        }
    }
    Ok(taken)
}

#[async_trait]
impl Functions for Sqlite {
    async fn create_function(&self, function: &Function, version: &Version) -> Result<(), StoreFailure> {
        assert_eq!(
            (function.id, function.live_version),
            (version.function, version.version),
            "a function is created with the version that is live"
        );
        let mut writer = self.shared.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        insert_function(&mut transaction, function).await?;
        insert_version(&mut transaction, version).await?;
        self.shared.quotas.check_code(&mut transaction, function.owner).await?;
        commit(transaction).await
    }

    async fn add_version(&self, version: &Version, live: bool) -> Result<u32, StoreFailure> {
        let mut writer = self.shared.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let number = next_version(&mut transaction, version.function).await?;
        let numbered = Version {
            version: number,
            ..version.clone()
        };
        insert_version(&mut transaction, &numbered).await?;
        if live {
            switch_live(&mut transaction, (version.function, number), version.created_at_ms).await?;
        }
        drop_old_versions(&mut transaction, version.function).await?;
        let owner = owner_of(&mut transaction, version.function).await?;
        self.shared.quotas.check_code(&mut transaction, owner).await?;
        commit(transaction).await?;
        Ok(number)
    }

    async fn set_live(&self, function: FunctionId, version: u32, now_ms: u64) -> Result<(), StoreFailure> {
        switch_live(&mut *self.shared.writer.lock().await, (function, version), now_ms).await
    }

    async fn update_settings(
        &self,
        function: FunctionId,
        settings: FunctionSettings,
        now_ms: u64,
    ) -> Result<(), StoreFailure> {
        let updated = sqlx::query(
            "UPDATE functions SET public = COALESCE($2, public), concurrency = COALESCE($3, concurrency), \
             updated_at_ms = $4 WHERE id = $1 AND deleted_at_ms IS NULL",
        )
        .bind(function.0.to_vec())
        .bind(settings.public.map(i64::from))
        .bind(settings.concurrency.map(i64::from))
        .bind(now_ms as i64)
        .execute(&mut *self.shared.writer.lock().await)
        .await
        .map_err(StoreFailure::database("changing a function"))?;
        found(updated.rows_affected(), FUNCTION)
    }

    async fn set_policy(&self, function: FunctionId, policy: &Policy, now_ms: u64) -> Result<(), StoreFailure> {
        let updated =
            sqlx::query("UPDATE functions SET policy = $2, updated_at_ms = $3 WHERE id = $1 AND deleted_at_ms IS NULL")
                .bind(function.0.to_vec())
                .bind(policy_text(policy))
                .bind(now_ms as i64)
                .execute(&mut *self.shared.writer.lock().await)
                .await
                .map_err(StoreFailure::database("changing a function's policy"))?;
        found(updated.rows_affected(), FUNCTION)
    }

    async fn restore_function(&self, function: FunctionId, now_ms: u64) -> Result<bool, StoreFailure> {
        let restored = sqlx::query(
            "UPDATE functions SET deleted_at_ms = NULL, updated_at_ms = $2 WHERE id = $1 AND deleted_at_ms IS NOT NULL",
        )
        .bind(function.0.to_vec())
        .bind(now_ms as i64)
        .execute(&mut *self.shared.writer.lock().await)
        .await
        .map_err(StoreFailure::unique("restoring a function", "the function's name"))?;
        Ok(restored.rows_affected() > 0)
    }

    async fn list_deleted(&self, owner: AccountId, since_ms: u64) -> Result<Vec<(Function, u64)>, StoreFailure> {
        let rows = sqlx::query(
            "SELECT * FROM functions WHERE owner = $1 AND deleted_at_ms >= $2 ORDER BY deleted_at_ms DESC LIMIT $3",
        )
        .bind(owner.0.to_vec())
        .bind(since_ms as i64)
        .bind(DELETED_LISTED_MAX)
        .fetch_all(&self.shared.readers)
        .await
        .map_err(StoreFailure::database("listing deleted functions"))?;
        let with_time = |row| Ok((function(row)?, row.get::<i64, _>("deleted_at_ms") as u64));
        rows.iter().map(with_time).collect()
    }

    async fn delete_function(&self, function: FunctionId, now_ms: u64) -> Result<bool, StoreFailure> {
        let deleted = sqlx::query("UPDATE functions SET deleted_at_ms = $2 WHERE id = $1 AND deleted_at_ms IS NULL")
            .bind(function.0.to_vec())
            .bind(now_ms as i64)
            .execute(&mut *self.shared.writer.lock().await)
            .await
            .map_err(StoreFailure::database("removing a function"))?;
        Ok(deleted.rows_affected() > 0)
    }

    async fn purge_function(&self, function: FunctionId) -> Result<bool, StoreFailure> {
        let mut writer = self.shared.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let purged = purge(
            &mut transaction,
            "id = $1 AND deleted_at_ms IS NOT NULL",
            function.0.to_vec(),
        )
        .await?;
        commit(transaction).await?;
        Ok(purged > 0)
    }

    async fn purge_deleted(&self, before_ms: u64) -> Result<u64, StoreFailure> {
        let mut writer = self.shared.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let purged = purge(&mut transaction, "deleted_at_ms < $1", before_ms as i64).await?;
        commit(transaction).await?;
        Ok(purged)
    }

    async fn function(&self, function: FunctionId) -> Result<Option<Function>, StoreFailure> {
        let ever = self.function_ever(function).await?;
        Ok(ever.and_then(|(function, deleted_at_ms)| deleted_at_ms.is_none().then_some(function)))
    }

    async fn function_ever(&self, id: FunctionId) -> Result<Option<(Function, Option<u64>)>, StoreFailure> {
        let row = sqlx::query("SELECT * FROM functions WHERE id = $1").bind(id.0.to_vec());
        let row = row.fetch_optional(&self.shared.readers).await;
        let Some(row) = row.map_err(StoreFailure::database("reading a function"))? else {
            return Ok(None);
        };
        let deleted_at_ms: Option<i64> = row.get("deleted_at_ms");
        Ok(Some((function(&row)?, deleted_at_ms.map(|time| time as u64))))
    }

    async fn function_by_name(&self, owner: AccountId, name: &FunctionName) -> Result<Option<Function>, StoreFailure> {
        let row = sqlx::query("SELECT * FROM functions WHERE owner = $1 AND name = $2 AND deleted_at_ms IS NULL")
            .bind(owner.0.to_vec())
            .bind(name.as_str())
            .fetch_optional(&self.shared.readers)
            .await;
        row.map_err(StoreFailure::database("reading a function"))?
            .as_ref()
            .map(function)
            .transpose()
    }

    async fn list_functions(
        &self,
        owner: AccountId,
        part: &str,
        after: Option<&FunctionName>,
        limit: u32,
    ) -> Result<Page<Function, FunctionName>, StoreFailure> {
        let rows = sqlx::query(
            "SELECT * FROM functions WHERE owner = $1 AND name > $2 AND deleted_at_ms IS NULL AND \
             instr(name, $4) > 0 ORDER BY name LIMIT $3",
        )
        .bind(owner.0.to_vec())
        .bind(after.map_or("", FunctionName::as_str))
        .bind(i64::from(limit) + 1)
        .bind(part)
        .fetch_all(&self.shared.readers)
        .await
        .map_err(StoreFailure::database("listing functions"))?;
        let functions = rows.iter().map(function).collect::<Result<_, _>>()?;
        Ok(Page::cut(functions, limit, |last: &Function| last.name.clone()))
    }

    async fn versions(&self, function: FunctionId) -> Result<Vec<Version>, StoreFailure> {
        let rows = sqlx::query("SELECT * FROM versions WHERE function = $1 ORDER BY version DESC")
            .bind(function.0.to_vec())
            .fetch_all(&self.shared.readers)
            .await;
        rows.map_err(StoreFailure::database("listing versions"))?
            .iter()
            .map(version)
            .collect()
    }

    async fn version(&self, function: FunctionId, number: u32) -> Result<Option<Version>, StoreFailure> {
        let row = sqlx::query("SELECT * FROM versions WHERE function = $1 AND version = $2")
            .bind(function.0.to_vec())
            .bind(i64::from(number))
            .fetch_optional(&self.shared.readers)
            .await;
        row.map_err(StoreFailure::database("reading a version"))?
            .as_ref()
            .map(version)
            .transpose()
    }
}
