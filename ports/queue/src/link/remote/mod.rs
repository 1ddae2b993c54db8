//! The controller's end: a provider far away, used like one in this process.

mod streams;
mod whole;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use piecework_model::{AccountId, Code, Digest, FunctionId, Language, LeaseId, Rejection, Seal};
use piecework_sandbox::LoadError;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Arrival, Clock, DEAD_AFTER, GRACE, LinkFailure,
    agent::WARM_TOLD_MAX,
    ending::Ending,
    frames::{Answer, Ask, OrderId},
    parts::EVENT_BYTES_MAX,
};
use crate::{Delivery, Load, Order, Profile, ProviderLink, Refusal, Unsealed, Work};

/// Where a provider's bundles come from.
#[async_trait]
pub trait Bundles: Send + Sync {
    /// The bytes of a bundle, if it is kept here.
    async fn bundle(&self, digest: Digest) -> Option<Bytes>;

    /// The blobs that the bundle of an image names, which are needed to run it; none where it is not kept here.
    async fn named_by(&self, image: Digest) -> Vec<Digest>;
}

/// The longest that a session says nothing.
const QUIET_MAX: Duration = Duration::from_secs(3);
/// An answer to a question other than a check comes at once.
const SEAL_TIMEOUT: Duration = Duration::from_secs(30);
/// What an order may take beyond the function's own timeout: pulling its bundle, starting cold, cuts. A provider that
/// is linked and yet does not answer for longer has lost the job.
const ANSWER_SLACK: Duration = Duration::from_secs(130);

/// One run of a provider's program, over however many sessions.
pub struct RemoteProvider {
    me: Weak<Self>,
    profile: Profile,
    instance: [u8; 16],
    clock: Clock,
    /// Held by whoever looks into images.
    naming: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// It came, went, or takes jobs otherwise than before.
    stirred: Notify,
    asked: AtomicU64,
    /// Deliveries that nobody waited for any more.
    pub stale: AtomicU64,
}

/// Where a session takes what is to be said, by its version.
#[derive(Clone)]
enum Outgoing {
    Whole(Arc<whole::Session>),
    Streams(Arc<streams::Session>),
}

struct State {
    session: Option<Outgoing>,
    heard: Arc<Mutex<Instant>>,
    /// Counts sessions, so that the end of one does not touch the next.
    sessions: u64,
    orders: HashMap<OrderId, Arc<Job>>,
    asks: HashMap<u64, (Ask, oneshot::Sender<Answer>)>,
    load: Load,
    warm: HashSet<(FunctionId, u32)>,
    /// Bundles of the work it was given: it gets no others.
    given: HashSet<Digest>,
    /// Those of them that describe an image and were not looked into yet: what they name is given, too.
    unread: Vec<Digest>,
}

impl State {
    fn give(&mut self, work: &Work) {
        if self.given.insert(work.code) && work.language == Language::Image {
            self.unread.push(work.code);
        }
    }
}

/// An order that somebody waits for.
struct Job {
    id: OrderId,
    order: Order,
    /// Parts of the answer were passed on, or of the body sent: it is not ordered again in a later session.
    has_passed: AtomicBool,
    /// Nobody waits for it any more.
    is_dropped: CancellationToken,
    reply: Mutex<Option<oneshot::Sender<Result<Delivery, Refusal>>>>,
}

impl Job {
    fn reply(&self, result: Result<Delivery, Refusal>) {
        if let Some(reply) = self.reply.lock().take() {
            // Whoever waited may have gone this moment.
            let _ = reply.send(result);
        }
    }
}

impl Outgoing {
    fn order(&self, remote: &Arc<RemoteProvider>, job: &Arc<Job>) {
        match self {
            Self::Whole(session) => session.order(job),
            Self::Streams(session) => _ = tokio::spawn(session.clone().carry(remote.clone(), job.clone())),
        }
    }

    fn cancel(&self, order: OrderId) {
        match self {
            Self::Whole(session) => session.cancel(order),
            Self::Streams(session) => session.cancel(order),
        }
    }

    fn ask(&self, id: u64, ask: &Ask) {
        match self {
            Self::Whole(session) => session.ask(id, ask),
            Self::Streams(session) => session.ask(id, ask),
        }
    }

    fn forget(&self, function: FunctionId, version: u32) {
        match self {
            Self::Whole(session) => session.forget(function, version),
            Self::Streams(session) => session.forget(function, version),
        }
    }

    fn ending(&self) -> &Ending {
        match self {
            Self::Whole(session) => &session.ending,
            Self::Streams(session) => &session.ending,
        }
    }
}

fn lost() -> Rejection {
    Rejection::new(Code::ProviderLost, "the provider went away while the job was with it")
}

fn not_connected() -> Rejection {
    Rejection::new(Code::ProviderNone, "the provider is not connected")
}

impl RemoteProvider {
    pub fn new(arrival: &Arrival) -> Arc<Self> {
        let clock = arrival.receiver.clock.clone();
        let state = State {
            session: None,
            heard: Arc::new(Mutex::new(clock.now())),
            sessions: 0,
            orders: HashMap::new(),
            asks: HashMap::new(),
            load: Load::default(),
            warm: HashSet::new(),
            given: HashSet::new(),
            unread: Vec::new(),
        };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            profile: arrival.introduction.profile.clone(),
            instance: arrival.introduction.instance,
            clock,
            naming: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
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
        self.is_linked() && self.silence() < DEAD_AFTER
    }

    fn silence(&self) -> Duration {
        let heard = *self.state.lock().heard.lock();
        self.clock.now().saturating_duration_since(heard)
    }

    /// Serves one session until it ends. What was ordered and not answered in an earlier one is ordered again, unless parts of
    /// it have passed: then only what came of it is asked for. Jobs of a provider that stays away longer than [`GRACE`] are
    /// given up with `provider.lost`.
    pub async fn serve(
        self: &Arc<Self>,
        arrival: Arrival,
        bundles: &dyn Bundles,
        now_ms: u64,
        shutdown: &CancellationToken,
    ) -> LinkFailure {
        let serving = async {
            match arrival.version {
                2 => Box::pin(whole::serve(self, arrival, bundles, now_ms)).await,
                _ => Box::pin(streams::serve(self, arrival, bundles, now_ms)).await,
            }
        };
        tokio::select! {
            failure = serving => failure,
            () = shutdown.cancelled() => LinkFailure::Broken("the controller stops".into()),
        }
    }

    /// Orders go there from here on, until it is dropped. Which orders of earlier sessions are waited for.
    fn begin(self: &Arc<Self>, outgoing: Outgoing, heard: Arc<Mutex<Instant>>) -> (Up, Vec<OrderId>) {
        let mut state = self.state.lock();
        state.sessions += 1;
        if let Some(before) = state.session.replace(outgoing.clone()) {
            before
                .ending()
                .fail(LinkFailure::Broken("another session took its place".into()));
        }
        state.heard = heard;
        for job in state.orders.values() {
            outgoing.order(self, job);
        }
        for (id, (ask, _)) in &state.asks {
            outgoing.ask(*id, ask);
        }
        self.stirred.notify_one();
        let up = Up {
            remote: self.clone(),
            session: state.sessions,
            clock: self.clock.clone(),
        };
        (up, state.orders.keys().copied().collect())
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
        for (_, job) in state.orders.drain() {
            job.is_dropped.cancel();
            job.reply(Err(lost()));
        }
        state.asks.clear();
        state.warm.clear();
    }

    /// `Protocol` where it names more versions than an honest provider tells.
    fn note_beat(&self, load: Load, warm: Vec<(FunctionId, u32)>) -> Result<(), LinkFailure> {
        if warm.len() > WARM_TOLD_MAX {
            return Err(LinkFailure::Protocol("it tells of too many warm versions"));
        }
        let mut state = self.state.lock();
        if (state.load.draining, state.load.paused) != (load.draining, load.paused) {
            self.stirred.notify_one();
        }
        state.load = load;
        state.warm = warm.into_iter().collect();
        Ok(())
    }

    fn note_answer(&self, id: u64, answer: Answer) {
        if let Some((_, reply)) = self.state.lock().asks.remove(&id) {
            // Whoever asked may have gone this moment.
            let _ = reply.send(answer);
        }
    }

    fn is_given(&self, digest: Digest) -> bool {
        self.state.lock().given.contains(&digest)
    }

    /// As [`Self::is_given`], also of what the images name that it was given.
    async fn may_have(&self, bundles: &dyn Bundles, digest: Digest) -> bool {
        // Who comes second waits for what the first reads.
        let _one_at_a_time = self.naming.lock().await;
        if self.is_given(digest) {
            return true;
        }
        let unread = std::mem::take(&mut self.state.lock().unread);
        for image in unread {
            let named = bundles.named_by(image).await;
            self.state.lock().given.extend(named);
        }
        self.is_given(digest)
    }

    fn is_waited_for(&self, order: OrderId) -> bool {
        self.state.lock().orders.contains_key(&order)
    }

    fn note_stale(&self) {
        self.stale.fetch_add(1, Ordering::Relaxed);
    }

    /// What came of an order; the caller confirms it.
    fn done(&self, order: OrderId, result: Result<Delivery, Rejection>) {
        let mut state = self.state.lock();
        let Some(job) = state.orders.remove(&order) else {
            drop(state);
            return self.note_stale();
        };
        if result.is_ok() {
            let work = &job.order.work;
            state.warm.insert((work.function, work.version));
        }
        drop(state);
        job.reply(result);
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, Rejection> {
        let id = self.asked.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let limit = {
            let mut state = self.state.lock();
            let Some(session) = state.session.clone() else {
                return Err(not_connected());
            };
            let mut limit = SEAL_TIMEOUT;
            if let Ask::Check(work) = &ask {
                state.give(work);
                limit = Duration::from_millis(u64::from(work.limits.timeout_ms)) + ANSWER_SLACK;
            }
            session.ask(id, &ask);
            state.asks.insert(id, (ask, reply));
            limit
        };
        let _forget = Forget { remote: self, id };
        match self.clock.timeout(limit, answer).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(_)) | None => Err(lost()),
        }
    }
}

/// A session that is up. Once it is not, and no other is within [`GRACE`], its jobs are given up.
struct Up {
    remote: Arc<RemoteProvider>,
    session: u64,
    clock: Clock,
}

impl Drop for Up {
    fn drop(&mut self) {
        let mut state = self.remote.state.lock();
        if state.sessions != self.session {
            return;
        }
        state.session = None;
        drop(state);
        self.remote.stirred.notify_one();
        let (remote, session, clock) = (Arc::downgrade(&self.remote), self.session, self.clock.clone());
        tokio::spawn(async move {
            clock.sleep(GRACE).await;
            if let Some(remote) = remote.upgrade() {
                remote.give_up(session);
            }
        });
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
        if let Some(job) = state.orders.remove(&self.order) {
            if let Some(session) = &state.session {
                session.cancel(self.order);
            }
            job.is_dropped.cancel();
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
        u64::try_from(self.silence().as_millis()).unwrap_or(u64::MAX)
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
        let (cancel, timeout_ms) = (order.cancel.clone(), order.ticket.limits.timeout_ms);
        let (reply, mut delivery) = oneshot::channel();
        let remote = self.me.upgrade().ok_or_else(not_connected)?;
        {
            let mut state = self.state.lock();
            let session = state.session.clone().ok_or_else(not_connected)?;
            if order.event.len() + order.parameters.len() > EVENT_BYTES_MAX {
                let message = "the event is larger than a link carries";
                return Err(Rejection::new(Code::BodyTooLarge, message).hint("send less, or stream the body"));
            }
            if order.body.is_some() && matches!(session, Outgoing::Whole(_)) {
                let old = "the provider's program is too old to take a request's body as a stream";
                return Err(Rejection::new(Code::LinkVersion, old).hint("update the provider"));
            }
            state.give(&order.work);
            let job = Arc::new(Job {
                id,
                order,
                has_passed: AtomicBool::new(false),
                is_dropped: CancellationToken::new(),
                reply: Mutex::new(Some(reply)),
            });
            session.order(&remote, &job);
            state.orders.insert(id, job);
        }
        let _abandon = Abandon {
            remote: self,
            order: id,
        };
        let answer = async {
            tokio::select! {
                result = &mut delivery => return result,
                () = cancel.cancelled() => {
                    let session = self.state.lock().session.clone();
                    if let Some(session) = session {
                        session.cancel(id);
                    }
                }
            }
            delivery.await
        };
        let limit = Duration::from_millis(u64::from(timeout_ms)) + ANSWER_SLACK;
        match self.clock.timeout(limit, answer).await {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(lost()),
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

    fn takes_streams(&self) -> bool {
        !matches!(self.state.lock().session, Some(Outgoing::Whole(_)))
    }

    fn takes_salts(&self) -> bool {
        match &self.state.lock().session {
            Some(Outgoing::Streams(session)) => session.takes_salts,
            Some(Outgoing::Whole(_)) | None => false,
        }
    }

    fn takes_tentative(&self) -> bool {
        match &self.state.lock().session {
            Some(Outgoing::Streams(session)) => session.takes_tentative,
            Some(Outgoing::Whole(_)) | None => false,
        }
    }

    fn forget(&self, function: FunctionId, version: u32) {
        let mut state = self.state.lock();
        state.warm.remove(&(function, version));
        if let Some(session) = &state.session {
            session.forget(function, version);
        }
    }
}
