//! Pulls bundles over whichever session is up.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use piecework_model::Digest;
use tokio::sync::{oneshot, watch};

use super::{Clock, GRACE, LinkFailure, agent::Outgoing, frames::ToController, messages::Say};

/// In version 2 a bundle comes in pieces; a piece that does not come for this long is not waited for.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pulling a whole bundle may take this long, and is billed to nobody.
const PULL_TIMEOUT: Duration = Duration::from_secs(120);
/// A bundle is at most this large, compressed.
pub(super) const BUNDLE_BYTES_MAX: u64 = 256 << 20;

/// Clones pull over the same link.
#[derive(Clone, Default)]
pub struct Fetcher(Arc<Fetches>);

struct Fetches {
    session: watch::Sender<Option<Outgoing>>,
    clock: Mutex<Clock>,
    next: AtomicU64,
    pieces: Mutex<HashMap<u64, oneshot::Sender<(u64, Bytes)>>>,
    wholes: Mutex<HashMap<u64, oneshot::Sender<Option<Bytes>>>>,
}

impl Default for Fetches {
    fn default() -> Self {
        Self {
            session: watch::Sender::new(None),
            clock: Mutex::default(),
            next: AtomicU64::default(),
            pieces: Mutex::default(),
            wholes: Mutex::default(),
        }
    }
}

impl Fetcher {
    /// The bytes of a bundle, `None` where the controller does not have it. Not checked against the digest. Begins anew where
    /// the link is cut and comes back.
    pub async fn fetch(&self, digest: Digest) -> Result<Option<Bytes>, LinkFailure> {
        let clock = self.0.clock.lock().clone();
        let pulled = clock.timeout(PULL_TIMEOUT, self.whole(digest, &clock)).await;
        pulled.ok_or(LinkFailure::Silent)?
    }

    async fn whole(&self, digest: Digest, clock: &Clock) -> Result<Option<Bytes>, LinkFailure> {
        loop {
            let mut session = self.0.session.subscribe();
            let up = clock.timeout(GRACE, session.wait_for(Option::is_some)).await;
            let Some(Ok(Some(outgoing))) = up.map(|up| up.map(|up| up.clone())) else {
                return Err(LinkFailure::Broken("no link is up".into()));
            };
            match outgoing {
                Outgoing::Whole(frames) => return self.in_pieces(digest, &frames, clock).await,
                Outgoing::Streams(says) => {
                    if let Some(pulled) = self.in_a_stream(digest, &says).await {
                        return Ok(pulled);
                    }
                }
            }
        }
    }

    /// `None` where the session ended before the bundle came.
    async fn in_a_stream(&self, digest: Digest, says: &tokio::sync::mpsc::Sender<Say>) -> Option<Option<Bytes>> {
        let fetch = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (reply, bundle) = oneshot::channel();
        self.0.wholes.lock().insert(fetch, reply);
        let _forget = Forget { fetcher: self, fetch };
        // It is closed when the session ends.
        tokio::select! {
            bundle = async { says.send(Say::Fetch { fetch, digest }).await.ok()?; bundle.await.ok() } => bundle,
            () = says.closed() => None,
        }
    }

    async fn in_pieces(
        &self,
        digest: Digest,
        frames: &tokio::sync::mpsc::UnboundedSender<ToController>,
        clock: &Clock,
    ) -> Result<Option<Bytes>, LinkFailure> {
        let mut whole = BytesMut::new();
        loop {
            let fetch = self.0.next.fetch_add(1, Ordering::Relaxed);
            let (reply, piece) = oneshot::channel();
            self.0.pieces.lock().insert(fetch, reply);
            let _forget = Forget { fetcher: self, fetch };
            let offset = whole.len() as u64;
            let asked = frames.send(ToController::Fetch { fetch, digest, offset });
            asked.map_err(|_| LinkFailure::Broken("the link was cut".into()))?;
            let piece = clock.timeout(PIECE_TIMEOUT, piece).await.ok_or(LinkFailure::Silent)?;
            let (total, piece) = piece.map_err(|_| LinkFailure::Broken("the link was cut".into()))?;
            if total == 0 {
                return Ok(None);
            }
            if total > BUNDLE_BYTES_MAX || (piece.is_empty() && (whole.len() as u64) < total) {
                return Err(LinkFailure::Protocol("a bundle is too large or ends early"));
            }
            whole.extend_from_slice(&piece);
            if whole.len() as u64 >= total {
                return Ok(Some(whole.freeze()));
            }
        }
    }

    pub(super) fn take_piece(&self, fetch: u64, total: u64, bytes: Bytes) {
        if let Some(reply) = self.0.pieces.lock().remove(&fetch) {
            let _ = reply.send((total, bytes));
        }
    }

    /// Whether somebody waits for this bundle.
    pub(super) fn wants(&self, fetch: u64) -> bool {
        self.0.wholes.lock().contains_key(&fetch)
    }

    pub(super) fn take_whole(&self, fetch: u64, bundle: Option<Bytes>) {
        if let Some(reply) = self.0.wholes.lock().remove(&fetch) {
            let _ = reply.send(bundle);
        }
    }

    pub(super) fn set(&self, outgoing: Option<Outgoing>, clock: Clock) {
        *self.0.clock.lock() = clock;
        self.0.session.send_replace(outgoing);
    }
}

/// Nobody waits for it any more.
struct Forget<'a> {
    fetcher: &'a Fetcher,
    fetch: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.fetcher.0.pieces.lock().remove(&self.fetch);
        self.fetcher.0.wholes.lock().remove(&self.fetch);
    }
}
