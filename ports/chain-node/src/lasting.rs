//! A peer that starts again by itself, after a disk that was full only when it had to sync.
//!
//! ```text
//! runs --a sync finds no room--> stands still --there is room--> starts again --> runs
//!   `------any other failure--> failed
//! ```
//! Most file systems say at the write that they are full, and the engine's files wait there (see [`room`](crate::room)). Some
//! say it at the sync, when what was written may be lost already: only a start reads again what is really there. It is the
//! same start as after a power cut.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use piecework_chain::{Chain, ChainFailure, ChainStatus, Final, FinalBlock, Node, Proven, SubmitError};
use piecework_chain_simplex::{Handle, Options, has_room};
use piecework_ledger::{Key, SignedTransaction, TransactionId, Value};
use piecework_model::{Digest, NetworkId};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::node::{Peer, start_once};

/// The engine's time to say what stopped it.
const SAYS_WHY_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks for room.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The chain of whichever run of the peer is the last.
#[derive(Clone)]
struct Latest {
    /// Of a run that has ended while the next one is awaited.
    runs: watch::Sender<Arc<Handle>>,
    /// Nobody starts it again.
    failed: watch::Sender<Option<ChainFailure>>,
}

pub(crate) struct Lasting {
    latest: Latest,
    stop: Option<oneshot::Sender<()>>,
    keeper: JoinHandle<Result<(), ChainFailure>>,
}

impl Lasting {
    pub(crate) fn new(peer: Peer, options: Options) -> Self {
        let latest = Latest {
            runs: watch::Sender::new(peer.handle()),
            failed: watch::Sender::new(None),
        };
        let (stop, stopped) = oneshot::channel();
        let keeper = tokio::spawn({
            let latest = latest.clone();
            async move {
                let kept = keep(&latest, peer, options, stopped).await;
                let failure = kept.clone().err().unwrap_or_else(|| ChainFailure::Stopped {
                    detail: "it was shut down".to_owned(),
                });
                latest.failed.send_replace(Some(failure));
                kept
            }
        });
        Self {
            latest,
            stop: Some(stop),
            keeper,
        }
    }
}

#[async_trait]
impl Node for Lasting {
    fn chain(&self) -> Arc<dyn Chain> {
        Arc::new(self.latest.clone())
    }

    async fn failed(&self) -> ChainFailure {
        self.latest.failure().await
    }

    async fn shutdown(mut self: Box<Self>) -> Result<(), ChainFailure> {
        drop(self.stop.take());
        let kept = (&mut self.keeper).await;
        kept.expect("it does not panic, and nobody aborts it")
    }
}

/// Runs the peer until it is to stop, or fails for good.
async fn keep(
    latest: &Latest,
    mut peer: Peer,
    options: Options,
    mut stopped: oneshot::Receiver<()>,
) -> Result<(), ChainFailure> {
    loop {
        let failure = tokio::select! {
            _ = &mut stopped => return peer.shutdown().await,
            failure = peer.failed() => failure,
        };
        // Its thread has to be gone, and with it the lock on the directory.
        let _ = peer.shutdown().await;
        let again = match failure {
            ChainFailure::DiskFull { detail } => {
                tracing::error!(
                    detail,
                    "the disk is full: the ledger stands still until there is room, and then starts again"
                );
                tokio::select! {
                    _ = &mut stopped => return Ok(()),
                    again = start_again(&options) => again,
                }
            }
            other => Err(other),
        };
        peer = again?;
        tracing::info!("there is room on the disk again: the ledger goes on");
        latest.runs.send_replace(peer.handle());
    }
}

/// Once there is room; a start that finds none after all is tried again.
async fn start_again(options: &Options) -> Result<Peer, ChainFailure> {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        if !looks_for_room(options.directory.clone()).await {
            continue;
        }
        match start_once(options.clone()).await {
            Err(ChainFailure::DiskFull { .. }) => {}
            other => return other,
        }
    }
}

async fn looks_for_room(directory: PathBuf) -> bool {
    let looked = tokio::task::spawn_blocking(move || has_room(&directory)).await;
    looked.unwrap_or(false)
}

impl Latest {
    fn run(&self) -> Arc<Handle> {
        self.runs.borrow().clone()
    }

    async fn failure(&self) -> ChainFailure {
        let mut failed = self.failed.subscribe();
        let failure = failed.wait_for(Option::is_some).await;
        let failure = failure.expect("a sender of it is here");
        failure.clone().expect("it was waited for")
    }

    /// The run after this one; the failure where there is none.
    async fn after(&self, run: &Arc<Handle>) -> Result<Arc<Handle>, ChainFailure> {
        let mut runs = self.runs.subscribe();
        tokio::select! {
            next = runs.wait_for(|next| !Arc::ptr_eq(next, run)) => match next {
                Ok(next) => Ok(next.clone()),
                Err(_) => unreachable!("a sender of it is here"),
            },
            failure = self.failure() => Err(failure),
        }
    }
}

#[async_trait]
impl Chain for Latest {
    fn network(&self) -> NetworkId {
        self.run().network()
    }

    fn status(&self) -> ChainStatus {
        self.run().status()
    }

    async fn submit(&self, tx: SignedTransaction) -> Result<TransactionId, SubmitError> {
        self.run().submit(tx).await
    }

    /// What was queued is forgotten by a run that ends: it is submitted again, which changes nothing where it is final.
    async fn submit_and_wait(&self, tx: SignedTransaction) -> Result<Final, SubmitError> {
        let mut run = self.run();
        loop {
            match run.submit_and_wait(tx.clone()).await {
                Err(SubmitError::Failed(ChainFailure::DiskFull { .. })) => run = self.after(&run).await?,
                other => return other,
            }
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<Value>, ChainFailure> {
        self.run().get(key).await
    }

    async fn prove(&self, keys: &[Key]) -> Result<Proven, ChainFailure> {
        self.run().prove(keys).await
    }

    async fn block(&self, height: u64) -> Result<Option<Arc<FinalBlock>>, ChainFailure> {
        self.run().block(height).await
    }

    async fn block_by_digest(&self, digest: Digest) -> Result<Option<Arc<FinalBlock>>, ChainFailure> {
        self.run().block_by_digest(digest).await
    }

    async fn transaction(&self, id: TransactionId) -> Result<Option<(u64, u32)>, ChainFailure> {
        self.run().transaction(id).await
    }

    fn blocks_from(&self, from: u64) -> BoxStream<'static, Arc<FinalBlock>> {
        let run = self.run();
        let reader = Reader {
            blocks: run.blocks_from(from),
            latest: self.clone(),
            run,
            next: from.max(1),
        };
        stream::unfold(reader, Reader::step).boxed()
    }
}

/// A place in the chain, whichever run it is read from.
struct Reader {
    latest: Latest,
    run: Arc<Handle>,
    blocks: BoxStream<'static, Arc<FinalBlock>>,
    next: u64,
}

impl Reader {
    async fn step(mut self) -> Option<(Arc<FinalBlock>, Self)> {
        loop {
            if let Some(block) = self.blocks.next().await {
                self.next = block.height + 1;
                return Some((block, self));
            }
            // It ended with its run, or a moment before it: of a clean stop there is no other.
            let failure = tokio::time::timeout(SAYS_WHY_WITHIN, self.run.failed()).await;
            if !matches!(failure, Ok(ChainFailure::DiskFull { .. })) {
                return None;
            }
            self.run = self.latest.after(&self.run).await.ok()?;
            self.blocks = self.run.blocks_from(self.next);
        }
    }
}
