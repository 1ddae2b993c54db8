//! A copy of a store that somebody uses meanwhile, and what must change in one before it is used in the first one's place.
//!
//! The tables are copied first, at one moment, which says how far they have the journal; then the journal from there on. If the
//! store has filed and removed a part of that meanwhile, the tables are copied again.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};

use super::{
    Options, Sqlite, connect_options, row,
    whole::{DATABASE, JOURNAL},
};
use crate::{StoreFailure, directory, journal::copy_segments, seal};

/// Sequences that whoever used the store after the copy may have given out: a controller at full speed needs hours for them.
const SEQUENCES_SKIPPED: i64 = 10_000_000;
/// A segment is removed once in 16 MiB of entries; a copy of the tables takes far less time.
const TRIES: u32 = 10;

/// Copies the store at `from`, which a process may use, into the new directory `to`. Has all that was kept when it was called;
/// durable when it returns.
pub async fn copy(from: &Path, to: &Path) -> Result<(), StoreFailure> {
    directory::check(from)?;
    let database = from.join(DATABASE);
    if !database.exists() {
        return Err(StoreFailure::Gone { path: database });
    }
    let journal = to.join(JOURNAL);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&journal);
    made.map_err(StoreFailure::io("making the directory of the copy"))?;
    for name in [directory::VERSION_FILE, seal::FILE] {
        copy_private(&from.join(name), &to.join(name)).map_err(StoreFailure::io("copying a file of the store"))?;
    }
    let target = to.join(DATABASE);
    for _ in 0..TRIES {
        let position = copy_tables(&database, &target).await?;
        if copy_segments(&from.join(JOURNAL), &journal, position)? {
            return [&journal, to]
                .into_iter()
                .try_for_each(|folder| fs::File::open(folder)?.sync_all())
                .map_err(StoreFailure::io("syncing the copy"));
        }
        let removed = fs::remove_file(&target).and_then(|()| fs::remove_dir_all(&journal));
        removed
            .and_then(|()| fs::DirBuilder::new().mode(0o700).create(&journal))
            .map_err(StoreFailure::io("beginning the copy again"))?;
    }
    Err(StoreFailure::Overloaded { jobs: 0, bytes: 0 })
}

/// How far the copied tables have the journal.
async fn copy_tables(database: &Path, target: &Path) -> Result<u64, StoreFailure> {
    private(target, b"").map_err(StoreFailure::io("making the copy of the database"))?;
    let options = |path: &Path| {
        SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(Duration::from_secs(30))
            .disable_statement_logging()
    };
    let opened = options(database).connect().await;
    let mut reader = opened.map_err(StoreFailure::database("opening the database"))?;
    sqlx::query("VACUUM INTO $1")
        .bind(target.to_string_lossy().into_owned())
        .execute(&mut reader)
        .await
        .map_err(StoreFailure::database("copying the database"))?;
    let synced = fs::File::open(target).and_then(|file| file.sync_all());
    synced.map_err(StoreFailure::io("syncing the copy"))?;
    let opened = options(target).connect().await;
    let mut copied = opened.map_err(StoreFailure::database("opening the copy"))?;
    let position = row::mark(&mut copied, "journal_position").await?;
    copied
        .close()
        .await
        .map_err(StoreFailure::database("closing the copy"))?;
    Ok(position)
}

/// Makes a copy ready to be used in the first one's place: its lanes go on beyond all sequences that the first one may have
/// given out since.
pub async fn take_over(copy: &Path) -> Result<(), StoreFailure> {
    // What is in the journal only is filed, and what cannot be used is found now.
    drop(Sqlite::open(Options::new(copy)).await?);
    let options = connect_options(&copy.join(DATABASE)).create_if_missing(false);
    let opened = options.connect().await;
    let mut writer = opened.map_err(StoreFailure::database("opening the copy"))?;
    sqlx::query("UPDATE lanes SET high_water = high_water + $1")
        .bind(SEQUENCES_SKIPPED)
        .execute(&mut writer)
        .await
        .map_err(StoreFailure::database("moving the lanes on"))?;
    writer.close().await.map_err(StoreFailure::database("closing the copy"))
}

fn copy_private(from: &Path, to: &Path) -> std::io::Result<()> {
    private(to, &fs::read(from)?)
}

/// A new file that its owner alone may read.
fn private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
