//! The state tree made again from a ledger's changes, beside any network: for who checks an export.

use commonware_glue::stateful::db::{DatabaseSet as _, Merkleized as _, Unmerkleized as _};
use commonware_runtime::buffer::paged::CacheRef;
use piecework_ledger::Changes;
use piecework_model::Digest;
use piecework_proof::{Invalid, StateRoots};
use tokio::sync::{mpsc, oneshot};

use crate::{
    engine::{PAGE_BYTES, PAGES_CACHED, state_config},
    runtime::Runtime,
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

/// What a replica is asked, for the machine that answers.
pub struct Asks(mpsc::Receiver<Ask>);

impl Replica {
    pub fn new() -> (Self, Asks) {
        let (asks, questions) = mpsc::channel(1);
        (Self { asks }, Asks(questions))
    }
}

impl Asks {
    /// Answers until nobody asks any more, on disks that must be empty and are of no use afterwards.
    ///
    /// # Panics
    /// On storage errors; who asks sees that the answers end.
    pub async fn answer<E: Runtime>(self, machine: E) {
        let Self(mut questions) = self;
        let page_cache = CacheRef::new(PAGE_BYTES, PAGES_CACHED);
        let databases: Databases<E> =
            Databases::<E>::init(machine.child("replica"), state_config(page_cache), None).await;
        while let Some(Ask { changes, answer }) = questions.recv().await {
            let batch: Batch<E> = databases.new_batches().await;
            let merkleized = state::write(batch, &changes, |batch: Batch<E>, key, value| batch.write(key, value))
                .merkleize()
                .await
                .expect("the state can be read");
            let roots = (Digest(merkleized.root().0), Digest(merkleized.ops_root().0));
            databases.apply(merkleized).await;
            // Nobody waits any more: the check has ended.
            let _ = answer.send(roots);
        }
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
