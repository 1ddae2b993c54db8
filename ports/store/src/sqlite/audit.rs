//! The audit record: inserts and reads; the table itself refuses anything else.

use async_trait::async_trait;
use piecework_model::AccountId;
use sqlx::{AssertSqlSafe, QueryBuilder, Row, Sqlite as Engine, SqliteConnection, sqlite::SqliteRow};

use super::{Sqlite, begin, commit, row::fixed};
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

    async fn prune_audit(&self, of_account_max: u64, now_ms: u64) -> Result<u64, StoreFailure> {
        let mut pruned = 0;
        for whose in [Whose::MADE_BY_IT, Whose::MADE_ABOUT_IT] {
            for account in whose.crowded(self, of_account_max).await? {
                pruned += whose.drop_oldest(self, account, of_account_max / 4 * 3, now_ms).await?;
            }
        }
        Ok(pruned)
    }
}

/// Entries that are deleted in one transaction: others who write wait for milliseconds only.
const DROPPED_AT_ONCE: i64 = 2_000;

/// One of the two parts of an account's entries.
#[derive(Clone, Copy)]
struct Whose {
    /// As in the table of what was dropped.
    code: i64,
    accounts: &'static str,
    entries: &'static str,
}

impl Whose {
    const MADE_BY_IT: Self = Self {
        code: 1,
        accounts: "SELECT actor FROM audit WHERE actor IS NOT NULL GROUP BY actor HAVING COUNT(*) > $1",
        entries: "actor = $1",
    };
    const MADE_ABOUT_IT: Self = Self {
        code: 2,
        accounts: "SELECT owner FROM audit WHERE actor IS NULL GROUP BY owner HAVING COUNT(*) > $1",
        entries: "owner = $1 AND actor IS NULL",
    };

    async fn crowded(self, store: &Sqlite, of_account_max: u64) -> Result<Vec<AccountId>, StoreFailure> {
        let accounts: Vec<Vec<u8>> = sqlx::query_scalar(self.accounts)
            .bind(i64::try_from(of_account_max).unwrap_or(i64::MAX))
            .fetch_all(&store.shared.readers)
            .await
            .map_err(StoreFailure::database("counting the audit record"))?;
        accounts
            .iter()
            .map(|account| fixed(account, ENTRY).map(AccountId))
            .collect()
    }

    /// All but the newest `kept`, and an entry that says so with the first of them.
    async fn drop_oldest(
        self,
        store: &Sqlite,
        account: AccountId,
        kept: u64,
        now_ms: u64,
    ) -> Result<u64, StoreFailure> {
        let failure = || StoreFailure::database("dropping old entries of the audit record");
        let newest = format!(
            "SELECT id FROM audit WHERE {} ORDER BY id DESC LIMIT 1 OFFSET $2",
            self.entries
        );
        let up_to: Option<i64> = sqlx::query_scalar(AssertSqlSafe(newest))
            .bind(account.0.to_vec())
            .bind(i64::try_from(kept).unwrap_or(i64::MAX))
            .fetch_optional(&store.shared.readers)
            .await
            .map_err(failure())?;
        let Some(up_to) = up_to else { return Ok(0) };
        let mut dropped = 0;
        loop {
            let mut writer = store.shared.writer.lock().await;
            let mut transaction = begin(&mut writer).await?;
            let deleted = self
                .drop_some(&mut transaction, account, up_to)
                .await
                .map_err(failure())?;
            if dropped == 0 && deleted > 0 {
                insert(&mut transaction, &told(account, kept, now_ms)).await?;
            }
            commit(transaction).await?;
            dropped += deleted;
            if deleted < DROPPED_AT_ONCE as u64 {
                return Ok(dropped);
            }
        }
    }

    async fn drop_some(
        self,
        writer: &mut SqliteConnection,
        account: AccountId,
        up_to: i64,
    ) -> Result<u64, sqlx::Error> {
        // What the table's trigger asks for.
        sqlx::query(
            "INSERT INTO audit_dropped (account, whose, up_to, entries) VALUES ($1, $2, $3, 0) \
             ON CONFLICT (account, whose) DO UPDATE SET up_to = MAX(up_to, excluded.up_to)",
        )
        .bind(account.0.to_vec())
        .bind(self.code)
        .bind(up_to)
        .execute(&mut *writer)
        .await?;
        let delete = format!(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE {} AND id <= $2 ORDER BY id LIMIT $3)",
            self.entries
        );
        let deleted = sqlx::query(AssertSqlSafe(delete))
            .bind(account.0.to_vec())
            .bind(up_to)
            .bind(DROPPED_AT_ONCE)
            .execute(&mut *writer)
            .await?
            .rows_affected();
        sqlx::query("UPDATE audit_dropped SET entries = entries + $3 WHERE account = $1 AND whose = $2")
            .bind(account.0.to_vec())
            .bind(self.code)
            .bind(deleted as i64)
            .execute(writer)
            .await?;
        Ok(deleted)
    }
}

fn told(account: AccountId, kept: u64, now_ms: u64) -> Change {
    Change {
        at_ms: now_ms,
        actor: None,
        owner: account,
        action: "audit.dropped".to_owned(),
        target: "audit".to_owned(),
        detail: format!("{{\"kept_newest\":{kept}}}"),
    }
}
