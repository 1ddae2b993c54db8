//! A controller, a provider that does what a test says, and whatever line is between them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use piecework_model::{
    AccountId, Code, Counters, Digest, Domain, EgressList, FunctionId, JobId, JobStatus, Language, LeaseId, Limits,
    NetworkId, Prices, Receipt, Rejection, Seal, SecretKey, Ticket,
};
use piecework_queue::{
    Delivery, Load, Order, Profile, ProviderLink, Refusal, Unsealed, Work,
    link::{Agent, Bundles, Clock, Fetcher, RemoteProvider, Versions, receive},
};
use piecework_sandbox::{BackendName, Finished, Head, Inlet, LoadError, Logs, Outcome, Probe, Sent};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::line::{Fault, Line};

/// Runs a test by a clock that moves when everything waits.
pub fn run(test: impl AsyncFnOnce(Clock)) {
    let (clock, advance) = Clock::paused();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(advance)
        .build()
        .expect("a runtime");
    runtime.block_on(test(clock));
}

pub fn network() -> NetworkId {
    NetworkId([3; 32])
}

pub fn controller_key() -> SecretKey {
    SecretKey::from_seed([1; 32])
}

fn provider_key() -> SecretKey {
    SecretKey::from_seed([2; 32])
}

pub fn provider_account() -> AccountId {
    AccountId::of(&provider_key().public())
}

const PRICES: Prices = Prices {
    start_ucr: 1,
    cpu_ucr_per_s: 1,
    memory_ucr_per_gib_s: 1,
    egress_ucr_per_mib: 1,
};

pub fn work(name: &str) -> Work {
    Work {
        owner: None,
        function: FunctionId([5; 12]),
        version: 1,
        name: name.into(),
        language: Language::JavaScript,
        code: Digest::of(name.as_bytes()),
        handler: None,
        env: BTreeMap::new(),
        limits: Limits::DEFAULT,
        egress: EgressList::default(),
        backend: BackendName::Wasm,
    }
}

pub fn order(sequence: u64, event: &[u8]) -> Order {
    let work = Arc::new(work("good"));
    Order {
        ticket: Ticket {
            lease: LeaseId([1; 20]),
            provider: provider_account(),
            sequence,
            job: JobId::new(sequence, [0; 10]),
            code: work.code,
            input: Digest::of(event),
            limits: work.limits,
            prices: PRICES,
            price_max_ucr: 1_000,
            deadline_ms: u64::MAX,
            replaces: None,
        },
        payer: controller_key().public(),
        exposure_ucr: 1_000_000,
        seal: None,
        work,
        event: Bytes::copy_from_slice(event),
        parameters: Bytes::from_static(b"null"),
        salt: None,
        is_tentative: false,
        cancel: CancellationToken::new(),
        body: None,
        outlet: piecework_sandbox::Outlet::nowhere(),
    }
}

pub fn seal() -> Seal {
    let lane = (LeaseId([1; 20]), provider_account());
    Seal::sign(&controller_key(), Domain::Link, &network(), lane, &[Digest([8; 32])])
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers each event with itself.
    Echo,
    /// The same, once the test says so.
    WaitForWord,
    /// Streams a head and so many chunks; waits for the test before this part of it, the end being one.
    Stream { chunks: u64, waits_before: Option<u64> },
    /// Reads the body, and answers how long it is.
    Drink,
    /// Streams without end where the order is number 2, echoes the others.
    EchoOrStream,
}

/// The chunk of this number of what is streamed.
pub fn chunk(at: u64) -> Bytes {
    static CHUNK: std::sync::LazyLock<Vec<Bytes>> =
        std::sync::LazyLock::new(|| (0..=u8::MAX).map(|byte| vec![byte; 64 << 10].into()).collect());
    CHUNK[(at % 256) as usize].clone()
}

/// A provider that counts what is asked of it.
pub struct Scripted {
    profile: Profile,
    behaviour: Behaviour,
    seen: Mutex<HashMap<&'static str, usize>>,
    word: watch::Sender<bool>,
    given: AtomicU64,
    taken: AtomicU64,
}

impl Scripted {
    fn note(&self, what: &'static str) {
        *self.seen.lock().entry(what).or_default() += 1;
    }

    pub fn seen(&self, what: &str) -> usize {
        self.seen.lock().get(what).copied().unwrap_or_default()
    }

    /// Bytes that it has streamed.
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::SeqCst)
    }

    /// Bytes of a body that it has read.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }

    /// Whether the word came before the order was cancelled.
    async fn waits(&self, cancel: &CancellationToken) -> bool {
        let mut word = self.word.subscribe();
        tokio::select! {
            _ = word.wait_for(|said| *said) => true,
            () = cancel.cancelled() => false,
        }
    }

    async fn stream(&self, order: &Order, chunks: u64, waits_before: Option<u64>) -> Outcome {
        for part in 0..chunks.saturating_add(2) {
            if waits_before == Some(part) && !self.waits(&order.cancel).await {
                return Outcome::Stopped;
            }
            let sent = match part {
                0 => Sent::Head(Head {
                    status: 200,
                    headers: Vec::new(),
                }),
                _ if part == chunks + 1 => break,
                _ => Sent::Chunk(chunk(part - 1)),
            };
            let sent = tokio::select! {
                sent = order.outlet.send(sent) => sent,
                () = order.cancel.cancelled() => return Outcome::Stopped,
            };
            if sent.is_err() {
                return Outcome::Stopped;
            }
            if part > 0 {
                self.given.fetch_add(chunk(part - 1).len() as u64, Ordering::SeqCst);
            }
        }
        Outcome::Streamed
    }

    async fn drink(&self, order: &Order) -> Outcome {
        let mut body = order.body.as_ref().and_then(Inlet::take).expect("a body");
        while let Some(bytes) = body.recv().await {
            self.taken.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        }
        Outcome::Returned(self.taken().to_string().into())
    }

    pub fn give_word(&self) {
        self.word.send_replace(true);
    }
}

#[async_trait]
impl ProviderLink for Scripted {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn load(&self) -> Load {
        Load::default()
    }

    fn is_warm(&self, _function: FunctionId, _version: u32) -> bool {
        false
    }

    async fn check(&self, work: Arc<Work>) -> Result<(), LoadError> {
        match &*work.name {
            "bad" => Err(LoadError::Code(Rejection::new(Code::FunctionSyntaxError, "line 1"))),
            _ => Ok(()),
        }
    }

    async fn run(&self, order: Order) -> Result<Delivery, Refusal> {
        let ticket = order.ticket.clone();
        if ticket.sequence == 666 {
            return Err(Rejection::new(Code::TicketExpired, "too late").hint("a hint"));
        }
        self.note("run");
        let outcome = match self.behaviour {
            Behaviour::WaitForWord if !self.waits(&order.cancel).await => {
                self.note("cancelled");
                return Err(Rejection::new(Code::JobCancelled, "nobody waits"));
            }
            Behaviour::Stream { chunks, waits_before } => self.stream(&order, chunks, waits_before).await,
            Behaviour::EchoOrStream if ticket.sequence == 2 => self.stream(&order, u64::MAX - 2, None).await,
            Behaviour::Drink => self.drink(&order).await,
            Behaviour::WaitForWord | Behaviour::Echo | Behaviour::EchoOrStream => {
                Outcome::Returned(order.event.clone())
            }
        };
        Ok(Delivery {
            receipt: Receipt {
                lease: ticket.lease,
                provider: ticket.provider,
                sequence: ticket.sequence,
                job: ticket.job,
                code: ticket.code,
                input: ticket.input,
                output: Digest::of(&order.event),
                status: JobStatus::Ok,
                counters: Counters::default(),
                price_ucr: 1,
                duration_us: 10,
            },
            mark: [6; 32],
            finished: Finished {
                outcome,
                logs: Logs::default(),
                counters: Counters::default(),
                memory_peak_bytes: 1,
                duration: Duration::from_micros(10),
                reusable: true,
            },
            cold: false,
            pull_us: 0,
            is_cut: false,
        })
    }

    async fn accept_seal(&self, _seal: Seal, sequences: Vec<u64>) -> Result<(), Refusal> {
        assert_eq!(sequences, [1, 2]);
        self.note("accept_seal");
        Ok(())
    }

    async fn seal_receipts(&self, _lane: (LeaseId, AccountId), _receipts: Vec<Unsealed>) -> Result<Seal, Refusal> {
        Ok(seal())
    }

    fn forget(&self, _function: FunctionId, _version: u32) {
        self.note("forget");
    }
}

/// The controller's bundles.
#[derive(Default)]
struct Kept {
    bundles: Mutex<HashMap<Digest, Bytes>>,
    read: AtomicUsize,
}

#[async_trait]
impl Bundles for Kept {
    async fn bundle(&self, digest: Digest) -> Option<Bytes> {
        let found = self.bundles.lock().get(&digest).cloned();
        self.read.fetch_add(usize::from(found.is_some()), Ordering::Relaxed);
        found
    }

    async fn named_by(&self, _: Digest) -> Vec<Digest> {
        Vec::new()
    }
}

pub struct World {
    pub provider: Arc<Scripted>,
    pub agent: Arc<Agent>,
    pub fetcher: Fetcher,
    kept: Arc<Kept>,
    remote: Arc<Mutex<Option<Arc<RemoteProvider>>>>,
    /// No session comes up while it says no.
    whole: watch::Sender<bool>,
    cut: Arc<Mutex<CancellationToken>>,
    met: Arc<AtomicBool>,
    sessions: Arc<AtomicUsize>,
    slow: Duration,
    clock: Clock,
}

impl World {
    pub fn new(clock: &Clock, behaviour: Behaviour) -> Self {
        Self::speaking(clock, Versions::OURS, behaviour)
    }

    /// With a provider that speaks these versions of the link.
    pub fn speaking(clock: &Clock, versions: Versions, behaviour: Behaviour) -> Self {
        let provider = Arc::new(Scripted {
            profile: Profile {
                account: provider_account(),
                name: "scripted".into(),
                prices: PRICES,
                cores: 1,
                memory_bytes: 1,
                slots: 200,
                region: "here".into(),
                labels: Vec::new(),
                probes: vec![Probe {
                    backend: BackendName::Jail,
                    works: true,
                    languages: vec![Language::Python, Language::Image],
                    detail: String::new(),
                    weaker: Vec::new(),
                    cold_us: None,
                    warm_us: None,
                }],
                egress: None,
                free_for: None,
            },
            behaviour,
            seen: Mutex::default(),
            word: watch::Sender::new(false),
            given: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        });
        let fetcher = Fetcher::default();
        let who = (provider_key(), network(), [4; 16]);
        let agent = Agent::speaking(versions, who, provider.clone(), fetcher.clone());
        Self {
            provider,
            agent,
            fetcher,
            kept: Arc::default(),
            remote: Arc::default(),
            whole: watch::Sender::new(true),
            cut: Arc::new(Mutex::new(CancellationToken::new())),
            met: Arc::default(),
            sessions: Arc::default(),
            slow: Duration::ZERO,
            clock: clock.clone(),
        }
    }

    pub fn keep(&self, bundle: Bytes) -> Digest {
        let digest = Digest::of(&bundle);
        self.kept.bundles.lock().insert(digest, bundle);
        digest
    }

    pub fn read_bundles(&self) -> usize {
        self.kept.read.load(Ordering::Relaxed)
    }

    /// How long a large packet is on its way.
    pub fn slow_down(&mut self, slow: Duration) {
        self.slow = slow;
    }

    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    pub fn met_its_fault(&self) -> bool {
        self.met.load(Ordering::Relaxed)
    }

    /// Keeps the two linked; the first line has the fault. Returns the controller's end once they are linked.
    pub async fn link(&mut self, fault: Option<Fault>) -> Arc<RemoteProvider> {
        tokio::spawn(keep_linked(Ends {
            agent: self.agent.clone(),
            kept: self.kept.clone(),
            remote: self.remote.clone(),
            whole: self.whole.subscribe(),
            cut: self.cut.clone(),
            met: self.met.clone(),
            sessions: self.sessions.clone(),
            slow: (self.clock.clone(), self.slow),
            fault,
        }));
        loop {
            let remote = self.remote.lock().clone();
            if let Some(remote) = remote.filter(|remote| remote.is_linked()) {
                return remote;
            }
            self.clock.sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lets everything happen that still happens by itself.
    pub async fn settle(&self) {
        self.clock.sleep(Duration::from_secs(30)).await;
    }

    pub fn cut(&self) {
        self.whole.send_replace(false);
        self.cut.lock().cancel();
    }

    /// Lets the line come back.
    pub fn repair(&self) {
        self.whole.send_replace(true);
    }

    pub async fn mend(&self) {
        self.repair();
        self.settle().await;
    }
}

struct Ends {
    agent: Arc<Agent>,
    kept: Arc<Kept>,
    remote: Arc<Mutex<Option<Arc<RemoteProvider>>>>,
    whole: watch::Receiver<bool>,
    cut: Arc<Mutex<CancellationToken>>,
    met: Arc<AtomicBool>,
    sessions: Arc<AtomicUsize>,
    slow: (Clock, Duration),
    fault: Option<Fault>,
}

async fn keep_linked(mut ends: Ends) {
    while ends.whole.wait_for(|whole| *whole).await.is_ok() {
        let cut = CancellationToken::new();
        *ends.cut.lock() = cut.clone();
        let line = Line::new(ends.fault.take(), ends.slow.clone(), &ends.met, &cut);
        ends.sessions.fetch_add(1, Ordering::Relaxed);
        let far = tokio::spawn(serve(line.controller, ends.kept.clone(), ends.remote.clone()));
        ends.agent.session(line.provider, &|_| Ok(()), || 0).await;
        far.await.expect("no panic");
        ends.slow.0.sleep(Duration::from_millis(300)).await;
    }
}

async fn serve(wire: piecework_queue::link::Wire, kept: Arc<Kept>, remotes: Arc<Mutex<Option<Arc<RemoteProvider>>>>) {
    let Ok(arrival) = receive(wire, &controller_key(), network()).await else {
        return;
    };
    let remote = remotes
        .lock()
        .get_or_insert_with(|| RemoteProvider::new(&arrival))
        .clone();
    assert!(remote.is_same_run(&arrival));
    remote.serve(arrival, &*kept, 0, &CancellationToken::new()).await;
}
