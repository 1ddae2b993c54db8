//! What accounts keep, and the most they may: counted by the tables' own triggers, enforced in the transaction that adds.

use std::collections::{BTreeSet, HashMap, HashSet};

use async_trait::async_trait;
use parking_lot::RwLock;
use piecework_model::{AccountId, Digest};
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::{Sqlite, begin, commit, row::fixed};
use crate::{Amounts, Keeping, Kept, StoreFailure};

const OUTPUT_DROPPED: i64 = 1;
pub(super) const LOGS_DROPPED: i64 = 2;
/// In place of logs that were dropped.
pub(super) const NO_LOGS: &str = "[these logs were dropped: the account's logs took more room than they may]\n";
/// Of one statement; what is above a quota is mostly what the last batch added.
const DROPPED_AT_ONCE: i64 = 256;

/// A functions' owner's distinct bundles.
const BUNDLES: &str = "SELECT COALESCE(SUM(bytes), 0) FROM (SELECT MAX(versions.bundle_bytes) AS bytes FROM versions \
                       JOIN functions ON functions.id = versions.function WHERE functions.owner = $1 GROUP BY versions.code)";
const IMAGES: &str = "SELECT DISTINCT versions.code FROM versions JOIN functions ON functions.id = versions.function \
                      WHERE json_extract(versions.record, '$.language') = 'image' AND ($1 IS NULL OR functions.owner = $1)";
const VERSIONS: &str = "SELECT COUNT(*) FROM versions JOIN functions ON functions.id = versions.function \
                        WHERE functions.owner = $1";
/// Those that were deleted and whose versions are gone are left for their jobs' sake.
const FUNCTIONS: &str = "SELECT COUNT(*) FROM functions WHERE owner = $1 AND (deleted_at_ms IS NULL \
                         OR EXISTS (SELECT 1 FROM versions WHERE versions.function = functions.id))";
const INPUTS: &str = "SELECT COALESCE(SUM(length(accepted.record)), 0) FROM accepted JOIN jobs ON jobs.id = accepted.id \
                      WHERE jobs.developer = $1";

/// The quotas in force, in memory as in their table.
pub(super) struct Quotas {
    default: Amounts,
    set: RwLock<HashMap<AccountId, Vec<(Kept, u64)>>>,
}

impl Quotas {
    pub(super) async fn read(writer: &mut SqliteConnection, default: Amounts) -> Result<Self, StoreFailure> {
        let rows = sqlx::query("SELECT account, kind, most FROM quotas")
            .fetch_all(writer)
            .await;
        let mut set: HashMap<AccountId, Vec<(Kept, u64)>> = HashMap::new();
        for row in rows.map_err(StoreFailure::database("reading quotas"))? {
            let kept = Kept::from_code(row.get(1)).ok_or(StoreFailure::Undecodable { what: "quota" })?;
            let of_account = set.entry(AccountId(fixed(row.get(0), "quota")?)).or_default();
            of_account.push((kept, row.get::<i64, _>(2) as u64));
        }
        Ok(Self {
            default,
            set: RwLock::new(set),
        })
    }

    fn of(&self, account: AccountId) -> Amounts {
        let set = self.set.read();
        let own = set.get(&account).into_iter().flatten();
        own.fold(self.default, |amounts, (kept, most)| amounts.with(*kept, *most))
    }

    /// Drops what these accounts keep too much of, the oldest first: never refuses, since what is new was paid for.
    pub(super) async fn drop_oldest(
        &self,
        writer: &mut SqliteConnection,
        accounts: BTreeSet<AccountId>,
    ) -> Result<(), StoreFailure> {
        for account in accounts {
            let (used, most) = (counted(&mut *writer, account).await?, self.of(account));
            let over = |kept: Kept| used.get(kept).saturating_sub(most.get(kept));
            if over(Kept::Outputs) > 0 {
                drop_contents(writer, (account, &OUTPUTS), over(Kept::Outputs)).await?;
            }
            if over(Kept::Logs) > 0 {
                drop_contents(writer, (account, &LOGS), over(Kept::Logs)).await?;
            }
            if over(Kept::Records) > 0 {
                drop_records(writer, account, over(Kept::Records)).await?;
            }
        }
        Ok(())
    }

    /// `OverQuota` where the account keeps more functions, versions or bundles than it may.
    pub(super) async fn check_code(
        &self,
        writer: &mut SqliteConnection,
        account: AccountId,
    ) -> Result<(), StoreFailure> {
        let most = self.of(account);
        for (kept, sql) in [
            (Kept::Functions, FUNCTIONS),
            (Kept::Versions, VERSIONS),
            (Kept::Bundles, BUNDLES),
        ] {
            let (used, most) = (number(&mut *writer, sql, account).await?, most.get(kept));
            if used > most {
                return Err(StoreFailure::OverQuota { kept, used, most });
            }
        }
        Ok(())
    }
}

async fn number(
    connection: impl sqlx::SqliteExecutor<'_>,
    sql: &'static str,
    account: AccountId,
) -> Result<u64, StoreFailure> {
    let number: i64 = sqlx::query_scalar(sql)
        .bind(account.0.to_vec())
        .fetch_one(connection)
        .await
        .map_err(StoreFailure::database("counting what an account keeps"))?;
    Ok(u64::try_from(number).unwrap_or(0))
}

/// What the triggers count.
async fn counted(connection: impl sqlx::SqliteExecutor<'_>, account: AccountId) -> Result<Amounts, StoreFailure> {
    let rows = sqlx::query("SELECT kind, bytes FROM usage WHERE account = $1")
        .bind(account.0.to_vec())
        .fetch_all(connection)
        .await
        .map_err(StoreFailure::database("reading what an account keeps"))?;
    let mut amounts = Amounts::default();
    for row in rows {
        let kept = Kept::from_code(row.get(0)).ok_or(StoreFailure::Undecodable { what: "usage" })?;
        amounts.set(kept, u64::try_from(row.get::<i64, _>(1)).unwrap_or(0));
    }
    Ok(amounts)
}

/// How one kind of contents is found and dropped.
struct Contents {
    oldest: &'static str,
    dropped: &'static str,
    /// Whether the job's result has to say so.
    is_result: bool,
}

const OUTPUTS: Contents = Contents {
    oldest: "SELECT id, length(output) FROM job_contents WHERE developer = $1 AND output IS NOT NULL ORDER BY id LIMIT $2",
    dropped: "output = NULL",
    is_result: true,
};
const LOGS: Contents = Contents {
    oldest: "SELECT id, length(CAST(logs AS BLOB)) FROM job_contents WHERE developer = $1 AND logs <> '' ORDER BY id LIMIT $2",
    dropped: "logs = ''",
    is_result: false,
};

async fn drop_contents(
    writer: &mut SqliteConnection,
    (account, contents): (AccountId, &Contents),
    mut over: u64,
) -> Result<(), StoreFailure> {
    let failure = || StoreFailure::database("dropping what an account keeps too much of");
    while over > 0 {
        let oldest = sqlx::query(contents.oldest)
            .bind(account.0.to_vec())
            .bind(DROPPED_AT_ONCE)
            .fetch_all(&mut *writer)
            .await
            .map_err(failure())?;
        if oldest.is_empty() {
            return Ok(());
        }
        for row in oldest {
            let id: Vec<u8> = row.get(0);
            drop_one(writer, contents, id).await.map_err(failure())?;
            over = over.saturating_sub(row.get::<i64, _>(1) as u64);
            if over == 0 {
                break;
            }
        }
    }
    Ok(())
}

async fn drop_one(writer: &mut SqliteConnection, contents: &Contents, id: Vec<u8>) -> Result<(), sqlx::Error> {
    let bit = if contents.is_result {
        OUTPUT_DROPPED
    } else {
        LOGS_DROPPED
    };
    let sql = format!(
        "UPDATE job_contents SET {}, dropped = dropped | {bit} WHERE id = $1",
        contents.dropped
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(id.clone())
        .execute(&mut *writer)
        .await?;
    if contents.is_result {
        sqlx::query(
            "INSERT INTO job_results (job, function, state, attempts, next_at_ms, expires_at_ms, detail) \
             SELECT id, function, 5, 0, 0, NULL, $2 FROM jobs WHERE id = $1 \
             ON CONFLICT (job) DO UPDATE SET state = 5, expires_at_ms = NULL, detail = excluded.detail \
             WHERE job_results.state NOT IN (2, 4)",
        )
        .bind(id)
        .bind("not kept: the account's stored outputs took more room than they may")
        .execute(writer)
        .await?;
    }
    Ok(())
}

/// The oldest records of jobs that have ended and are paid, with all that belongs to them.
async fn drop_records(writer: &mut SqliteConnection, account: AccountId, mut over: u64) -> Result<(), StoreFailure> {
    let failure = || StoreFailure::database("dropping an account's oldest jobs");
    while over > 0 {
        let oldest = sqlx::query(
            "SELECT id, length(record) FROM jobs WHERE developer = $1 AND unsettled = 0 AND state >= 2 ORDER BY id LIMIT $2",
        )
        .bind(account.0.to_vec())
        .bind(DROPPED_AT_ONCE)
        .fetch_all(&mut *writer)
        .await
        .map_err(failure())?;
        if oldest.is_empty() {
            return Ok(());
        }
        for row in oldest {
            let id: Vec<u8> = row.get(0);
            for sql in [
                "DELETE FROM job_contents WHERE id = $1",
                "DELETE FROM job_steps WHERE job = $1",
                "DELETE FROM job_results WHERE job = $1",
                "DELETE FROM jobs WHERE id = $1",
            ] {
                let deleted = sqlx::query(sql).bind(id.clone()).execute(&mut *writer).await;
                deleted.map_err(failure())?;
            }
            over = over.saturating_sub(row.get::<i64, _>(1) as u64);
            if over == 0 {
                break;
            }
        }
    }
    Ok(())
}

#[async_trait]
impl Keeping for Sqlite {
    async fn usage(&self, account: AccountId) -> Result<Amounts, StoreFailure> {
        let readers = &self.shared.readers;
        let mut amounts = counted(readers, account).await?;
        for (kept, sql) in [
            (Kept::Inputs, INPUTS),
            (Kept::Bundles, BUNDLES),
            (Kept::Versions, VERSIONS),
            (Kept::Functions, FUNCTIONS),
        ] {
            amounts.set(kept, number(readers, sql, account).await?);
        }
        Ok(amounts)
    }

    fn quotas(&self, account: AccountId) -> Amounts {
        self.shared.quotas.of(account)
    }

    async fn set_quotas(&self, account: AccountId, set: &[(Kept, Option<u64>)]) -> Result<(), StoreFailure> {
        let failure = || StoreFailure::database("setting quotas");
        let mut writer = self.shared.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        for (kept, most) in set {
            sqlx::query("DELETE FROM quotas WHERE account = $1 AND kind = $2")
                .bind(account.0.to_vec())
                .bind(*kept as i64)
                .execute(&mut *transaction)
                .await
                .map_err(failure())?;
            let Some(most) = most else { continue };
            sqlx::query("INSERT INTO quotas (account, kind, most) VALUES ($1, $2, $3)")
                .bind(account.0.to_vec())
                .bind(*kept as i64)
                .bind(i64::try_from(*most).unwrap_or(i64::MAX))
                .execute(&mut *transaction)
                .await
                .map_err(failure())?;
        }
        commit(transaction).await?;
        let mut all = self.shared.quotas.set.write();
        let own = all.entry(account).or_default();
        own.retain(|(kept, _)| !set.iter().any(|(changed, _)| changed == kept));
        own.extend(set.iter().filter_map(|(kept, most)| Some((*kept, (*most)?))));
        Ok(())
    }

    async fn bundles(&self) -> Result<HashSet<Digest>, StoreFailure> {
        digests(self, "SELECT DISTINCT code FROM versions").await
    }

    async fn has_bundle(&self, code: &Digest) -> Result<bool, StoreFailure> {
        // By the writer: what is being written now counts.
        let found = sqlx::query("SELECT 1 FROM versions WHERE code = $1 LIMIT 1")
            .bind(code.to_string())
            .fetch_optional(&mut *self.shared.writer.lock().await)
            .await;
        Ok(found.map_err(StoreFailure::database("looking for a bundle"))?.is_some())
    }

    async fn image_bundles(&self, owner: Option<AccountId>) -> Result<HashSet<Digest>, StoreFailure> {
        let codes: Vec<String> = sqlx::query_scalar(IMAGES)
            .bind(owner.map(|owner| owner.0.to_vec()))
            .fetch_all(&self.shared.readers)
            .await
            .map_err(StoreFailure::database("listing images"))?;
        digests_of(codes)
    }

    async fn unsized_bundles(&self) -> Result<Vec<Digest>, StoreFailure> {
        let found = digests(self, "SELECT DISTINCT code FROM versions WHERE bundle_bytes = 0").await?;
        Ok(found.into_iter().collect())
    }

    async fn size_bundle(&self, code: &Digest, bytes: u64) -> Result<(), StoreFailure> {
        sqlx::query("UPDATE versions SET bundle_bytes = $2 WHERE code = $1 AND bundle_bytes = 0")
            .bind(code.to_string())
            .bind(bytes as i64)
            .execute(&mut *self.shared.writer.lock().await)
            .await
            .map_err(StoreFailure::database("noting a bundle's size"))?;
        Ok(())
    }
}

async fn digests(store: &Sqlite, sql: &'static str) -> Result<HashSet<Digest>, StoreFailure> {
    let codes: Vec<String> = sqlx::query_scalar(sql)
        .fetch_all(&store.shared.readers)
        .await
        .map_err(StoreFailure::database("listing bundles"))?;
    digests_of(codes)
}

fn digests_of(codes: Vec<String>) -> Result<HashSet<Digest>, StoreFailure> {
    let digest = |code: String| code.parse().map_err(|_| StoreFailure::Undecodable { what: "bundle" });
    codes.into_iter().map(digest).collect()
}
