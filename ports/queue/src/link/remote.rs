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
    sync::{Notify, mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Arrival, DEAD_AFTER, GRACE, LinkFailure,
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
/// Pieces that wait to be sent; a provider that asks for more is not read from until it has taken some.
const CHUNKS_WAITING: usize = 4;
/// The longest that a session says nothing.
const QUIET_MAX: Duration = Duration::from_secs(3);
/// An answer to a question other than a check comes at once.
const SEAL_TIMEOUT: Duration = Duration::from_secs(30);
/// What an order may take beyond the function's own timeout: pulling its bundle, starting cold, cuts. A provider that
/// is linked and yet does not answer for longer has lost the job.
const ANSWER_SLACK: Duration = Duration::from_secs(130);

/// One run of a provider's program, over however many sessions.
pub struct RemoteProvider {
    profile: Profile,
    instance: [u8; 16],
    state: Mutex<State>,
    /// It came, went, or takes jobs otherwise than before.
    stirred: Notify,
    asked: AtomicU64,
    /// Deliveries that nobody waited for any more.
    pub stale: AtomicU64,
}

struct State {
    session: Option<mpsc::UnboundedSender<ToProvider>>,
    heard: Arc<Mutex<Instant>>,
    /// Counts sessions, so that the end of one does not touch the next.
    sessions: u64,
    orders: HashMap<OrderId, Waiting>,
    asks: HashMap<u64, (Ask, oneshot::Sender<Answer>)>,
    load: Load,
    warm: HashSet<(FunctionId, u32)>,
    /// Bundles of the work it was given: it gets no others.
    given: HashSet<Digest>,
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
            heard: Arc::new(Mutex::new(Instant::now())),
            sessions: 0,
            orders: HashMap::new(),
            asks: HashMap::new(),
            load: Load::default(),
            warm: HashSet::new(),
            given: HashSet::new(),
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
            stirred: Notify::new(),
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
        state.session.is_some() && state.heard.lock().elapsed() < DEAD_AFTER
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
        let (outgoing, frames) = mpsc::unbounded_channel();
        let (chunks, chunks_waiting) = mpsc::channel(CHUNKS_WAITING);
        // Before the welcome: whoever reads it may count on being given jobs.
        let session = self.begin(outgoing, arrival.receiver.heard());
        let (sender, receiver) = match arrival.welcome(now_ms).await {
            Ok(halves) => halves,
            Err(failure) => {
                self.end(session);
                return failure;
            }
        };
        let shelf = Shelf {
            bundles,
            open: None,
            chunks,
        };
        let ended = tokio::select! {
            failure = send_all(sender, frames, chunks_waiting) => failure,
            failure = self.receive_all(receiver, shelf) => failure,
            () = shutdown.cancelled() => LinkFailure::Broken("the controller stops".into()),
        };
        self.end(session);
        ended
    }

    fn begin(&self, outgoing: mpsc::UnboundedSender<ToProvider>, heard: Arc<Mutex<Instant>>) -> u64 {
        let mut state = self.state.lock();
        state.sessions += 1;
        state.session = Some(outgoing);
        state.heard = heard;
        for waiting in state.orders.values() {
            state.send(ToProvider::Order(waiting.frame.clone()));
        }
        for (id, (ask, _)) in &state.asks {
            state.send(ToProvider::Ask(*id, Box::new(ask.clone())));
        }
        self.stirred.notify_one();
        state.sessions
    }

    fn end(self: &Arc<Self>, session: u64) {
        let mut state = self.state.lock();
        if state.sessions != session {
            return;
        }
        state.session = None;
        drop(state);
        self.stirred.notify_one();
        let remote = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep(GRACE).await;
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

    async fn receive_all(&self, mut receiver: Receiver, mut shelf: Shelf<'_>) -> LinkFailure {
        loop {
            match receiver.receive().await {
                Ok(frame) => self.take(frame, &mut shelf).await,
                Err(failure) => return failure,
            }
        }
    }

    async fn take(&self, frame: ToController, shelf: &mut Shelf<'_>) {
        match frame {
            ToController::Done(order, result) => self.done(order, *result),
            ToController::Answer(id, answer) => {
                if let Some((_, reply)) = self.state.lock().asks.remove(&id) {
                    let _ = reply.send(*answer);
                }
            }
            ToController::Fetch { fetch, digest, offset } => {
                let is_given = self.state.lock().given.contains(&digest);
                shelf.serve(fetch, is_given.then_some(digest), offset).await;
            }
            ToController::Beat { load, warm } => {
                let mut state = self.state.lock();
                if (state.load.draining, state.load.paused) != (load.draining, load.paused) {
                    self.stirred.notify_one();
                }
                state.load = load;
                state.warm = warm.into_iter().collect();
                state.send(ToProvider::Beat);
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
        let limit = {
            let mut state = self.state.lock();
            if state.session.is_none() {
                return Err(Rejection::new("provider.none", "the provider is not connected"));
            }
            let mut limit = SEAL_TIMEOUT;
            if let Ask::Check(work) = &ask {
                state.given.insert(work.code);
                limit = ANSWER_SLACK;
            }
            state.send(ToProvider::Ask(id, Box::new(ask.clone())));
            state.asks.insert(id, (ask, reply));
            limit
        };
        let _forget = Forget { remote: self, id };
        match timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(lost()),
        }
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

/// Pieces of bundles come last: orders do not wait behind them.
async fn send_all(
    mut sender: Sender,
    mut frames: mpsc::UnboundedReceiver<ToProvider>,
    mut chunks: mpsc::Receiver<ToProvider>,
) -> LinkFailure {
    loop {
        let frame = tokio::select! {
            biased;
            frame = frames.recv() => match frame {
                Some(frame) => frame,
                None => return LinkFailure::Broken("another session took its place".into()),
            },
            Some(chunk) = chunks.recv() => chunk,
            // A provider that is busy with a large frame asks for no answer meanwhile.
            () = sleep(QUIET_MAX) => ToProvider::Beat,
        };
        if let Err(failure) = sender.send(&frame).await {
            return failure;
        }
    }
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
        let silent = self.state.lock().heard.lock().elapsed();
        u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)
    }

    async fn changed(&self) {
        self.stirred.notified().await;
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
            state.given.insert(order.work.code);
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
