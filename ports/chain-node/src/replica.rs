//! The state tree made again from a ledger's changes, beside any network: for who checks an export.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    thread,
};

use commonware_runtime::{Runner as _, tokio as engine_runtime};
use piecework_chain::ChainFailure;
use piecework_chain_simplex::Replica;

use crate::{machine::Machine, room::Room};

/// Opens a replica in `directory`, which must be empty and is of no use afterwards. It has a thread of its own.
pub fn replica(directory: PathBuf) -> Result<Replica, ChainFailure> {
    let (replica, asks) = Replica::new();
    let failed = directory.clone();
    let room = Room::new(directory.clone());
    let config = engine_runtime::Config::new()
        .with_storage_directory(directory)
        .with_worker_threads(1);
    let work = move || {
        let runner = engine_runtime::Runner::new(config);
        // Whoever asks sees that the answers end.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            runner.start(|context| asks.answer(Machine::Threads(context, room)));
        }));
    };
    let started = thread::Builder::new().name("replica".to_owned()).spawn(work);
    match started {
        Ok(_) => Ok(replica),
        Err(error) => Err(ChainFailure::directory(failed, error)),
    }
}
