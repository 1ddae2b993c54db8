//! The provider's end: takes orders from a controller, and keeps what came of them until the controller confirms it.

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
use piecework_model::{Digest, NetworkId, PublicKey, Rejection, SecretKey};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    BEAT, LinkFailure, Wire,
    frames::{Answer, Ask, DeliveryFrame, OrderFrame, OrderId, ToController, ToProvider},
    handshake::{Introduction, introduce},
    secure::{Receiver, Sender},
};
use crate::ProviderLink;

/// Versions told as warm in one beat.
const WARM_TOLD_MAX: usize = 1_000;
/// A bundle comes in pieces; a piece that does not come for this long is not waited for.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pulling a whole bundle may take this long, and is billed to nobody.
const PULL_TIMEOUT: Duration = Duration::from_secs(120);
/// A bundle is at most this large, compressed.
const BUNDLE_BYTES_MAX: u64 = 256 << 20;

/// One run of a provider's program as its controller sees it; lives through cuts of the connection.
pub struct Agent {
    key: SecretKey,
    network: NetworkId,
    instance: [u8; 16],
    provider: Arc<dyn ProviderLink>,
    fetcher: Fetcher,
    orders: Mutex<HashMap<OrderId, Taken>>,
    /// To the session that is up.
    outgoing: Mutex<Option<mpsc::UnboundedSender<ToController>>>,
    welcomed: watch::Sender<Option<PublicKey>>,
}

enum Taken {
    Running(CancellationToken),
    /// Not yet confirmed.
    Done(Box<Result<DeliveryFrame, Rejection>>),
}

/// Pulls bundles over whichever session is up.
#[derive(Clone, Default)]
pub struct Fetcher(Arc<Fetches>);

#[derive(Default)]
struct Fetches {
    outgoing: Mutex<Option<mpsc::UnboundedSender<ToController>>>,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<(u64, Bytes)>>>,
}

impl Fetcher {
    /// The bytes of a bundle, `None` where the controller does not have it. Not checked against the digest.
    pub async fn fetch(&self, digest: Digest) -> Result<Option<Bytes>, LinkFailure> {
        timeout(PULL_TIMEOUT, self.whole(digest))
            .await
            .map_err(|_| LinkFailure::Silent)?
    }

    async fn whole(&self, digest: Digest) -> Result<Option<Bytes>, LinkFailure> {
        let mut whole = BytesMut::new();
        loop {
            let (total, piece) = self.piece(digest, whole.len() as u64).await?;
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

    async fn piece(&self, digest: Digest, offset: u64) -> Result<(u64, Bytes), LinkFailure> {
        let fetch = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (reply, piece) = oneshot::channel();
        self.0.waiting.lock().insert(fetch, reply);
        let frame = ToController::Fetch { fetch, digest, offset };
        let sent = self
            .0
            .outgoing
            .lock()
            .as_ref()
            .is_some_and(|out| out.send(frame).is_ok());
        let piece = match sent {
            true => timeout(PIECE_TIMEOUT, piece).await.map_err(|_| LinkFailure::Silent),
            false => Err(LinkFailure::Broken("no link is up".into())),
        };
        self.0.waiting.lock().remove(&fetch);
        piece?.map_err(|_| LinkFailure::Broken("the link was cut".into()))
    }

    fn take(&self, fetch: u64, total: u64, bytes: Bytes) {
        if let Some(reply) = self.0.waiting.lock().remove(&fetch) {
            let _ = reply.send((total, bytes));
        }
    }

    fn set(&self, outgoing: Option<mpsc::UnboundedSender<ToController>>) {
        *self.0.outgoing.lock() = outgoing;
    }
}

impl Agent {
    /// `instance` is random and new for each run of the program; `fetcher` is the one that the provider's bundles use.
    pub fn new(
        key: SecretKey,
        network: NetworkId,
        instance: [u8; 16],
        provider: Arc<dyn ProviderLink>,
        fetcher: Fetcher,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            network,
            instance,
            provider,
            fetcher,
            orders: Mutex::default(),
            outgoing: Mutex::default(),
            welcomed: watch::Sender::new(None),
        })
    }

    /// The controller of the session that is up.
    pub fn linked_to(&self) -> watch::Receiver<Option<PublicKey>> {
        self.welcomed.subscribe()
    }

    /// Orders that run here or wait to be confirmed.
    pub fn orders(&self) -> usize {
        self.orders.lock().len()
    }

    /// Serves one session until it ends. `trusts` sees the controller's key before anything is told to it; `now_ms` is this
    /// machine's clock.
    pub async fn session(
        self: &Arc<Self>,
        wire: Wire,
        trusts: &(dyn Fn(PublicKey) -> Result<(), Rejection> + Send + Sync),
        now_ms: impl Fn() -> u64,
    ) -> LinkFailure {
        let introduction = Introduction {
            profile: self.provider.profile().clone(),
            instance: self.instance,
        };
        let (controller, their_ms, sender, receiver) =
            match introduce(wire, &self.key, self.network, introduction, trusts).await {
                Ok(welcome) => welcome,
                Err(failure) => return failure,
            };
        self.provider
            .set_clock_offset(their_ms.cast_signed().wrapping_sub(now_ms().cast_signed()));
        let (outgoing, frames) = mpsc::unbounded_channel();
        self.begin(&outgoing);
        self.welcomed.send_replace(Some(controller));
        let ended = tokio::select! {
            failure = self.send_all(sender, frames) => failure,
            failure = self.receive_all(receiver) => failure,
        };
        self.welcomed.send_replace(None);
        *self.outgoing.lock() = None;
        self.fetcher.set(None);
        ended
    }

    fn begin(&self, outgoing: &mpsc::UnboundedSender<ToController>) {
        let orders = self.orders.lock();
        *self.outgoing.lock() = Some(outgoing.clone());
        self.fetcher.set(Some(outgoing.clone()));
        for (id, taken) in orders.iter() {
            if let Taken::Done(result) = taken {
                let _ = outgoing.send(ToController::Done(*id, result.clone()));
            }
        }
    }

    fn send(&self, frame: ToController) {
        if let Some(outgoing) = &*self.outgoing.lock() {
            // A session that is ending: deliveries are sent again in the next one.
            let _ = outgoing.send(frame);
        }
    }

    async fn send_all(&self, mut sender: Sender, mut frames: mpsc::UnboundedReceiver<ToController>) -> LinkFailure {
        let mut beat = interval(BEAT);
        loop {
            let frame = tokio::select! {
                Some(frame) = frames.recv() => frame,
                _ = beat.tick() => self.beat(),
                () = self.provider.changed() => self.beat(),
            };
            if let Err(failure) = sender.send(&frame).await {
                return failure;
            }
        }
    }

    fn beat(&self) -> ToController {
        let mut warm = self.provider.warm();
        warm.truncate(WARM_TOLD_MAX);
        ToController::Beat {
            load: self.provider.load(),
            warm,
        }
    }

    async fn receive_all(self: &Arc<Self>, mut receiver: Receiver) -> LinkFailure {
        loop {
            match receiver.receive().await {
                Ok(frame) => self.take(frame),
                Err(failure) => return failure,
            }
        }
    }

    fn take(self: &Arc<Self>, frame: ToProvider) {
        match frame {
            ToProvider::Order(order) => self.order(*order),
            ToProvider::Cancel(id) => {
                if let Some(Taken::Running(cancel)) = self.orders.lock().get(&id) {
                    cancel.cancel();
                }
            }
            ToProvider::Confirm(id) => {
                let mut orders = self.orders.lock();
                if matches!(orders.get(&id), Some(Taken::Done(_))) {
                    orders.remove(&id);
                }
            }
            ToProvider::Ask(id, ask) => {
                let agent = self.clone();
                tokio::spawn(async move {
                    let answer = agent.answer(*ask).await;
                    agent.send(ToController::Answer(id, Box::new(answer)));
                });
            }
            ToProvider::Forget(function, version) => self.provider.forget(function, version),
            ToProvider::Chunk { fetch, total, bytes } => self.fetcher.take(fetch, total, bytes),
            ToProvider::Beat => {}
        }
    }

    fn order(self: &Arc<Self>, frame: OrderFrame) {
        let id = OrderId::of(&frame.ticket);
        let cancel = CancellationToken::new();
        {
            let mut orders = self.orders.lock();
            match orders.get(&id) {
                Some(Taken::Running(_)) => return,
                Some(Taken::Done(result)) => return self.send(ToController::Done(id, result.clone())),
                None => orders.insert(id, Taken::Running(cancel.clone())),
            };
        }
        let agent = self.clone();
        tokio::spawn(async move {
            let result = agent.provider.run(frame.into_order(cancel)).await;
            let result = Box::new(result.map(DeliveryFrame::from));
            agent.orders.lock().insert(id, Taken::Done(result.clone()));
            agent.send(ToController::Done(id, result));
        });
    }

    async fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Check(work) => Answer::Checked(self.provider.check(Arc::new(work)).await),
            Ask::AcceptSeal(seal, sequences) => Answer::Accepted(self.provider.accept_seal(seal, sequences).await),
            Ask::SealReceipts(lane, receipts) => Answer::Sealed(self.provider.seal_receipts(lane, receipts).await),
        }
    }
}
