//! Users and tokens.

use async_trait::async_trait;
use piecework_model::{AccountId, OwnerName, PublicKey};
use sqlx::{Row, sqlite::SqliteRow};

use super::{Sqlite, row::fixed};
use crate::{StoreFailure, Token, Tokens, User, Users};

const USER: &str = "a user";
const TOKEN: &str = "a token";

fn user(row: &SqliteRow) -> Result<User, StoreFailure> {
    let name: &str = row.get("name");
    let (roles, operator) = User::of_role_bits(row.get("roles"));
    Ok(User {
        account: AccountId(fixed(row.get("account"), USER)?),
        name: name.parse().map_err(|_| StoreFailure::Undecodable { what: USER })?,
        public_key: PublicKey(fixed(row.get("public_key"), USER)?),
        password_hash: row.get("password_hash"),
        sealed_key: row.get("sealed_key"),
        roles,
        operator,
        created_at_ms: row.get::<i64, _>("created_at_ms") as u64,
    })
}

fn token(row: &SqliteRow) -> Result<Token, StoreFailure> {
    let scopes: &str = row.get("scopes");
    Ok(Token {
        id: row.get("id"),
        hash: fixed(row.get("hash"), TOKEN)?,
        account: AccountId(fixed(row.get("account"), TOKEN)?),
        scopes: serde_json::from_str(scopes).map_err(|_| StoreFailure::Undecodable { what: TOKEN })?,
        label: row.get("label"),
        created_at_ms: row.get::<i64, _>("created_at_ms") as u64,
        expires_at_ms: row.get::<Option<i64>, _>("expires_at_ms").map(|expires| expires as u64),
        parent: row.get("parent"),
    })
}

#[async_trait]
impl Users for Sqlite {
    async fn insert_user(&self, user: &User) -> Result<(), StoreFailure> {
        sqlx::query(
            "INSERT INTO users (account, name, public_key, password_hash, sealed_key, roles, created_at_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(user.account.0.to_vec())
        .bind(user.name.as_str())
        .bind(user.public_key.0.to_vec())
        .bind(&user.password_hash)
        .bind(&user.sealed_key)
        .bind(user.role_bits())
        .bind(user.created_at_ms as i64)
        .execute(&mut *self.shared.writer.lock().await)
        .await
        .map_err(StoreFailure::unique("adding a user", "the account or its name"))?;
        Ok(())
    }

    async fn update_user(&self, user: &User) -> Result<(), StoreFailure> {
        let updated = sqlx::query(
            "UPDATE users SET public_key = $2, password_hash = $3, sealed_key = $4, roles = $5 WHERE account = $1",
        )
        .bind(user.account.0.to_vec())
        .bind(user.public_key.0.to_vec())
        .bind(&user.password_hash)
        .bind(&user.sealed_key)
        .bind(user.role_bits())
        .execute(&mut *self.shared.writer.lock().await)
        .await
        .map_err(StoreFailure::database("changing a user"))?;
        super::found(updated.rows_affected(), "user")
    }

    async fn user_by_name(&self, name: &OwnerName) -> Result<Option<User>, StoreFailure> {
        let row = sqlx::query("SELECT * FROM users WHERE name = $1").bind(name.as_str());
        let row = row.fetch_optional(&self.shared.readers).await;
        row.map_err(StoreFailure::database("reading a user"))?
            .as_ref()
            .map(user)
            .transpose()
    }

    async fn user_by_account(&self, account: AccountId) -> Result<Option<User>, StoreFailure> {
        let row = sqlx::query("SELECT * FROM users WHERE account = $1").bind(account.0.to_vec());
        let row = row.fetch_optional(&self.shared.readers).await;
        row.map_err(StoreFailure::database("reading a user"))?
            .as_ref()
            .map(user)
            .transpose()
    }

    async fn list_users(&self) -> Result<Vec<User>, StoreFailure> {
        let rows = sqlx::query("SELECT * FROM users ORDER BY name")
            .fetch_all(&self.shared.readers)
            .await;
        rows.map_err(StoreFailure::database("listing users"))?
            .iter()
            .map(user)
            .collect()
    }
}

#[async_trait]
impl Tokens for Sqlite {
    async fn insert_token(&self, token: &Token) -> Result<(), StoreFailure> {
        let inserted = sqlx::query(
            "INSERT INTO tokens (id, hash, account, scopes, label, created_at_ms, expires_at_ms, parent) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8 \
             WHERE $8 IS NULL OR EXISTS (SELECT 1 FROM tokens WHERE id = $8)",
        )
        .bind(&token.id)
        .bind(token.hash.to_vec())
        .bind(token.account.0.to_vec())
        .bind(serde_json::to_string(&token.scopes).expect("a set of names is valid JSON"))
        .bind(&token.label)
        .bind(token.created_at_ms as i64)
        .bind(token.expires_at_ms.map(|expires| expires as i64))
        .bind(&token.parent)
        .execute(&mut *self.shared.writer.lock().await)
        .await
        .map_err(StoreFailure::unique("adding a token", "the token"))?;
        super::found(inserted.rows_affected(), "parent of the token")
    }

    async fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Option<Token>, StoreFailure> {
        let row = sqlx::query("SELECT * FROM tokens WHERE hash = $1").bind(hash.to_vec());
        let row = row.fetch_optional(&self.shared.readers).await;
        row.map_err(StoreFailure::database("reading a token"))?
            .as_ref()
            .map(token)
            .transpose()
    }

    async fn list_tokens(&self, account: AccountId) -> Result<Vec<Token>, StoreFailure> {
        let rows = sqlx::query("SELECT * FROM tokens WHERE account = $1 ORDER BY created_at_ms, id")
            .bind(account.0.to_vec())
            .fetch_all(&self.shared.readers)
            .await;
        rows.map_err(StoreFailure::database("listing tokens"))?
            .iter()
            .map(token)
            .collect()
    }

    async fn delete_token(&self, account: AccountId, id: &str) -> Result<bool, StoreFailure> {
        // `UNION` keeps no row twice, so that no circle of parents goes on for ever.
        let with_children = "WITH RECURSIVE gone (id) AS ( \
             SELECT id FROM tokens WHERE account = $1 AND id = $2 \
             UNION SELECT tokens.id FROM tokens JOIN gone ON tokens.parent = gone.id WHERE tokens.account = $1) \
             DELETE FROM tokens WHERE id IN (SELECT id FROM gone)";
        let deleted = sqlx::query(with_children)
            .bind(account.0.to_vec())
            .bind(id)
            .execute(&mut *self.shared.writer.lock().await)
            .await
            .map_err(StoreFailure::database("removing a token"))?;
        Ok(deleted.rows_affected() > 0)
    }
}
