//! A session of version 2: one ordered stream of frames, with pieces of bundles behind everything else.

use std::sync::Arc;

use bytes::Bytes;
use piecework_model::{Digest, FunctionId, Rejection};
use tokio::sync::mpsc;

use super::{Bundles, Job, Outgoing, QUIET_MAX, RemoteProvider};
use crate::{
    Delivery,
    link::{
        Arrival, Clock, LinkFailure,
        ending::Ending,
        frames::{Ask, DeliveryFrame, OrderFrame, OrderId, ToController, ToProvider},
        secure::{Receiver, Sender},
    },
};

/// Part of a bundle in one message: small enough that orders do not wait long behind it.
const CHUNK_BYTES: u64 = 256 << 10;
/// Pieces that wait to be sent; a provider that asks for more is not read from until it has taken some.
const CHUNKS_WAITING: usize = 4;
/// Frames that wait to be sent: orders of 10,000 slots do not all come at the same moment, and a provider that takes nothing is
/// soon silent.
const FRAMES_WAITING_MAX: usize = 16_384;

pub(super) struct Session {
    frames: mpsc::Sender<ToProvider>,
    pub(super) ending: Ending,
}

impl Session {
    fn send(&self, frame: ToProvider) {
        match self.frames.try_send(frame) {
            // A session that is ending: what matters is sent again in the next one.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                let failure = LinkFailure::Protocol("it does not take what it is told");
                self.ending.fail(failure);
            }
        }
    }

    pub(super) fn order(&self, job: &Job) {
        self.send(ToProvider::Order(Box::new(OrderFrame::new(&job.order))));
    }

    pub(super) fn cancel(&self, order: OrderId) {
        self.send(ToProvider::Cancel(order));
    }

    pub(super) fn ask(&self, id: u64, ask: &Ask) {
        self.send(ToProvider::Ask(id, Box::new(ask.clone())));
    }

    pub(super) fn forget(&self, function: FunctionId, version: u32) {
        self.send(ToProvider::Forget(function, version));
    }
}

pub(super) async fn serve(
    remote: &Arc<RemoteProvider>,
    arrival: Arrival,
    bundles: &dyn Bundles,
    now_ms: u64,
) -> LinkFailure {
    let (outgoing, frames) = mpsc::channel(FRAMES_WAITING_MAX);
    let (chunks, chunks_waiting) = mpsc::channel(CHUNKS_WAITING);
    let clock = arrival.receiver.clock.clone();
    let session = Arc::new(Session {
        frames: outgoing,
        ending: Ending::default(),
    });
    // Before the welcome: whoever reads it may count on being given jobs.
    let (_up, _) = remote.begin(Outgoing::Whole(session.clone()), arrival.receiver.heard());
    let (sender, receiver) = match arrival.welcome(now_ms).await {
        Ok(halves) => halves,
        Err(failure) => return failure,
    };
    let shelf = Shelf {
        bundles,
        open: None,
        chunks,
    };
    tokio::select! {
        failure = session.ending.failed() => failure,
        failure = send_all(sender, frames, chunks_waiting, clock) => failure,
        failure = receive_all(remote, &session, receiver, shelf) => failure,
    }
}

/// Pieces of bundles come last: orders do not wait behind them.
async fn send_all(
    mut sender: Sender,
    mut frames: mpsc::Receiver<ToProvider>,
    mut chunks: mpsc::Receiver<ToProvider>,
    clock: Clock,
) -> LinkFailure {
    loop {
        let frame = tokio::select! {
            biased;
            Some(frame) = frames.recv() => frame,
            Some(chunk) = chunks.recv() => chunk,
            // A provider that is busy with a large frame asks for no answer meanwhile.
            () = clock.sleep(QUIET_MAX) => ToProvider::Beat,
        };
        if let Err(failure) = sender.send(&frame).await {
            return failure;
        }
    }
}

async fn receive_all(
    remote: &RemoteProvider,
    session: &Session,
    mut receiver: Receiver,
    mut shelf: Shelf<'_>,
) -> LinkFailure {
    loop {
        let frame = match receiver.receive().await {
            Ok(frame) => frame,
            Err(failure) => return failure,
        };
        match frame {
            ToController::Done(order, result) => done(remote, session, order, *result),
            ToController::Answer(id, answer) => remote.note_answer(id, *answer),
            ToController::Fetch { fetch, digest, offset } => {
                let is_given = remote.is_given(digest);
                shelf.serve(fetch, is_given.then_some(digest), offset).await;
            }
            ToController::Beat { load, warm } => {
                if let Err(failure) = remote.note_beat(load, warm) {
                    return failure;
                }
                session.send(ToProvider::Beat);
            }
        }
    }
}

fn done(remote: &RemoteProvider, session: &Session, order: OrderId, result: Result<DeliveryFrame, Rejection>) {
    session.send(ToProvider::Confirm(order));
    remote.done(order, result.map(Delivery::from));
}

/// Where one session's pieces of bundles come from.
struct Shelf<'a> {
    bundles: &'a dyn Bundles,
    /// The bundle that is being pulled.
    open: Option<(Digest, Bytes)>,
    chunks: mpsc::Sender<ToProvider>,
}

impl Shelf<'_> {
    /// A piece of the bundle; an empty one of none where it is not to be had.
    async fn serve(&mut self, fetch: u64, digest: Option<Digest>, offset: u64) {
        let whole = match (digest, self.open.take()) {
            (Some(digest), Some((open, whole))) if open == digest => whole,
            (Some(digest), _) => self.bundles.bundle(digest).await.unwrap_or_default(),
            (None, _) => Bytes::new(),
        };
        let total = whole.len() as u64;
        let (from, to) = (offset.min(total), offset.saturating_add(CHUNK_BYTES).min(total));
        let bytes = whole.slice(from as usize..to as usize);
        self.open = digest.filter(|_| to < total).map(|digest| (digest, whole));
        // The session is ending: the piece is asked for again in the next one.
        let _ = self.chunks.send(ToProvider::Chunk { fetch, total, bytes }).await;
    }
}
