//! The audit record: inserts and reads; the table itself refuses anything else.

use async_trait::async_trait;
use piecework_model::AccountId;
use sqlx::{QueryBuilder, Row, Sqlite as Engine, SqliteConnection, sqlite::SqliteRow};

use super::{Sqlite, row::fixed};
use crate::{Audit, AuditEntry, AuditFilter, Change, Page, StoreFailure};

const ENTRY: &str = "an audit entry";

fn entry(row: &SqliteRow) -> Result<AuditEntry, StoreFailure> {
    let actor: Option<&[u8]> = row.get("actor");
    Ok(AuditEntry {
        id: row.get::<i64, _>("id") as u64,
        change: Change {
            at_ms: row.get::<i64, _>("at_ms") as u64,
            actor: actor.map(|bytes| fixed(bytes, ENTRY).map(AccountId)).transpose()?,
            owner: AccountId(fixed(row.get("owner"), ENTRY)?),
            action: row.get("action"),
            target: row.get("target"),
            detail: row.get("detail"),
        },
    })
}

fn query(filter: &AuditFilter) -> QueryBuilder<Engine> {
    let before = filter
        .before
        .map_or(i64::MAX, |id| i64::try_from(id).unwrap_or(i64::MAX));
    let mut query = QueryBuilder::new("SELECT * FROM audit WHERE id < ");
    query.push_bind(before);
    if let Some(account) = filter.account {
        query.push(" AND (actor = ").push_bind(account.0.to_vec());
        query.push(" OR owner = ").push_bind(account.0.to_vec()).push(")");
    }
    if let Some(action) = &filter.action {
        // Every text with the prefix is below the prefix followed by the highest character.
        query.push(" AND action >= ").push_bind(action.clone());
        query.push(" AND action < ").push_bind(format!("{action}\u{10ffff}"));
    }
    if let Some(target) = &filter.target {
        query.push(" AND target = ").push_bind(target.clone());
    }
    query
        .push(" ORDER BY id DESC LIMIT ")
        .push_bind(i64::from(filter.limit) + 1);
    query
}

pub(super) async fn insert(writer: &mut SqliteConnection, change: &Change) -> Result<(), StoreFailure> {
    sqlx::query("INSERT INTO audit (at_ms, actor, owner, action, target, detail) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(change.at_ms as i64)
        .bind(change.actor.map(|actor| actor.0.to_vec()))
        .bind(change.owner.0.to_vec())
        .bind(&change.action)
        .bind(&change.target)
        .bind(&change.detail)
        .execute(writer)
        .await
        .map_err(StoreFailure::database("recording a change"))?;
    Ok(())
}

#[async_trait]
impl Audit for Sqlite {
    async fn record(&self, change: &Change) -> Result<(), StoreFailure> {
        insert(&mut *self.shared.writer.lock().await, change).await
    }

    async fn audit(&self, filter: &AuditFilter) -> Result<Page<AuditEntry, u64>, StoreFailure> {
        let rows = query(filter).build().fetch_all(&self.shared.readers).await;
        let rows = rows.map_err(StoreFailure::database("reading the audit record"))?;
        let entries = rows.iter().map(entry).collect::<Result<_, _>>()?;
        Ok(Page::cut(entries, filter.limit, |last: &AuditEntry| last.id))
    }
}
