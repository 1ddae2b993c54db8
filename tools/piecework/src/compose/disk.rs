//! The disk below a data directory: watched, with a reserve for the ledger, the journal and settlement.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use piecework_disk::{Level, Room as _, Watched};
use piecework_store::{Options, Relief};

/// The file that holds the reserve; deleted when the disk is full.
const RESERVE: &str = "reserve";
/// The parts of a directory that may lie on disks of their own.
const PARTS: [&str; 5] = ["store", "blobs", "peer", "unpacked", "ledger"];

/// Of the data directory and of its parts that exist.
pub(super) fn watch(directory: &Path) -> Result<Arc<Watched>> {
    let parts = PARTS.map(|part| directory.join(part)).into_iter();
    let all = [directory.to_owned()]
        .into_iter()
        .chain(parts.filter(|part| part.is_dir()));
    Watched::start(all.collect(), directory.join(RESERVE)).context("cannot read the free disk space")
}

pub(super) fn store_options(directory: &Path, disk: &Arc<Watched>) -> Options {
    let watched = disk.clone();
    Options {
        relief: Relief(Arc::new(move || watched.relieve())),
        ..Options::new(directory.join("store"))
    }
}

/// Says when a provider stops taking jobs for want of room, and when it takes them again.
pub(super) async fn tell(disk: Arc<Watched>, say: Arc<dyn Fn(&str) + Send + Sync>) {
    const LOOK_EVERY: Duration = Duration::from_secs(1);
    let mut is_full = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let reading = disk.reading();
        if (reading.level == Level::Reserved) == is_full {
            continue;
        }
        is_full = !is_full;
        match is_full {
            true => say(&format!(
                "this computer's disk is nearly full ({} MiB are free): no new jobs until there is room",
                reading.free_bytes >> 20
            )),
            false => say("there is room on the disk again; jobs may come"),
        }
    }
}
