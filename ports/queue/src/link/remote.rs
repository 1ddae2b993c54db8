//! The controller's end: a provider far away, used like one in this process.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use piecework_model::{AccountId, Digest, FunctionId, LeaseId, Rejection, Seal};
use piecework_sandbox::LoadError;
use tokio::{
    sync::{mpsc, oneshot},
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Arrival, BEAT, DEAD_AFTER, GRACE, LinkFailure,
    frames::{Answer, Ask, OrderFrame, OrderId, ToController, ToProvider},
    secure::{Receiver, Sender},
};
use crate::{Delivery, Load, Order, Profile, ProviderLink, Refusal, Unsealed, Work};

/// Where a provider's bundles come from.
#[async_trait]
pub trait Bundles: Send + Sync {
    /// The bytes of a bundle, if it is kept here.
    async fn bundle(&self, digest: Digest) -> Option<Bytes>;
}

/// Part of a bundle in one message: small enough that orders do not wait long behind it.
const CHUNK_BYTES: u64 = 256 << 10;
/// What an order may take beyond the function's own timeout: pulling its bundle, starting cold, cuts. A provider that
/// is linked and yet does not answer for longer has lost the job.
const ANSWER_SLACK: Duration = Duration::from_secs(130);

/// One run of a provider's program, over however many sessions.
pub struct RemoteProvider {
    profile: Profile,
    instance: [u8; 16],
    state: Mutex<State>,
    asked: AtomicU64,
    /// Deliveries that nobody waited for any more.
    pub stale: AtomicU64,
}

struct State {
    session: Option<mpsc::UnboundedSender<ToProvider>>,
    heard: Instant,
    /// Counts sessions, so that the end of one does not touch the next.
    sessions: u64,
    orders: HashMap<OrderId, Waiting>,
    asks: HashMap<u64, (Ask, oneshot::Sender<Answer>)>,
    load: Load,
    warm: HashSet<(FunctionId, u32)>,
}

struct Waiting {
    frame: Box<OrderFrame>,
    version: (FunctionId, u32),
    reply: oneshot::Sender<Result<Delivery, Refusal>>,
}

impl State {
    fn new() -> Self {
        Self {
            session: None,
            heard: Instant::now(),
            sessions: 0,
            orders: HashMap::new(),
            asks: HashMap::new(),
            load: Load::default(),
            warm: HashSet::new(),
        }
    }

    fn send(&self, frame: ToProvider) {
        if let Some(session) = &self.session {
            // A session that is ending: what matters is sent again in the next one.
            let _ = session.send(frame);
        }
    }
}

fn lost() -> Rejection {
    Rejection::new("provider.lost", "the provider went away while the job was with it")
}

impl RemoteProvider {
    pub fn new(arrival: &Arrival) -> Arc<Self> {
        Arc::new(Self {
            profile: arrival.introduction.profile.clone(),
            instance: arrival.introduction.instance,
            state: Mutex::new(State::new()),
            asked: AtomicU64::new(0),
            stale: AtomicU64::new(0),
        })
    }

    /// Whether this is the same run of the same program, coming back after a cut.
    pub fn is_same_run(&self, arrival: &Arrival) -> bool {
        self.instance == arrival.introduction.instance && self.profile == arrival.introduction.profile
    }

    /// Whether a session is up in which something was heard lately.
    pub fn is_connected(&self) -> bool {
        let state = self.state.lock();
        state.session.is_some() && state.heard.elapsed() < DEAD_AFTER
    }

    /// Serves one session until it ends. What was ordered and not answered in an earlier one is ordered again. Jobs of a
    /// provider that stays away longer than [`GRACE`] are given up with `provider.lost`.
    pub async fn serve(
        self: &Arc<Self>,
        arrival: Arrival,
        bundles: &dyn Bundles,
        now_ms: u64,
        shutdown: &CancellationToken,
    ) -> LinkFailure {
        let (sender, receiver) = match arrival.welcome(now_ms).await {
            Ok(halves) => halves,
            Err(failure) => return failure,
        };
        let (outgoing, frames) = mpsc::unbounded_channel();
        let session = self.begin(outgoing);
        let ended = tokio::select! {
            failure = send_all(sender, frames) => failure,
            failure = self.receive_all(receiver, bundles) => failure,
            () = shutdown.cancelled() => LinkFailure::Broken("the controller stops".into()),
        };
        self.end(session);
        ended
    }

    fn begin(&self, outgoing: mpsc::UnboundedSender<ToProvider>) -> u64 {
        let mut state = self.state.lock();
        state.sessions += 1;
        state.session = Some(outgoing);
        state.heard = Instant::now();
        for waiting in state.orders.values() {
            state.send(ToProvider::Order(waiting.frame.clone()));
        }
        for (id, (ask, _)) in &state.asks {
            state.send(ToProvider::Ask(*id, Box::new(ask.clone())));
        }
        state.sessions
    }

    fn end(self: &Arc<Self>, session: u64) {
        let mut state = self.state.lock();
        if state.sessions != session {
            return;
        }
        state.session = None;
        drop(state);
        let remote = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            if let Some(remote) = remote.upgrade() {
                remote.give_up(session);
            }
        });
    }

    /// Whoever waits for this run of the provider waits in vain.
    pub fn abandon(&self) {
        let session = self.state.lock().sessions;
        self.state.lock().session = None;
        self.give_up(session);
    }

    fn give_up(&self, session: u64) {
        let mut state = self.state.lock();
        if state.sessions != session || state.session.is_some() {
            return;
        }
        for (_, waiting) in state.orders.drain() {
            let _ = waiting.reply.send(Err(lost()));
        }
        state.asks.clear();
        state.warm.clear();
    }

    async fn receive_all(&self, mut receiver: Receiver, bundles: &dyn Bundles) -> LinkFailure {
        loop {
            match timeout(DEAD_AFTER, receiver.receive()).await {
                Ok(Ok(frame)) => self.take(frame, bundles).await,
                Ok(Err(failure)) => return failure,
                Err(_) => return LinkFailure::Silent,
            }
        }
    }

    async fn take(&self, frame: ToController, bundles: &dyn Bundles) {
        self.state.lock().heard = Instant::now();
        match frame {
            ToController::Done(order, result) => self.done(order, *result),
            ToController::Answer(id, answer) => {
                if let Some((_, reply)) = self.state.lock().asks.remove(&id) {
                    let _ = reply.send(*answer);
                }
            }
            ToController::Fetch { fetch, digest, offset } => {
                let whole = bundles.bundle(digest).await.unwrap_or_default();
                let total = whole.len() as u64;
                let (from, to) = (offset.min(total), offset.saturating_add(CHUNK_BYTES).min(total));
                let bytes = whole.slice(from as usize..to as usize);
                self.state.lock().send(ToProvider::Chunk { fetch, total, bytes });
            }
            ToController::Beat { load, warm } => {
                let mut state = self.state.lock();
                state.load = load;
                state.warm = warm.into_iter().collect();
            }
        }
    }

    fn done(&self, order: OrderId, result: Result<super::frames::DeliveryFrame, Rejection>) {
        let mut state = self.state.lock();
        state.send(ToProvider::Confirm(order));
        let Some(waiting) = state.orders.remove(&order) else {
            self.stale.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if result.is_ok() {
            state.warm.insert(waiting.version);
        }
        let _ = waiting.reply.send(result.map(Delivery::from));
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, Rejection> {
        let id = self.asked.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.session.is_none() {
                return Err(Rejection::new("provider.none", "the provider is not connected"));
            }
            state.send(ToProvider::Ask(id, Box::new(ask.clone())));
            state.asks.insert(id, (ask, reply));
        }
        let _forget = Forget { remote: self, id };
        answer.await.map_err(|_| lost())
    }
}

/// Takes a question back that nobody waits for any more.
struct Forget<'a> {
    remote: &'a RemoteProvider,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.remote.state.lock().asks.remove(&self.id);
    }
}

/// Ends a job there that nobody waits for here.
struct Abandon<'a> {
    remote: &'a RemoteProvider,
    order: OrderId,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        let mut state = self.remote.state.lock();
        if state.orders.remove(&self.order).is_some() {
            state.send(ToProvider::Cancel(self.order));
        }
    }
}

async fn send_all(mut sender: Sender, mut frames: mpsc::UnboundedReceiver<ToProvider>) -> LinkFailure {
    let mut beat = interval(BEAT);
    loop {
        let frame = tokio::select! {
            frame = frames.recv() => match frame {
                Some(frame) => frame,
                None => return LinkFailure::Broken("another session took its place".into()),
            },
            _ = beat.tick() => ToProvider::Beat,
        };
        match timeout(DEAD_AFTER, sender.send(&frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => return failure,
            Err(_) => return LinkFailure::Silent,
        }
    }
}

#[async_trait]
impl ProviderLink for RemoteProvider {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn load(&self) -> Load {
        let state = self.state.lock();
        let ordered = u32::try_from(state.orders.len()).unwrap_or(u32::MAX);
        Load {
            running: state.load.running.max(ordered),
            ..state.load
        }
    }

    fn is_warm(&self, function: FunctionId, version: u32) -> bool {
        self.state.lock().warm.contains(&(function, version))
    }

    fn warm(&self) -> Vec<(FunctionId, u32)> {
        self.state.lock().warm.iter().copied().collect()
    }

    fn is_linked(&self) -> bool {
        self.state.lock().session.is_some()
    }

    fn silent_ms(&self) -> u64 {
        let silent = self.state.lock().heard.elapsed();
        u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)
    }

    async fn check(&self, work: Arc<Work>) -> Result<(), LoadError> {
        match self.ask(Ask::Check(Work::clone(&work))).await {
            Ok(Answer::Checked(result)) => result,
            Ok(Answer::Accepted(_) | Answer::Sealed(_)) => {
                Err(LoadError::Failed("it answered another question".into()))
            }
            Err(rejection) => Err(LoadError::Failed(rejection.message)),
        }
    }

    async fn run(&self, order: Order) -> Result<Delivery, Refusal> {
        let id = OrderId::of(&order.ticket);
        let (reply, mut delivery) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.session.is_none() {
                return Err(Rejection::new("provider.none", "the provider is not connected"));
            }
            let frame = Box::new(OrderFrame::new(&order));
            state.send(ToProvider::Order(frame.clone()));
            let waiting = Waiting {
                frame,
                version: (order.work.function, order.work.version),
                reply,
            };
            state.orders.insert(id, waiting);
        }
        let _abandon = Abandon {
            remote: self,
            order: id,
        };
        let answer = async {
            tokio::select! {
                result = &mut delivery => return result,
                () = order.cancel.cancelled() => self.state.lock().send(ToProvider::Cancel(id)),
            }
            delivery.await
        };
        let limit = Duration::from_millis(u64::from(order.ticket.limits.timeout_ms)) + ANSWER_SLACK;
        match timeout(limit, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(lost()),
        }
    }

    async fn accept_seal(&self, seal: Seal, sequences: Vec<u64>) -> Result<(), Refusal> {
        match self.ask(Ask::AcceptSeal(seal, sequences)).await? {
            Answer::Accepted(result) => result,
            Answer::Checked(_) | Answer::Sealed(_) => Err(lost()),
        }
    }

    async fn seal_receipts(&self, lane: (LeaseId, AccountId), receipts: Vec<Unsealed>) -> Result<Seal, Refusal> {
        match self.ask(Ask::SealReceipts(lane, receipts)).await? {
            Answer::Sealed(result) => result,
            Answer::Checked(_) | Answer::Accepted(_) => Err(lost()),
        }
    }

    fn forget(&self, function: FunctionId, version: u32) {
        let mut state = self.state.lock();
        state.warm.remove(&(function, version));
        state.send(ToProvider::Forget(function, version));
    }
}
