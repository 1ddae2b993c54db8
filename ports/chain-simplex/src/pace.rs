//! Holds a proposal back until there is something to propose and the block before it is final, or the heartbeat is due.
//!
//! A block costs every peer milliseconds of processor time and some twenty syncs of its disk, however little is in it. So what
//! arrives while one block becomes final shares the next: the busier the peers and the slower their disks, the fewer and
//! fuller the blocks.
//!
//! The wait stands before the stateful application, not inside it: an application that is building keeps the block before
//! it from becoming final.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use commonware_consensus::{Automaton, CertifiableAutomaton, Handoff, types::Round};
use commonware_macros::select;
use commonware_runtime::{Clock, Spawner};
use commonware_utils::channel::{fallible::OneshotExt as _, oneshot};
use piecework_model::Digest;

use crate::{application::Shared, block::Context, publish::Board};

/// A parent that lacks votes becomes final by its child alone. Well below what the others allow a leader beyond a heartbeat.
const PARENT_WAIT_MAX: Duration = Duration::from_millis(100);
/// Where so many wait already, more are coming: they are given `GATHER` to share the block. With four peers on two cores, at 1,000
/// transfers a second, 10 ms saved a tenth of the processor time and the median waited no longer; with 20 ms it did.
/// See `decisions/016`.
const CROWD: usize = 8;
const GATHER: Duration = Duration::from_millis(10);

/// An automaton whose own proposals wait for work.
pub(crate) struct Paced<E, A> {
    pub(crate) clock: Arc<E>,
    pub(crate) automaton: A,
    pub(crate) shared: Arc<Shared>,
    pub(crate) board: Arc<Board>,
    pub(crate) heartbeat: Duration,
    /// Set once another peer's proposal was here to be verified: the instance is not one that the others have left.
    pub(crate) is_live: Arc<AtomicBool>,
}

impl<E, A: Clone> Clone for Paced<E, A> {
    fn clone(&self) -> Self {
        Self {
            clock: self.clock.clone(),
            automaton: self.automaton.clone(),
            shared: self.shared.clone(),
            board: self.board.clone(),
            heartbeat: self.heartbeat,
            is_live: self.is_live.clone(),
        }
    }
}

impl<E, A> Automaton for Paced<E, A>
where
    E: Spawner + Clock,
    A: Automaton<Context = Context>,
{
    type Context = Context;
    type Digest = A::Digest;

    #[allow(clippy::async_yields_async)]
    async fn propose(&mut self, context: Context) -> oneshot::Receiver<A::Digest> {
        let (mut response, receiver) = oneshot::channel();
        let (mut automaton, shared, heartbeat) = (self.automaton.clone(), self.shared.clone(), self.heartbeat);
        let (board, parent) = (self.board.clone(), Digest(context.parent.1.0));
        self.clock.child("pace").spawn(move |clock| async move {
            // The first block writes the genesis state: everybody waits for it.
            if shared.height() > 0 {
                select! {
                    _ = response.closed() => return,
                    _ = shared.mempool.fresh() => {},
                    _ = clock.sleep(heartbeat) => {},
                }
                select! {
                    _ = response.closed() => return,
                    () = board.published(parent) => {},
                    _ = clock.sleep(PARENT_WAIT_MAX) => {},
                }
                if shared.mempool.len() >= CROWD {
                    clock.sleep(GATHER).await;
                }
            }
            let proposed = automaton.propose(context).await;
            select! {
                _ = response.closed() => {},
                digest = proposed => {
                    if let Ok(digest) = digest {
                        response.send_lossy(digest);
                    }
                },
            }
        });
        receiver
    }

    async fn verify(&mut self, context: Context, payload: A::Digest) -> oneshot::Receiver<bool> {
        self.is_live.store(true, Ordering::Relaxed);
        self.automaton.verify(context, payload).await
    }
}

impl<E, A> CertifiableAutomaton for Paced<E, A>
where
    E: Spawner + Clock,
    A: CertifiableAutomaton<Context = Context>,
{
    async fn prepare(&mut self, context: Context) -> oneshot::Receiver<Handoff<A::Digest>> {
        self.automaton.prepare(context).await
    }

    async fn certify(&mut self, round: Round, payload: A::Digest) -> oneshot::Receiver<bool> {
        self.automaton.certify(round, payload).await
    }
}
