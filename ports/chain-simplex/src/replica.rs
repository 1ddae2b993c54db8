//! The state tree made again from a ledger's changes, beside any network: for who checks an export.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    thread,
};

use commonware_glue::stateful::db::{DatabaseSet as _, Merkleized as _, Unmerkleized as _};
use commonware_runtime::{
    Runner as _, Supervisor as _,
    buffer::paged::CacheRef,
    tokio::{self as engine_runtime, Context},
};
use piecework_ledger::Changes;
use piecework_model::Digest;
use piecework_proof::{Invalid, StateRoots};
use tokio::sync::{mpsc, oneshot};

use crate::{
    ChainFailure,
    engine::{PAGE_BYTES, PAGES_CACHED, state_config},
    state::{self, Batch, Databases},
};

type Roots = (Digest, Digest);

struct Ask {
    changes: Changes,
    answer: oneshot::Sender<Roots>,
}

/// An empty state that takes one block's changes after the other. It blocks its caller: not for a runtime's threads.
pub struct Replica {
    asks: mpsc::Sender<Ask>,
}

impl Replica {
    /// Works in `directory`, which must be empty and is of no use afterwards.
    pub fn open(directory: PathBuf) -> Result<Self, ChainFailure> {
        let (asks, questions) = mpsc::channel(1);
        let failed = directory.clone();
        let config = engine_runtime::Config::new()
            .with_storage_directory(directory)
            .with_worker_threads(1);
        let work = move || {
            let runner = engine_runtime::Runner::new(config);
            // Whoever asks sees that the answers end.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                runner.start(|context| answer(context, questions));
            }));
        };
        let started = thread::Builder::new().name("replica".to_owned()).spawn(work);
        match started {
            Ok(_) => Ok(Self { asks }),
            Err(error) => Err(ChainFailure::directory(failed, error)),
        }
    }
}

async fn answer(context: Context, mut questions: mpsc::Receiver<Ask>) {
    let page_cache = CacheRef::new(PAGE_BYTES, PAGES_CACHED);
    let databases: Databases<Context> =
        Databases::<Context>::init(context.child("replica"), state_config(page_cache), None).await;
    while let Some(Ask { changes, answer }) = questions.recv().await {
        let batch: Batch<Context> = databases.new_batches().await;
        let merkleized = state::write(batch, &changes, |batch: Batch<Context>, key, value| {
            batch.write(key, value)
        })
        .merkleize()
        .await
        .expect("the state can be read");
        let roots = (Digest(merkleized.root().0), Digest(merkleized.ops_root().0));
        databases.apply(merkleized).await;
        // Nobody waits any more: the check has ended.
        let _ = answer.send(roots);
    }
}

impl StateRoots for Replica {
    fn apply(&mut self, changes: &Changes) -> Result<Roots, Invalid> {
        let stopped = || Invalid::Replica("the replica of the state stopped; is the disk full?".to_owned());
        let (answer, answered) = oneshot::channel();
        let changes = changes.clone();
        let asked = self.asks.blocking_send(Ask { changes, answer });
        asked.map_err(|_| stopped())?;
        answered.blocking_recv().map_err(|_| stopped())
    }
}
