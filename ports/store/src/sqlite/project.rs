//! A block of the ledger in one transaction: few statements, one commit, and the place in the ledger with them.
//!
//! The place makes projecting exactly-once: whatever a block changes and the note that it was read are committed together.

use sqlx::SqliteConnection;

use super::{Shared, audit, begin, bulk::Bulk, commit, row, values};
use crate::{Projected, Put, StoreFailure, Take};

const PAID: Bulk = Bulk {
    operation: "marking jobs paid",
    before: "UPDATE jobs SET paid_height = paid.column2, commission_ucr = paid.column3, unsettled = 0 FROM (VALUES ",
    columns: 3,
    after: ") AS paid WHERE jobs.id = paid.column1",
};

const STEPS: Bulk = Bulk {
    operation: "noting jobs' steps",
    before: "INSERT INTO job_steps (job, step, height) VALUES ",
    columns: 3,
    after: " ON CONFLICT (job, step) DO NOTHING",
};

const VALUES: Bulk = Bulk {
    operation: "writing values",
    before: "INSERT INTO kept_values (space, key, value) VALUES ",
    columns: 3,
    after: " ON CONFLICT (space, key) DO UPDATE SET value = excluded.value",
};

pub(super) const REMOVED: Bulk = Bulk {
    operation: "removing values",
    before: "DELETE FROM kept_values WHERE (space, key) IN (VALUES ",
    columns: 2,
    after: ")",
};

pub(super) async fn write_values(writer: &mut SqliteConnection, puts: &[Put]) -> Result<(), StoreFailure> {
    let written = VALUES.run(writer, puts, |row, put| {
        row.text(put.space.clone())
            .text(put.key.clone())
            .blob(put.value.clone());
    });
    written.await.map(drop)
}

impl Shared {
    pub(super) async fn project(&self, block: &Projected) -> Result<(), StoreFailure> {
        if !block.payments.is_empty() {
            // What is paid must be in the tables to be marked.
            self.filed().await?;
        }
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        write(&mut transaction, block).await?;
        commit(transaction).await
    }
}

async fn write(writer: &mut SqliteConnection, block: &Projected) -> Result<(), StoreFailure> {
    PAID.run(writer, &block.payments, |row, payment| {
        row.blob(payment.job.0.to_vec())
            .number(payment.height)
            .number(payment.commission_ucr);
    })
    .await?;
    STEPS
        .run(writer, &block.steps, |row, (job, step)| {
            row.blob(job.0.to_vec())
                .text(step.as_str().to_owned())
                .number(block.height);
        })
        .await?;
    write_values(writer, &block.puts).await?;
    for take in &block.takes {
        take_one(writer, take).await?;
    }
    row::set_mark(writer, "ledger_height", block.height).await
}

/// Leases that closed, a few a block at the most.
async fn take_one(writer: &mut SqliteConnection, take: &Take) -> Result<(), StoreFailure> {
    let was_there = values::take(writer, &take.space, &take.key).await?.is_some();
    match (&take.change, was_there) {
        (Some(change), true) => audit::insert(writer, change).await,
        (Some(_), false) | (None, _) => Ok(()),
    }
}
