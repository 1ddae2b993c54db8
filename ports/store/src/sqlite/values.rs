//! Small values by name.

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::{Sqlite, begin, commit, project};
use crate::{Page, Put, StoreFailure, Values};

/// Removes a value and gives what it was.
pub(super) async fn take(
    writer: &mut SqliteConnection,
    space: &str,
    key: &str,
) -> Result<Option<Vec<u8>>, StoreFailure> {
    sqlx::query_scalar("DELETE FROM kept_values WHERE space = $1 AND key = $2 RETURNING value")
        .bind(space)
        .bind(key)
        .fetch_optional(writer)
        .await
        .map_err(StoreFailure::database("taking a value"))
}

#[async_trait]
impl Values for Sqlite {
    async fn value(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreFailure> {
        sqlx::query_scalar("SELECT value FROM kept_values WHERE space = $1 AND key = $2")
            .bind(space)
            .bind(key)
            .fetch_optional(&self.shared.readers)
            .await
            .map_err(StoreFailure::database("reading a value"))
    }

    async fn put_value(&self, space: &str, key: &str, value: &[u8]) -> Result<(), StoreFailure> {
        sqlx::query(
            "INSERT INTO kept_values (space, key, value) VALUES ($1, $2, $3) \
             ON CONFLICT (space, key) DO UPDATE SET value = excluded.value",
        )
        .bind(space)
        .bind(key)
        .bind(value)
        .execute(&mut *self.shared.writer.lock().await)
        .await
        .map_err(StoreFailure::database("writing a value"))?;
        Ok(())
    }

    async fn insert_value(&self, space: &str, key: &str, value: &[u8]) -> Result<(), StoreFailure> {
        sqlx::query("INSERT INTO kept_values (space, key, value) VALUES ($1, $2, $3)")
            .bind(space)
            .bind(key)
            .bind(value)
            .execute(&mut *self.shared.writer.lock().await)
            .await
            .map_err(StoreFailure::unique("adding a value", "the key"))?;
        Ok(())
    }

    async fn take_value(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreFailure> {
        take(&mut *self.shared.writer.lock().await, space, key).await
    }

    async fn list_values(
        &self,
        space: &str,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<(String, Vec<u8>), String>, StoreFailure> {
        // Every key with the prefix is below the prefix followed by the highest character.
        let rows = sqlx::query(
            "SELECT key, value FROM kept_values WHERE space = $1 AND key > $2 AND key >= $3 AND key < $4 \
             ORDER BY key LIMIT $5",
        )
        .bind(space)
        .bind(after.unwrap_or(""))
        .bind(prefix)
        .bind(format!("{prefix}\u{10ffff}"))
        .bind(i64::from(limit) + 1)
        .fetch_all(&self.shared.readers)
        .await
        .map_err(StoreFailure::database("listing values"))?;
        let values = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        Ok(Page::cut(values, limit, |(key, _): &(String, Vec<u8>)| key.clone()))
    }

    async fn crowded_spaces(&self, prefix: &str, over: u64) -> Result<Vec<(String, u64)>, StoreFailure> {
        let rows = sqlx::query(
            "SELECT space, COUNT(*) FROM kept_values WHERE space >= $1 AND space < $2 GROUP BY space HAVING COUNT(*) > $3",
        )
        .bind(prefix)
        .bind(format!("{prefix}\u{10ffff}"))
        .bind(i64::try_from(over).unwrap_or(i64::MAX))
        .fetch_all(&self.shared.readers)
        .await
        .map_err(StoreFailure::database("counting values"))?;
        let counted = rows.iter().map(|row| (row.get(0), row.get::<i64, _>(1) as u64));
        Ok(counted.collect())
    }

    async fn replace_values(&self, takes: &[(String, String)], puts: &[Put]) -> Result<(), StoreFailure> {
        let mut writer = self.shared.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        project::REMOVED
            .run(&mut transaction, takes, |row, (space, key)| {
                row.text(space.clone()).text(key.clone());
            })
            .await?;
        project::write_values(&mut transaction, puts).await?;
        commit(transaction).await
    }
}
