//! The provider's end: takes orders from a controller, and keeps what came of them until the controller confirms it.

mod streams;
mod whole;

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::FutureExt as _;
use parking_lot::Mutex;
use piecework_model::{Code, NetworkId, PublicKey, Rejection, Salt, SecretKey};
use piecework_sandbox::{Inlet, Outlet, Sent};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Clock, Fetcher, LinkFailure, Versions, Wire,
    frames::{Answer, Ask, DeliveryFrame, OrderFrame, OrderId, ToController},
    handshake::{Introduction, introduce},
    messages::Say,
};
use crate::{Delivery, FunctionId, Load, Order, ProviderLink, Refusal};

/// Versions told as warm in one beat.
pub(super) const WARM_TOLD_MAX: usize = 1_000;
/// Results that no controller has confirmed. An honest one confirms each at once; beyond this many no order is taken.
const UNCONFIRMED_MAX: usize = 1_000;

/// One run of a provider's program as its controller sees it; lives through cuts of the connection.
pub struct Agent {
    key: SecretKey,
    network: NetworkId,
    instance: [u8; 16],
    provider: Arc<dyn ProviderLink>,
    fetcher: Fetcher,
    versions: Versions,
    orders: Mutex<HashMap<OrderId, Arc<Run>>>,
    /// The session that is up.
    session: Mutex<Option<Outgoing>>,
    welcomed: watch::Sender<Option<PublicKey>>,
}

/// Where a session takes what is to be said, by its version.
#[derive(Clone)]
pub(super) enum Outgoing {
    /// Version 2. Bounded by the jobs and questions under way.
    Whole(mpsc::UnboundedSender<ToController>),
    Streams(mpsc::Sender<Say>),
}

type RunResult = Arc<Result<DeliveryFrame, Rejection>>;

/// One order that was taken, until its result is confirmed.
struct Run {
    cancel: CancellationToken,
    /// What the function gives out. Locked by the stream that carries it.
    parts: tokio::sync::Mutex<mpsc::Receiver<Sent>>,
    /// Parts of the answer, or of the request's body, have left here: a session that ends takes them with it.
    has_passed: AtomicBool,
    /// They were taken: what came of the run is told, and its answer is not whole.
    is_cut: AtomicBool,
    is_carried: AtomicBool,
    /// Keeps the way of the request's body open until all of it has arrived.
    body: Mutex<Option<mpsc::Sender<bytes::Bytes>>>,
    result: watch::Sender<Option<RunResult>>,
}

impl Run {
    fn new(parts: mpsc::Receiver<Sent>, has_passed: bool) -> Arc<Self> {
        Arc::new(Self {
            cancel: CancellationToken::new(),
            parts: tokio::sync::Mutex::new(parts),
            has_passed: AtomicBool::new(has_passed),
            is_cut: AtomicBool::new(false),
            is_carried: AtomicBool::new(false),
            body: Mutex::default(),
            result: watch::Sender::new(None),
        })
    }

    fn result(&self) -> Option<RunResult> {
        self.result.borrow().clone()
    }
}

/// What an order says beside its frame, by the version of the link.
#[derive(Clone, Copy, Default)]
struct Terms {
    salt: Option<Salt>,
    is_tentative: bool,
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
        Self::speaking(Versions::OURS, (key, network, instance), provider, fetcher)
    }

    /// One that speaks these versions of the link, of those that there are.
    pub fn speaking(
        versions: Versions,
        (key, network, instance): (SecretKey, NetworkId, [u8; 16]),
        provider: Arc<dyn ProviderLink>,
        fetcher: Fetcher,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            network,
            instance,
            provider,
            fetcher,
            versions,
            orders: Mutex::default(),
            session: Mutex::default(),
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
        let about = (introduction, self.versions);
        let welcome = match introduce(wire, &self.key, self.network, about, trusts).await {
            Ok(welcome) => welcome,
            Err(failure) => return failure,
        };
        self.provider
            .set_clock_offset(welcome.now_ms.cast_signed().wrapping_sub(now_ms().cast_signed()));
        let clock = welcome.receiver.clock.clone();
        let ended = match welcome.version {
            2 => Box::pin(whole::session(self, welcome)).await,
            _ => Box::pin(streams::session(self, welcome)).await,
        };
        self.welcomed.send_replace(None);
        *self.session.lock() = None;
        self.fetcher.set(None, clock);
        ended
    }

    /// From here on results go there. Orders of earlier sessions, with what came of them where that is known.
    fn begin(&self, outgoing: &Outgoing, controller: PublicKey, clock: Clock) -> Vec<(OrderId, Option<RunResult>)> {
        let orders = self.orders.lock();
        *self.session.lock() = Some(outgoing.clone());
        self.fetcher.set(Some(outgoing.clone()), clock);
        self.welcomed.send_replace(Some(controller));
        orders.iter().map(|(id, run)| (*id, run.result())).collect()
    }

    fn beat(&self) -> (Load, Vec<(FunctionId, u32)>) {
        let mut warm = self.provider.warm();
        warm.truncate(WARM_TOLD_MAX);
        (self.provider.load(), warm)
    }

    fn run_of(&self, id: OrderId) -> Option<Arc<Run>> {
        self.orders.lock().get(&id).cloned()
    }

    fn cancel(&self, id: OrderId) {
        if let Some(run) = self.run_of(id) {
            run.cancel.cancel();
        }
    }

    /// What came of it arrived.
    fn confirm(&self, id: OrderId) {
        let mut orders = self.orders.lock();
        if orders.get(&id).is_some_and(|run| run.result().is_some()) {
            orders.remove(&id);
        }
    }

    /// The run of this order, and whether it begins by this. `streams`: whether somebody reads what the function gives out.
    fn take(
        self: &Arc<Self>,
        (frame, terms): (OrderFrame, Terms),
        body: Option<Inlet>,
        streams: bool,
    ) -> (Arc<Run>, bool) {
        let id = OrderId::of(&frame.ticket);
        let (outlet, mut parts) = Outlet::channel();
        if !streams {
            parts.close();
        }
        let run = Run::new(parts, body.is_some());
        {
            let mut orders = self.orders.lock();
            if let Some(known) = orders.get(&id) {
                return (known.clone(), false);
            }
            let unconfirmed = orders.values().filter(|run| run.result.borrow().is_some()).count();
            if unconfirmed >= UNCONFIRMED_MAX {
                let full = Rejection::new(Code::ProviderNoSlot, "too many results wait to be confirmed");
                run.result.send_replace(Some(Arc::new(Err(full))));
                return (run, false);
            }
            orders.insert(id, run.clone());
        }
        let order = Order {
            salt: terms.salt,
            is_tentative: terms.is_tentative,
            ..frame.into_order(run.cancel.clone(), (body, outlet))
        };
        let (agent, running) = (self.clone(), run.clone());
        tokio::spawn(async move {
            let result = unless_it_panics(agent.provider.run(order)).await;
            let result = Arc::new(result.map(DeliveryFrame::from));
            running.result.send_replace(Some(result.clone()));
            agent.announce(id, &running, result).await;
        });
        (run, true)
    }

    /// Tells the session that is up, if no stream of it does. One that comes later is told when it begins.
    async fn announce(&self, id: OrderId, run: &Run, result: RunResult) {
        let session = self.session.lock().clone();
        match session {
            None => {}
            Some(Outgoing::Whole(frames)) => {
                // A session that is ending.
                let _ = frames.send(ToController::Done(id, Box::new(Result::clone(&result))));
            }
            Some(Outgoing::Streams(_)) if run.is_carried.load(Ordering::SeqCst) => {}
            Some(Outgoing::Streams(says)) => _ = says.send(Say::Kept(id)).await,
        }
    }

    async fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Check(work) => Answer::Checked(self.provider.check(Arc::new(work)).await),
            Ask::AcceptSeal(seal, sequences) => Answer::Accepted(self.provider.accept_seal(seal, sequences).await),
            Ask::SealReceipts(lane, receipts) => Answer::Sealed(self.provider.seal_receipts(lane, receipts).await),
        }
    }
}

/// A bug in one job's way ends that job: without an answer its order would wait for ever, and count among those that run.
async fn unless_it_panics(run: impl Future<Output = Result<Delivery, Refusal>>) -> Result<Delivery, Refusal> {
    // Nothing of the run is looked at afterwards but what its provider keeps whole under locks.
    AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a job ended by a bug of the provider");
        Err(Rejection::new(
            Code::SandboxFailed,
            "the provider failed while it ran the job",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_run_is_a_failure_of_that_job_alone() {
        let failed = unless_it_panics(async { panic!("a bug") }).await;
        assert_eq!(
            failed.err().map(|refused| refused.code),
            Some(Code::SandboxFailed.into())
        );
        let refused = unless_it_panics(async { Err(Rejection::new(Code::ProviderNoSlot, "full")) }).await;
        assert_eq!(
            refused.err().map(|refused| refused.code),
            Some(Code::ProviderNoSlot.into())
        );
    }
}
