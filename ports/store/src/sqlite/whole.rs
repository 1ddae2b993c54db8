//! Whether the parts of a data directory are all there and belong together: half of one would start as if it were new.

use std::path::Path;

use sqlx::SqliteConnection;

use crate::{StoreFailure, directory::Directory, seal, seal::Vault};

pub(super) const DATABASE: &str = "store.sqlite";
pub(super) const JOURNAL: &str = "journal";

/// What the master key has sealed, to know it again.
const SPACE: &str = "store";
const NAME: &str = "sealed by the master key";

/// In the order in which a first start makes them: key, database, journal. `Gone` where one is there without those before.
pub(super) fn check(directory: &Directory) -> Result<(), StoreFailure> {
    let path = |name: &str| directory.path().join(name);
    let (key, database) = (path(seal::FILE), path(DATABASE));
    if has_files(&path(JOURNAL)) && !database.exists() {
        return Err(StoreFailure::Gone { path: database });
    }
    if database.exists() && !key.exists() {
        return Err(StoreFailure::Gone { path: key });
    }
    Ok(())
}

fn has_files(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

/// `OtherMasterKey` where another key than this one has sealed what lies here.
pub(super) async fn check_key(writer: &mut SqliteConnection, vault: &Vault) -> Result<(), StoreFailure> {
    let found: Option<Vec<u8>> = sqlx::query_scalar("SELECT value FROM kept_values WHERE space = $1 AND key = $2")
        .bind(SPACE)
        .bind(NAME)
        .fetch_optional(&mut *writer)
        .await
        .map_err(StoreFailure::database("reading a value"))?;
    if let Some(sealed) = found {
        return match vault.open_sealed(NAME, &sealed) {
            Ok(_) => Ok(()),
            Err(_) => Err(StoreFailure::OtherMasterKey),
        };
    }
    sqlx::query("INSERT INTO kept_values (space, key, value) VALUES ($1, $2, $3)")
        .bind(SPACE)
        .bind(NAME)
        .bind(vault.seal(NAME, b"")?)
        .execute(writer)
        .await
        .map_err(StoreFailure::database("writing a value"))?;
    Ok(())
}
